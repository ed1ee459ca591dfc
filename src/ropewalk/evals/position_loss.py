"""Loss by position: where in its window does a model read well, and from where on does it fail?

Each document is cut into windows of the target length side by side; one forward pass a window scores every
token of it, and the losses are averaged in buckets of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..data.text import describe
from ..metrics.intervals import clipped, document_interval
from ..metrics.windows import Window
from ..model.lm import LanguageModel
from ..results.cells import Cells
from .ranges import at_least
from .texts import Text, read_texts, read_windows, total

NAME = "position-loss"


@dataclass(frozen=True)
class PositionLossSettings:
    """One group of documents read in windows of ``length`` tokens, averaged in ``buckets`` buckets.

    most_windows: read at most so many, the documents taking turns; None for all.
    documents, cut, column, seed: as for perplexity.
    """

    group: str
    sources: tuple[str, ...]
    length: int
    buckets: int = 16
    most_windows: int | None = None
    documents: int | None = None
    cut: int | None = None
    column: str | None = None
    seed: int = 0


def data(settings: PositionLossSettings) -> list[dict[str, Any]]:
    """The "data" blocks: what is read, with hashes."""
    return [{"group": settings.group, **block} for block in describe(settings.sources)]


def check(settings: PositionLossSettings, block: dict[str, Any]) -> None:
    """Raises UserError for settings that cannot be, before any evaluation runs."""
    del block
    at_least(2, NAME, length=settings.length)
    at_least(1, NAME, buckets=settings.buckets, most_windows=settings.most_windows)
    at_least(1, NAME, documents=settings.documents)
    at_least(settings.length, NAME, cut=settings.cut)


def run(lm: LanguageModel, settings: PositionLossSettings, cells: Cells) -> dict[str, Any]:
    """One row a bucket [from, to) of positions; the summary keeps each document's loss in each bucket."""
    texts = read_texts(
        lm,
        settings.sources,
        at_least=settings.length,
        documents_wanted=settings.documents,
        cut=settings.cut,
        column=settings.column,
    )
    edges = bucket_edges(settings.length, settings.buckets)
    jobs = side_by_side(texts, settings.length, lm.bos is not None, settings.most_windows)

    def reduce(losses: Any, window: Window) -> list[float]:
        start = settings.length - window.scored  # the position of the first token scored
        return [float(losses[max(a - start, 0) : b - start].sum()) for a, b in pairwise(edges)]

    found = read_windows(lm, texts, jobs, reduce, cells, f"{settings.group} positions", 1)
    read = sorted({i for i, _ in jobs})
    per_window = [b - max(a, 1) for a, b in pairwise(edges)]  # position 0 is never scored
    counts = [sum(1 for j, _ in jobs if j == i) for i in read]
    rows, by_bucket = [], []
    for bucket, (a, b) in enumerate(pairwise(edges)):
        sums = [total([v[bucket] for (j, _), v in zip(jobs, found) if j == i]) for i in read]
        ns = [count * per_window[bucket] for count in counts]
        interval = clipped(document_interval(sums, ns, settings.seed), 0.0)
        row = {"data": settings.group, "from": a, "to": b, "loss": total(sums) / sum(ns), "n": sum(ns)}
        rows.append({**row, "low": interval[0], "high": interval[1], "documents": len(read)})
        by_bucket.append({"loss": sums, "n": ns})
    return {
        "protocol": {
            "name": "side-by-side",
            "length": settings.length,
            "bos": "none" if lm.bos is None else "in front of every window",
            "windows": len(jobs),
            "documents": settings.documents,
            "cut": settings.cut,
            "most_windows": settings.most_windows,
            "interval": "95 %, documents drawn anew (bootstrap, 2,000)",
        },
        "data": data(settings),
        "rows": rows,
        "summary": {"documents": [texts[i].name for i in read], "by_bucket": by_bucket},
    }


def bucket_edges(length: int, buckets: int) -> list[int]:
    """``buckets`` + 1 increasing positions from 0 to ``length``, evenly spaced (fewer for a tiny length)."""
    return sorted({round(i * length / buckets) for i in range(buckets + 1)} - {1} | {0, length})


def side_by_side(texts: Sequence[Text], length: int, bos: bool, most: int | None) -> list[tuple[int, Window]]:
    """(text, window) of full windows that do not overlap; with a limit, first the first of each document."""
    room = length - bos
    every = [
        (number, i, Window(start, start + room, length - 1))
        for i, text in enumerate(texts)
        for number, start in enumerate(range(0, len(text.ids) - room + 1, room))
    ]
    kept = sorted(every, key=lambda job: job[:2])[:most]
    return [(i, window) for _, i, window in sorted(kept, key=lambda job: (job[1], job[0]))]
