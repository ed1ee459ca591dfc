"""Several sources in given shares: which one the next window comes from, and how much text there is."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .formats import Shard
from .order import Order
from .text import shards
from .windows import LANES, NO_MARKS, Encode, Marks, Window, Windows

SAMPLE = 1 << 20
"""Characters tokenised to estimate how many tokens a source has."""


class Amount(NamedTuple):
    """Of text: its tokens, about (None: cannot be told), and how long its documents are.

    document: mean tokens of the first whole ones; None where there are not two.
    """

    tokens: int | None
    document: float | None


@dataclass(frozen=True)
class Part:
    """One source of a mixture: its spelling (see text.py), and its share of the tokens."""

    sources: tuple[str, ...]
    weight: float


def parse_mixture(words: Sequence[str]) -> list[Part]:
    """Read ``--data``: ``books.parquet:0.9 math.parquet:0.1``; without weights all words are one source.

    Raises UserError when some words have a weight and others none, or a weight is not above zero.

    >>> [(part.sources, part.weight) for part in parse_mixture(["a.txt:3", "b.txt:1"])]
    [(('a.txt',), 0.75), (('b.txt',), 0.25)]
    """
    split = [_split_weight(word) for word in words]
    if all(weight is None for _, weight in split):
        return [Part(tuple(words), 1.0)]
    bare = [source for source, weight in split if weight is None]
    if bare:
        raise UserError(f"data {bare[0]} has no weight while others have; give every one a weight or none")
    total = sum(weight or 0.0 for _, weight in split)
    parts = []
    for source, weight in split:
        if not weight or not math.isfinite(weight):
            raise UserError(f"data {source} has weight {weight}; a weight is above zero")
        parts.append(Part((source,), weight / total))
    return parts


def _split_weight(word: str) -> tuple[str, float | None]:
    found = re.fullmatch(r"(.+):(\d+(?:\.\d*)?|\.\d+)", word)
    if found is None or Path(word).exists():
        return word, None
    return found[1], float(found[2])


class Mixture:
    """An endless stream of windows from several `Windows`, each in its share.

    The next window comes from the source that is furthest behind its share, so that after n windows
    every source has given n·w within one window of it (for two sources; within one a source in general).
    """

    def __init__(self, streams: Sequence[Windows], weights: Sequence[float]) -> None:
        assert len(streams) == len(weights) > 0, (len(streams), len(weights))
        self._streams, self._weights = list(streams), list(weights)
        self._given = [0] * len(streams)

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        n = sum(self._given) + 1
        behind = [w * n - given for w, given in zip(self._weights, self._given)]
        chosen = behind.index(max(behind))
        self._given[chosen] += 1
        return next(self._streams[chosen])

    @property
    def passes(self) -> int:
        """Passes begun over the source that was read most often."""
        return max(stream.passes for stream in self._streams)

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON."""
        return {"given": list(self._given), "streams": [stream.state() for stream in self._streams]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same mixture."""
        assert len(state["streams"]) == len(self._streams), "another number of sources"
        self._given = [int(n) for n in state["given"]]
        for stream, one in zip(self._streams, state["streams"]):
            stream.restore(one)


def open_mixture(
    parts: Sequence[Part],
    encode: Encode,
    length: int,
    *,
    marks: Marks = NO_MARKS,
    seed: int = 0,
    column: str | None = None,
) -> tuple[Mixture, list[Amount]]:
    """The stream of windows, and about how much each part holds.

    Raises UserError: as `text.shards`, and when a part's text is shorter than one window.
    """
    streams, sizes = [], []
    for number, part in enumerate(parts):
        found = shards(part.sources, column)
        amount = estimate(found, encode, length)
        size = amount.tokens
        if size is not None and size < length:
            raise UserError(
                f"data {' '.join(part.sources)} is shorter than one window: {size:,} tokens in all, "
                f"the window is {length:,}; give more text or a smaller --window"
            )
        order = Order(found, seed=seed + 7919 * number)
        lanes = _lanes(found, size, length)
        streams.append(Windows(order, encode, length, marks=marks, lanes=lanes))
        sizes.append(amount)
    return Mixture(streams, [part.weight for part in parts]), sizes


def estimate(found: Sequence[Shard], encode: Encode, length: int) -> Amount:
    """About how many tokens the shards hold: bytes by size, tokens per byte from the first characters.

    Exact, by tokenising all of it, when there is little text.
    """
    sizes = [shard.size() for shard in found]
    tokens = characters = size = 0
    whole: list[int] = []
    complete = True
    for document in (document for shard in found for block in shard.blocks() for document in block):
        part = document.text[: SAMPLE - characters]
        here = len(encode(part))
        if len(part) == len(document.text):
            whole.append(here)
        else:
            complete = False
        tokens += here
        characters += len(part)
        size += len(part.encode("utf-8", "replace"))
        if characters >= SAMPLE:
            complete = False
            break
    mean = sum(whole) / len(whole) if len(whole) > 1 else None
    if complete:
        return Amount(tokens, mean)
    if any(one is None for one in sizes):
        return Amount(None if tokens >= length else tokens, mean)
    return Amount(max(tokens, round(sum(one or 0 for one in sizes) * tokens / max(1, size))), mean)


def _lanes(found: Sequence[Shard], tokens: int | None, length: int) -> int:
    """As many lanes as keep all busy in a pass: not more than documents, nor than windows in the text."""
    known = 0
    for shard in found:
        known += shard.count() or LANES
        if known >= LANES:
            break
    windows = LANES if tokens is None else tokens // length
    return max(1, min(LANES, known, windows))
