"""Perplexity by context size (the paper's Tables 1 and 2): sliding windows, stride 256, each token once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice, pairwise
from typing import Any

import numpy as np

from ..data.text import describe
from ..errors import UserError
from ..metrics.intervals import clipped, document_interval
from ..metrics.perplexity import Stratum, choose_windows, perplexity, sampled_interval, slopes
from ..metrics.windows import PROTOCOLS, Window, windows
from ..model.lm import LanguageModel
from ..results.cells import Cells
from . import control
from .ranges import at_least
from .texts import Text, read_texts, read_windows, total

NAME = "perplexity"

CONTROL = "sampled losses are corrected by regression on those in side-by-side windows"


@dataclass(frozen=True)
class PerplexitySettings:
    """One group of documents at one or more context sizes.

    contexts: tokens the model sees, each a row.  stride: S, tokens.  protocol: see metrics/windows.py.
    documents: read only the first so many that are long enough.  cut: only the first tokens of each.
    sample: share of each document's windows to read, 0 … 1, corrected by a pass over side-by-side windows
    where that pays (`control.pays`).  most_windows: read at most about so many windows a context, sampled
    likewise but uncorrected. Both None: read all.
    """

    group: str
    sources: tuple[str, ...]
    contexts: tuple[int, ...]
    stride: int = 256
    protocol: str = "sliding"
    sample: float | None = None
    most_windows: int | None = None
    documents: int | None = None
    cut: int | None = None
    column: str | None = None
    seed: int = 0


def data(settings: PerplexitySettings) -> list[dict[str, Any]]:
    """The "data" blocks: what is read, with hashes."""
    return [{"group": settings.group, **block} for block in describe(settings.sources)]


def check(settings: PerplexitySettings, block: dict[str, Any]) -> None:
    """Raises UserError for settings that cannot be, before any evaluation runs."""
    del block
    stride, contexts = settings.stride, settings.contexts
    at_least(1, NAME, stride=stride, most_windows=settings.most_windows, documents=settings.documents)
    if not contexts:
        raise UserError("perplexity.contexts is empty; give at least one context size, tokens")
    if min(contexts) < stride + 2:  # a BOS takes one token of the window
        raise UserError(
            f"context {min(contexts)} must be longer than the stride of {stride} tokens by 2 or more; "
            "raise --contexts or lower --stride"
        )
    if settings.cut is not None and settings.cut < max(contexts):
        raise UserError(
            f"cut is {settings.cut} tokens, shorter than the context of {max(contexts)}; raise it"
        )
    if settings.sample is not None and not 0 < settings.sample <= 1:
        raise UserError(f"sample is {settings.sample}; give a share above 0 and at most 1, such as 0.02")
    if settings.protocol not in PROTOCOLS:
        raise UserError(f"protocol is {settings.protocol!r}; choose one of {', '.join(PROTOCOLS)}")


def run(lm: LanguageModel, settings: PerplexitySettings, cells: Cells) -> dict[str, Any]:
    """One row a context size; the summary keeps each document's loss, for paired comparisons."""
    texts = read_texts(
        lm,
        settings.sources,
        at_least=max(settings.contexts),
        documents_wanted=settings.documents,
        cut=settings.cut,
        column=settings.column,
    )
    rows, by_context = [], {}
    for context in settings.contexts:
        row, documents = context_row(lm, texts, context, settings, cells)
        rows.append(row)
        by_context[str(context)] = documents
    return {
        "protocol": _protocol(lm, settings),
        "data": data(settings),
        "rows": rows,
        "summary": {
            "documents": [text.name for text in texts],
            "tokens": [len(text.ids) for text in texts],
            "by_document": by_context,
        },
    }


def context_row(
    lm: LanguageModel, texts: Sequence[Text], context: int, settings: PerplexitySettings, cells: Cells
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """(the row of one context size, {"loss": [nats of each document], "n": [tokens of each]})."""
    every = [
        windows(settings.protocol, len(text.ids), context, settings.stride, lm.bos is not None)
        for text in texts
    ]
    chosen, sampled = _choose(every, settings)
    jobs = Jobs(every, chosen)
    found = read_windows(lm, texts, jobs, _sum, cells, f"{settings.group} {context}", settings.stride)
    losses = [found[a:b] for a, b in pairwise(jobs.borders)]
    certain, fitted = [a[0] for a in losses], 0
    if settings.protocol == "window-mean":
        sums = [total(x / ws[j].scored for x, j in zip(a, js)) for a, js, ws in zip(losses, chosen, every)]
        counts = [len(js) for js in chosen]
    else:
        strata = [stratum(a, b, c) for a, b, c in zip(losses, chosen, every)]
        share, stride = settings.sample, settings.stride
        if sampled and share is not None and control.pays(share, context, stride):
            known = control.known(lm, texts, every, context, stride, settings.group, cells)
            strata, more = corrected(strata, known, chosen)
            certain, fitted = [a + b for a, b in zip(certain, more)], known[0].shape[1]
        sums = [a + s.estimate for a, s in zip(certain, strata)]
        counts = [sum(w.scored for w in ws) for ws in every]
    loss = total(sums) / sum(counts)
    row: dict[str, Any] = {
        "data": settings.group,
        "context": context,
        "stride": settings.stride,
        "perplexity": perplexity(loss),
        "loss": loss,
        "n": sum(w.scored for _, w in jobs),
        "windows": len(jobs),
        "documents": len(texts),
        "sampled": sampled,
        **_interval("", document_interval(sums, counts, settings.seed)),
    }
    if sampled:
        row["of_windows"] = sum(map(len, every))
        row |= _interval("sample_", sampled_interval(total(certain), strata, sum(counts), fitted=fitted))
        row["control"] = context if fitted else None
    return row, {"loss": sums, "n": [float(n) for n in counts]}


def corrected(
    strata: Sequence[Stratum], known: Sequence[np.ndarray], chosen: Sequence[Sequence[int]]
) -> tuple[list[Stratum], list[float]]:
    """(the strata with what is known taken from their losses, what that is over all windows of each)."""
    read = [x[[j - 1 for j in kept[1:]]] for x, kept in zip(known, chosen)]
    b = slopes(strata, read)
    left = [replace(s, loss=(np.asarray(s.loss) - x @ b).tolist()) for s, x in zip(strata, read)]
    return left, [float(x.sum(axis=0) @ b) for x in known]


def _sum(losses: Any, window: Window) -> float:
    return float(losses.sum())


class Jobs(Sequence[tuple[int, Window]]):
    """(index of a document, window) of all windows that are read, document by document, made when asked for.

    borders: where each document's jobs begin, and the end of all.
    """

    def __init__(self, every: Sequence[Sequence[Window]], chosen: Sequence[Sequence[int]]) -> None:
        self._every, self._chosen = every, chosen
        self.borders = [0, *accumulate(len(kept) for kept in chosen)]

    def __len__(self) -> int:
        return self.borders[-1]

    def __getitem__(self, at: Any) -> Any:
        if not 0 <= at < len(self):
            raise IndexError(at)
        i = bisect_right(self.borders, at) - 1
        return i, self._every[i][self._chosen[i][at - self.borders[i]]]

    def __iter__(self) -> Iterator[tuple[int, Window]]:
        return ((i, self._every[i][j]) for i, kept in enumerate(self._chosen) for j in kept)


def _choose(
    every: Sequence[Sequence[Window]], settings: PerplexitySettings
) -> tuple[Sequence[Sequence[int]], bool]:
    """For each document the windows to read (its first always), and whether any is left out."""
    rest = [len(ws) - 1 for ws in every]
    share = 1.0
    if settings.sample is not None:
        share = settings.sample
    elif settings.most_windows is not None:
        spare = settings.most_windows - len(every)
        share = min(1.0, max(1e-9, spare / max(1, sum(rest))))
    if share >= 1 or settings.protocol != "sliding":
        return [range(len(ws)) for ws in every], False
    drawn = choose_windows(rest, share, settings.seed)
    sampled = any(len(d) < r for d, r in zip(drawn, rest))
    return [[0, *(j + 1 for j in d)] for d in drawn], sampled


def stratum(losses: Sequence[float], kept: Sequence[int], every: Sequence[Window]) -> Stratum:
    """A document's windows after its first."""
    return Stratum(
        loss=losses[1:],
        tokens=[every[j].scored for j in kept[1:]],
        windows=len(every) - 1,
        all_tokens=sum(w.scored for w in islice(every, 1, None)),
    )


def _interval(prefix: str, interval: tuple[float, float] | None) -> dict[str, float | None]:
    """The bounds of a mean loss as perplexities, at least 1."""
    bounds = (None if loss is None else perplexity(loss) for loss in clipped(interval, 0.0))
    return dict(zip((f"{prefix}low", f"{prefix}high"), bounds, strict=True))


def _protocol(lm: LanguageModel, settings: PerplexitySettings) -> dict[str, Any]:
    return {
        "name": settings.protocol,
        "stride": settings.stride,
        "bos": "none" if lm.bos is None else "in front of every window",
        "documents": settings.documents,
        "cut": settings.cut,
        "sample": settings.sample,
        "most_windows": settings.most_windows,
        "control": CONTROL if settings.sample is not None else None,
        "interval": "95 %, documents drawn anew (bootstrap, 2,000)",
    }
