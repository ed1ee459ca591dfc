"""The paper's passkey prompt, exact in tokens for any tokenizer.

    There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. …
    The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. …   (× X)
    The pass key is 12345. Remember it. 12345 is the pass key.
    The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. …   (× Y)
    What is the pass key? The pass key is

(Mohtashami & Jaggi 2023, used by Chen et al. 2023, section 3.3.) Filler alone is cut to make a prompt fit;
the tokens of the other lines are those which the tokenizer gives them where they stand, so merges across
a line's end (".\\n" is one token for many tokenizers) stay whole.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import UserError

PREAMBLE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
KEY = "The pass key is {key}. Remember it. {key} is the pass key."
QUESTION = "What is the pass key? The pass key is"


class Codec(Protocol):
    """The part of a language model that turns text to tokens and back."""

    bos: int | None

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Prompt:
    """A prompt and where its key is.

    ids: tokens, a BOS in front when the model has one.  key: five digits.
    distance: tokens from the key's first digit to the end of prompt and answer room.
    """

    ids: list[int]
    key: str
    distance: int


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
        repeats = 2 + self.target // max(1, len(codec.encode(" " + FILLER)) - 1)
        fill = " ".join([FILLER] * repeats)
        self._tail = _after(codec, FILLER, "\n" + QUESTION)
        self.room = max(len(_after(codec, QUESTION, " " + key)) for key in draw_keys(40, "answer room"))
        opened = codec.encode(PREAMBLE + "\n" + fill)
        self._opening = opened[: _first_with(codec, opened[:400], PREAMBLE)]
        self._before = opened[len(self._opening) :]
        line = KEY.format(key="12345")
        filled = codec.encode(line + "\n" + fill)
        self._behind = filled[_first_with(codec, filled[:400], line) :]
        self._heads: dict[tuple[int, str], tuple[list[int], int]] = {}
        if "pass key" in codec.decode(self._before + self._behind) or self._tail == []:
            raise self._unfit()
        if self.shortest > self.target:
            raise UserError(
                f"a passkey prompt needs {self.shortest} tokens with this tokenizer, more than the "
                f"{self.target} of the target window; test at a longer one"
            )

    @property
    def tail(self) -> list[int]:
        """The tokens of the question, at the end of every prompt."""
        return list(self._tail)

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
        assert middle <= len(self._behind), f"{middle} tokens of filler in {length}"
        ids = self._bos + head + self._behind[:middle] + self._tail
        text = self.codec.decode(ids[-len(self._tail) - min(middle, 8) :])
        if not text.rstrip().endswith(QUESTION):
            raise self._unfit()
        return Prompt(ids, key, len(ids) + self.room - len(self._bos) - first)

    def _head(self, before: int, key: str) -> tuple[list[int], int]:
        """Preamble, ``before`` filler tokens and the key's line; and the index of the key's first digit."""
        if (before, key) not in self._heads:
            codec, line = self.codec, KEY.format(key=key)
            if before == 0:
                ids = codec.encode(PREAMBLE + "\n" + line + "\n" + FILLER)
            else:
                behind = _after(codec, FILLER, "\n" + line + "\n" + FILLER)
                ids = self._opening + self._before[:before] + behind
            stop = _first_with(codec, ids, line)
            first = _first_with(codec, ids, line[: line.index(key) + 1]) - 1
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


def _first_with(codec: Codec, ids: Sequence[int], text: str) -> int:
    """The least n such that the first n tokens decode to a text that contains ``text``, by bisection."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if text in codec.decode(ids[:middle]):
            high = middle
        else:
            low = middle + 1
    return low


def _after(codec: Codec, before: str, text: str) -> list[int]:
    """The tokens of ``text`` where it follows ``before``.

    A token in which the end of ``before`` and the start of ``text`` are merged belongs to them.
    """
    whole, alone = codec.encode(before + text), codec.encode(before)
    same = 0
    while same < min(len(whole), len(alone)) and whole[same] == alone[same]:
        same += 1
    return whole[same:]
