"""The passkey prompt's filler in any number of tokens, whole sentences as far as a tokenizer allows.

The paper repeats five sentences as a whole. To be exact in tokens, something must give: text cut in
mid-sentence before the question ("Here we\\nWhat is the pass key?") is not the paper's, and models that
were fine-tuned on prose answer it with more prose, at some cuts never with the key and at the next always
(dev/LOG.md, entries 46 and 48). So the repeats end a little early, and sentences fill the rest:

    The grass is green. … back again. The grass is green. … back again. Here we go. There and back again.
    |<---------------------- whole repeats --------------------------->|<------- to be exact -------->|

With sentences of 4 and 5 tokens every number from 12 on can be made.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

SENTENCES = (
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
)
FILLER = " ".join(SENTENCES)

BACK = 4
"""Repeats that may be given up for sentences that come out even."""

MOST = 4
"""How often one of those sentences may stand there."""


class Codec(Protocol):
    """The part of a language model that turns text to tokens and back."""

    bos: int | None

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Stretch:
    """Tokens of filler. shared: of them, from the start, with which longer ones that share any begin."""

    ids: list[int]
    shared: int


class Filler:
    """Filler on the line behind ``start``, up to ``most`` tokens of it.

    ahead: the tokens of ``start`` (and of its line's end, where they are one).
    """

    def __init__(self, codec: Codec, start: str, most: int) -> None:
        repeats = 2 + most // max(1, len(codec.encode(" " + FILLER)) - 1)
        whole = codec.encode(start + "\n" + " ".join([FILLER] * repeats))
        self.ahead = whole[: first_with(codec, whole[:400], start)]
        self._stream = whole[len(self.ahead) :]
        self._lead = next((i for i, one in enumerate(self._stream) if codec.decode([one]).strip()), 0)
        alone = [codec.encode(start + "\n" + " ".join([FILLER] * count)) for count in (1, 2)]
        period = len(alone[1]) - len(alone[0])
        even = all(whole[: len(one)] == one for one in alone) and period > 0
        first = len(alone[0]) - len(self.ahead)
        self._ends = range(first, len(self._stream) + 1, period) if even else range(0)
        self._sums = _sums(_sentence_tokens(codec) if even else [], BACK * period)

    @property
    def ids(self) -> list[int]:
        """All of it."""
        return list(self._stream)

    def exactly(self, count: int, merged: int = 0) -> Stretch:
        """``count`` tokens; what follows them begins with the last ``merged`` of a sentence's own.

        Where sentences do not come out even, the end of one stands in front; what is shorter than a repeat
        and some sentences is cut at its end.
        """
        assert 0 <= count <= len(self._stream) - merged, f"{count} tokens of filler"
        wanted = count + merged
        for piece in range(min(count, max(self._sums, default=0))):
            ends = [end for end in self._ends if end <= wanted - piece][-BACK:]
            ways = [
                (*self._sums[wanted - piece - end], end) for end in ends if wanted - piece - end in self._sums
            ]
            if not ways:
                continue
            _, rest, end = min(ways, key=lambda way: (way[0], -way[2]))
            ids = self._stream[:end] + rest
            if piece:
                last = self._ends[0]
                ids = self._stream[: self._lead] + self._stream[last - piece : last] + ids[self._lead :]
            ids = ids[: len(ids) - merged]
            return Stretch(ids, 0 if piece else min(end, len(ids)))
        return Stretch(self._stream[:count], 0)


def _sentence_tokens(codec: Codec) -> list[list[int]]:
    """The tokens of each sentence where it follows another, of those that have tokens of their own."""
    found = []
    for sentence in SENTENCES:
        ids, merged = after(codec, FILLER, " " + sentence)
        if not merged and codec.decode(ids).strip() == sentence:
            found.append(ids)
    return found


def _sums(parts: Sequence[list[int]], limit: int) -> dict[int, tuple[int, list[int]]]:
    """For each number of tokens up to ``limit`` that parts can make: (how often one stands there, they).

    One part as seldom as can be, then as few as can be; those that come twice stand again behind all.
    """
    found: dict[int, tuple[int, int, list[int]]] = {}
    for counts in itertools.product(range(MOST + 1), repeat=len(parts)):
        total = sum(count * len(part) for count, part in zip(counts, parts))
        key = (max(counts, default=0), sum(counts))
        if total <= limit and (total not in found or key < found[total][:2]):
            rounds = [part for turn in range(MOST) for count, part in zip(counts, parts) if count > turn]
            found[total] = (*key, [one for part in rounds for one in part])
    return {total: (often, ids) for total, (often, _, ids) in found.items()}


def first_with(codec: Codec, ids: Sequence[int], text: str) -> int:
    """The least n such that the first n tokens decode to a text that contains ``text``, by bisection."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if text in codec.decode(ids[:middle]):
            high = middle
        else:
            low = middle + 1
    return low


def after(codec: Codec, before: str, text: str) -> tuple[list[int], int]:
    """(the tokens of ``text`` where it follows ``before``, how many of the latter's they take the place of).

    A token in which the end of ``before`` and the start of ``text`` are merged belongs to them.
    """
    whole, alone = codec.encode(before + text), codec.encode(before)
    same = 0
    while same < min(len(whole), len(alone)) and whole[same] == alone[same]:
        same += 1
    return whole[same:], len(alone) - same
