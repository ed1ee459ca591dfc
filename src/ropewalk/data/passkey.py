"""The paper's passkey prompt, exact in tokens for any tokenizer.

    There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. …
    The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. …   (× X)
    The pass key is 12345. Remember it. 12345 is the pass key.
    The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. …   (× Y)
    What is the pass key? The pass key is

(Mohtashami & Jaggi 2023, used by Chen et al. 2023, section 3.3.) Filler alone gives way to make a prompt
fit, in whole sentences (see filler.py); the tokens of the other lines are those which the tokenizer gives
them where they stand, so merges across a line's end (".\\n" is one token for many tokenizers) stay whole.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ..errors import UserError
from .filler import FILLER, Codec, Filler, after, first_with

PREAMBLE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
KEY = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"
METHOD = {"filler": "whole sentences"}
"""Said by every result that uses these prompts; those without it had filler cut in mid-sentence."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and where its key is.

    ids: tokens, a BOS in front when the model has one.  key: five digits.
    distance: tokens from the key's first digit to the end of prompt and answer room.
    shared: tokens at its start that a longer prompt with this key at this place begins with too.
    """

    ids: list[int]
    key: str
    distance: int
    shared: int


def draw_keys(count: int, seed: int | str) -> list[str]:
    """Random five-digit keys, 10000 … 99999; the same seed gives the same keys on every machine."""
    draw = random.Random(str(seed))
    return [str(draw.randint(10000, 99999)) for _ in range(count)]


@dataclass
class PasskeyPrompts:
    """Builds prompts of exact length with one tokenizer.

    target: the longest input wanted, tokens; `room` of it stay free for the answer.
    Raises UserError when the tokenizer cannot spell the prompt (its text does not survive encode and
    decode), or when the target is too small for any prompt.
    """

    codec: Codec
    target: int
    room: int = field(init=False)

    def __post_init__(self) -> None:
        codec = self.codec
        self._bos = [] if codec.bos is None else [codec.bos]
        self._tail, self._merged = after(codec, FILLER, "\n" + QUESTION)
        self.room = max(len(after(codec, QUESTION, " " + key)[0]) for key in draw_keys(40, "answer room"))
        self._before = Filler(codec, PREAMBLE, self.target)
        self._behind = Filler(codec, KEY.format(key="12345"), self.target)
        self._heads: dict[tuple[int, str], tuple[list[int], int]] = {}
        if "pass key" in codec.decode(self._before.ids + self._behind.ids) or self._tail == []:
            raise self._unfit()
        if self.shortest > self.target:
            raise UserError(
                f"a passkey prompt needs {self.shortest} tokens with this tokenizer, more than the "
                f"{self.target} of the target window; test at a longer one"
            )

    @property
    def shortest(self) -> int:
        """Tokens of a prompt without filler, and of its answer."""
        head = max(len(self._head(0, key)[0]) for key in draw_keys(10, "shortest"))
        return len(self._bos) + head + len(self._tail) + self.room

    def at_distance(self, k: int, key: str) -> Prompt:
        """The prompt whose key's first digit stands ``k`` tokens before the end of prompt and answer room.

        The key directly follows the preamble, so the input is k tokens and the preamble long. Where that
        would not fit the target window, the input is the target less the answer's room, and the distance
        of the prompt is the real one, a preamble less than k. A k too near for question and answer gives
        a prompt without filler.
        """
        _, first = self._head(0, key)
        length = min(len(self._bos) + first + k, self.target) - self.room
        return self._build(0, key, max(length, self.shortest - self.room))

    def at_depth(self, length: int, depth: float, key: str) -> Prompt:
        """A prompt of exactly ``length`` tokens, answer room included, its key at ``depth`` of the filler.

        depth: 0 (key directly after the preamble) … 1 (directly before the question).
        Raises UserError when the length is below `shortest`.
        """
        if length < self.shortest:
            raise UserError(
                f"a passkey prompt needs {self.shortest} tokens with this tokenizer, not {length}"
            )
        before = round(depth * (length - self.shortest))
        while before and len(self._bos) + len(self._head(before, key)[0]) + len(self._tail) > (
            length - self.room
        ):
            before -= 1  # a line's end more may need a token or two
        return self._build(before, key, length - self.room)

    def _build(self, before: int, key: str, length: int) -> Prompt:
        head, first = self._head(before, key)
        middle = max(0, length - len(self._bos) - len(head) - len(self._tail))
        filler = self._behind.exactly(middle, self._merged)
        ids = self._bos + head + filler.ids + self._tail
        text = self.codec.decode(ids[-len(self._tail) - min(middle, 8) :])
        if not text.rstrip().endswith(QUESTION):
            raise self._unfit()
        start = len(self._bos) + len(head)
        return Prompt(ids, key, len(ids) + self.room - len(self._bos) - first, start + filler.shared)

    def _head(self, before: int, key: str) -> tuple[list[int], int]:
        """Preamble, ``before`` filler tokens and the key's line; and the index of the key's first digit."""
        if (before, key) not in self._heads:
            codec, line = self.codec, KEY.format(key=key)
            if before == 0:
                ids = codec.encode(PREAMBLE + "\n" + line + "\n" + FILLER)
            else:
                behind, merged = after(codec, FILLER, "\n" + line + "\n" + FILLER)
                ids = self._before.ahead + self._before.exactly(before, merged).ids + behind
            stop = first_with(codec, ids, line)
            first = first_with(codec, ids, line[: line.index(key) + 1]) - 1
            text = codec.decode(ids[:stop])
            if text.count(line) != 1 or PREAMBLE not in text:
                raise self._unfit()
            self._heads[before, key] = ids[:stop], first
        return self._heads[before, key]

    def _unfit(self) -> UserError:
        return UserError(
            "this tokenizer does not keep the passkey prompt's text (encode, then decode changes it), "
            "so the passkey test cannot be run on this model"
        )
