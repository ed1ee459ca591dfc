"""Documents -> windows of tokens, lazily: nothing is tokenised before its turn, nothing is read twice.

A window takes its tokens from one *lane*; a lane is a reader that joins whole documents end to end
(BOS in front and EOS behind, as the tokenizer has them). Windows come from the lanes in turn, so that
neighbouring windows, which form one optimizer step, belong to different documents. All lanes of a
source draw their documents from one `Order`: in a pass every document is read once, by one lane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .formats import Document
from .order import Order, Place

PIECE = 1 << 18
"""Characters tokenised at once; a longer document is cut behind the last line end before that."""

LANES = 16
"""Readers side by side, where there are as many documents."""


@dataclass(frozen=True)
class Marks:
    """The ids that stand before and behind each document; None for nothing."""

    bos: int | None = None
    eos: int | None = None


NO_MARKS = Marks()


@dataclass(frozen=True)
class Window:
    """ids: (T,) int64.   starts: indices in the window at which a document begins, rising."""

    ids: np.ndarray
    starts: tuple[int, ...]


Encode = Callable[[str], Sequence[int]]


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """``text`` in parts of at most ``size`` characters, cut behind a line end, else a space, else anywhere.

    >>> list(pieces("ab\\ncd ef", 5))
    ['ab\\n', 'cd ef']
    """
    at = 0
    while len(text) - at > size:
        cut = text.rfind("\n", at, at + size)
        if cut < 0:
            cut = text.rfind(" ", at, at + size)
        stop = cut + 1 if cut >= at else at + size
        yield text[at:stop]
        at = stop
    if at < len(text):
        yield text[at:]


def document_tokens(document: Document, encode: Encode, marks: Marks) -> Iterator[np.ndarray]:
    """A document's token ids, int64, piece by piece: BOS, its text, EOS."""
    if marks.bos is not None:
        yield np.array([marks.bos], dtype=np.int64)
    for part in pieces(document.text):
        yield np.asarray(encode(part), dtype=np.int64)
    if marks.eos is not None:
        yield np.array([marks.eos], dtype=np.int64)


class Lane:
    """A reader that joins documents of an `Order` into one stream of tokens."""

    def __init__(self, order: Order, encode: Encode, marks: Marks) -> None:
        self._order, self._encode, self._marks = order, encode, marks
        self._place: Place | None = None
        self._consumed = 0  # tokens of the document at `_place` that were handed out
        self._parts: Iterator[np.ndarray] = iter(())
        self._rest = np.empty(0, dtype=np.int64)

    def take(self, length: int) -> Window:
        """The next ``length`` tokens."""
        taken: list[np.ndarray] = []
        starts: list[int] = []
        have = 0
        while have < length:
            if not len(self._rest):
                part = next(self._parts, None)
                if part is None:
                    self._open_next()
                else:
                    self._rest = part
                continue
            if self._consumed == 0:
                starts.append(have)
            piece = self._rest[: length - have]
            self._rest = self._rest[len(piece) :]
            self._consumed += len(piece)
            have += len(piece)
            taken.append(piece)
        return Window(np.concatenate(taken), tuple(starts))

    def state(self) -> list[int] | None:
        """The place of the document that is being read, and how many of its tokens are behind us."""
        return None if self._place is None else [*self._place, self._consumed]

    def restore(self, state: Sequence[int] | None) -> None:
        """Go on from a `state`: the document is opened again and its first tokens are passed over."""
        self._place, self._consumed, self._parts = None, 0, iter(())
        self._rest = np.empty(0, dtype=np.int64)
        if state is None:
            return
        *place, consumed = state
        self._place = Place(*place)
        self._parts = document_tokens(self._order.find(self._place), self._encode, self._marks)
        while self._consumed < consumed:
            part = next(self._parts)
            keep = max(0, len(part) - (consumed - self._consumed))
            self._rest = part[len(part) - keep :]
            self._consumed += len(part) - keep

    def _open_next(self) -> None:
        self._place, document = next(self._order)
        self._consumed = 0
        self._parts = document_tokens(document, self._encode, self._marks)


class Windows:
    """An endless stream of windows of ``length`` tokens from one source, lanes taking turns.

    lanes: how many; more than documents would only repeat documents side by side.
    """

    def __init__(
        self, order: Order, encode: Encode, length: int, *, marks: Marks = NO_MARKS, lanes: int = LANES
    ) -> None:
        assert length > 0 and lanes > 0, (length, lanes)
        self.length, self._order, self._turn = length, order, 0
        self._lanes = [Lane(order, encode, marks) for _ in range(lanes)]

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        window = self._lanes[self._turn].take(self.length)
        self._turn = (self._turn + 1) % len(self._lanes)
        return window

    @property
    def passes(self) -> int:
        """Passes over the source that were begun."""
        return self._order.turn + 1

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON: a few numbers a lane."""
        return {
            "order": self._order.state(),
            "lanes": [lane.state() for lane in self._lanes],
            "turn": self._turn,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of a stream with the same source, seed, length and lanes."""
        assert len(state["lanes"]) == len(self._lanes), "another number of lanes"
        self._order.restore(state["order"])
        for lane, one in zip(self._lanes, state["lanes"]):
            lane.restore(one)
        self._turn = int(state["turn"])
