"""The order in which documents are read: pass after pass, each pass shuffled anew, from one seed.

Shards are shuffled, then the documents inside each block of a shard, so that no pass needs more than one
block in memory. Where a reader stands is four numbers, and any document can be found again from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .formats import Document, Shard


class Place(NamedTuple):
    """Where a document stands: pass (from 0), shard in this pass's order, block, and rank in its shuffle."""

    turn: int
    shard: int
    block: int
    rank: int


class Order:
    """Documents of ``shards``, without end; every document once in each pass.

    seed: any; the same seed gives the same order.   shuffle: False keeps the order of the files.
    """

    def __init__(self, shards: Sequence[Shard], seed: int = 0, shuffle: bool = True) -> None:
        self._shards, self._seed, self._shuffle = list(shards), seed, shuffle
        self._next = Place(0, 0, 0, 0)
        self._documents = self._from(self._next)

    def __next__(self) -> tuple[Place, Document]:
        """The next document with its place. Raises UserError when a whole pass holds no text."""
        place, document = next(self._documents)
        self._next = place._replace(rank=place.rank + 1)
        return place, document

    @property
    def turn(self) -> int:
        """The pass that the next document is looked for in."""
        return self._next.turn

    def state(self) -> list[int]:
        """Where the next document is looked for, as plain numbers."""
        return list(self._next)

    def restore(self, state: Sequence[int]) -> None:
        """Go on from a `state`."""
        self._next = Place(*state)
        self._documents = self._from(self._next)

    def find(self, place: Sequence[int]) -> Document:
        """The document at a place that was handed out before."""
        wanted = Place(*place)
        found, document = next(self._from(wanted))
        if found != wanted:
            raise UserError("the data is not what it was when this training began; begin again")
        return document

    def _from(self, start: Place) -> Iterator[tuple[Place, Document]]:
        turn = start.turn
        while True:
            any_text = start.turn == turn and start != Place(turn, 0, 0, 0)
            for position, number in enumerate(self._permutation(len(self._shards), turn)):
                if turn == start.turn and position < start.shard:
                    continue
                for block, documents in enumerate(self._shards[number].blocks()):
                    at = Place(turn, position, block, 0)
                    if at[:3] < start[:3]:
                        continue
                    for rank, index in enumerate(self._permutation(len(documents), turn, number, block)):
                        place = at._replace(rank=rank)
                        if place >= start and documents[index].text:
                            any_text = True
                            yield place, documents[index]
            if not any_text:
                raise UserError("the data holds no text: every document is empty")
            turn += 1

    def _permutation(self, n: int, *key: int) -> list[int]:
        if not self._shuffle:
            return list(range(n))
        return np.random.default_rng([self._seed, *map(int, key)]).permutation(n).tolist()
