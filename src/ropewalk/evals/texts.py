"""The documents that an evaluation reads, as token ids; and the losses of windows of them, cell by cell."""

from __future__ import annotations

import itertools
import math
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..console import progress, say
from ..data.text import documents, whole_documents
from ..data.windows import pieces
from ..errors import UserError
from ..metrics.windows import Window
from ..model.lm import LanguageModel
from ..results.cells import Cells

CPU_TOKENS, GPU_TOKENS = 1 << 16, 1 << 19
"""Tokens in a cell: some seconds of work, which is what a kill can cost."""

IN_MEMORY = 1 << 26
"""Bytes of token ids kept in memory (16 M tokens); beyond it they lie in a nameless temporary file."""

AT_ONCE = 1 << 22
"""Characters tokenised at once; a longer text goes in parts (see `pieces`): tokens at their borders, one in
some hundred thousand, may be others than in the whole."""


TOGETHER = 1 << 23
"""Characters of short documents tokenised in one call, by all cores."""


class TokenStore:
    """Token ids of all documents, one behind the other, int32: memory stays bounded however long they are."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - for as long as the store lives
        self._size = 0

    def add(self, parts: Iterable[Sequence[int]]) -> Ids:
        """Keep a document's ids, which come in parts."""
        start = self._size
        self._file.seek(4 * start)
        for part in parts:
            self._file.write(np.asarray(part, dtype=np.int32).tobytes())
            self._size += len(part)
        return Ids(self, start, self._size - start)

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Ids ``start`` to ``stop - 1`` of all, (n,) int64."""
        self._file.seek(4 * start)
        return torch.from_numpy(np.frombuffer(self._file.read(4 * (stop - start)), np.int32).astype(np.int64))

    def drop(self, ids: Ids) -> None:
        """Forget the document that was added last."""
        self._size = ids.start


@dataclass(frozen=True)
class Ids:
    """A document's token ids: a length, and slices as tensors of int64."""

    store: TokenStore
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: slice) -> torch.Tensor:
        start, stop, step = at.indices(self.length)
        assert step == 1, at
        return self.store.read(self.start + start, self.start + max(start, stop))


@dataclass(frozen=True)
class Text:
    """One document: its name and its token ids, without BOS."""

    name: str
    ids: Ids


def read_texts(
    lm: LanguageModel,
    sources: Sequence[str],
    *,
    at_least: int,
    documents_wanted: int | None = None,
    cut: int | None = None,
    column: str | None = None,
) -> list[Text]:
    """The first documents of ``sources`` with at least ``at_least`` tokens (a BOS counted).

    documents_wanted: how many, None for all.  cut: keep only the first tokens of each, None for all.
    A document that is too short is left out, so that every context size scores the same tokens.
    Raises UserError when none is long enough.
    """
    found: list[Text] = []
    store = TokenStore()
    short, longest = 0, 0
    every = whole_documents(documents(sources, column))
    alone = cut is not None or documents_wanted is not None or not hasattr(lm, "encode_many")
    for name, encoded in ((n, _encode(lm, p, cut)) for n, p in every) if alone else _together(lm, every):
        if documents_wanted is not None and len(found) >= documents_wanted:
            break
        ids = store.add(encoded)
        if len(ids) + (lm.bos is not None) < at_least:
            short, longest = short + 1, max(longest, len(ids))
            store.drop(ids)
            continue
        found.append(Text(name, ids))
    if not found:
        raise UserError(
            f"no document of {' '.join(sources)} has {at_least:,} tokens (the longest of {short} has "
            f"{longest:,}); choose longer documents or a smaller context"
        )
    if short:
        say(f"  {short} documents shorter than {at_least:,} tokens left out, {len(found)} kept")
    return found


def _together(
    lm: Any, every: Iterable[tuple[str, Iterator[str]]]
) -> Iterator[tuple[str, Iterable[Sequence[int]]]]:
    """(name, ids in parts) of each document, in order; neighbours that are short are encoded in one call."""
    waiting: list[tuple[str, str]] = []
    size = 0

    def ready() -> Iterator[tuple[str, Iterable[Sequence[int]]]]:
        for (name, _), ids in zip(waiting, lm.encode_many([text for _, text in waiting])):
            yield name, [ids]
        waiting.clear()

    for name, parts in every:
        first, second = next(parts), next(parts, None)
        if second is None and len(first) <= AT_ONCE:
            waiting.append((name, first))
            size += len(first)
            if size < TOGETHER:
                continue
        if waiting:
            yield from ready()
            size = 0
        if second is not None or len(first) > AT_ONCE:
            more = itertools.chain([first], [] if second is None else [second], parts)
            yield name, _encode(lm, more, None)
    if waiting:
        yield from ready()


def _encode(lm: LanguageModel, parts: Iterable[str], cut: int | None) -> Iterator[list[int]]:
    """The ids of a document whose text comes in parts; only the first ``cut``, None for all."""
    have = 0
    for text in parts:
        for piece in pieces(text, AT_ONCE):
            if cut is None:
                yield lm.encode(piece)
                continue
            ids = _first(lm, piece, cut - have)
            have += len(ids)
            yield ids
            if have >= cut:
                return


def _first(lm: LanguageModel, text: str, count: int) -> list[int]:
    """The first ``count`` ids of a text."""
    if len(text) > 16 * count:  # the start alone will do: tokens are local
        ids = lm.encode(text[: 16 * count])
        if len(ids) >= count + 64:
            return ids[:count]
    return lm.encode(text)[:count]


def window_ids(lm: LanguageModel, text: Text, window: Window) -> torch.Tensor:
    """The tokens that the model is given for a window: its BOS, when it has one, and the document's."""
    ids = text.ids[window.start : window.stop]
    return ids if lm.bos is None else torch.cat([torch.tensor([lm.bos]), ids])


def read_windows(
    lm: LanguageModel,
    texts: Sequence[Text],
    jobs: Sequence[tuple[int, Window]],
    reduce: Callable[[torch.Tensor, Window], Any],
    cells: Cells,
    label: str,
    rows_together: int,
) -> list[Any]:
    """What ``reduce`` makes of the losses of each job's scored tokens, in the order of the jobs.

    jobs: (index of a text, window).  reduce: (losses (scored,) float64 nats, window) -> a JSON value.
    label: names the cells and the progress line, such as "books 8192".
    rows_together: windows that score at most so many tokens go through together (the stride).
    Windows of one shape are batched across documents; a cell holds as many as take some seconds.
    """
    prepare = getattr(lm, "prepare", None)
    if prepare is not None:
        prepare(sum(window.stop - window.start for _, window in jobs))
    shapes: dict[tuple[int, int], array[int]] = {}
    for number, (_, window) in enumerate(jobs):
        length = window.stop - window.start + (lm.bos is not None)
        rows = window.scored if window.scored > rows_together else min(rows_together, length - 1)
        shapes.setdefault((length, rows), array("q")).append(number)
    batches = []
    for (length, rows), members in shapes.items():
        size = max(1, (CPU_TOKENS if lm.device == "cpu" else GPU_TOKENS) // length)
        for at in range(0, len(members), size):
            batches.append((f"{label}/{length}/{rows}/{at}", rows, members[at : at + size]))
    found: list[Any] = [None] * len(jobs)
    done = sum(len(members) for cell, _, members in batches if cells.get(cell) is not None)
    with progress(f"  {label}", len(jobs), "windows", done) as shown:
        for cell, rows, members in batches:
            values = cells.get(cell)
            if values is None:
                stacked = torch.stack([window_ids(lm, texts[jobs[i][0]], jobs[i][1]) for i in members])
                losses = -lm.log_probs(stacked, rows).double()
                _require_finite(losses, texts[jobs[members[0]][0]], lm)
                values = [
                    reduce(losses[row, rows - jobs[i][1].scored :], jobs[i][1])
                    for row, i in enumerate(members)
                ]
                cells.put(cell, values)
                shown.advance(len(members))
            for i, value in zip(members, values):
                found[i] = value
    return found


def _require_finite(losses: torch.Tensor, text: Text, lm: LanguageModel) -> None:
    if not bool(torch.isfinite(losses).all()):
        raise UserError(
            f"{lm.name} gives a loss that is not finite at or after document {text.name} in {lm.dtype}; "
            "try --dtype float32, else its weights are broken"
        )


def total(values: Iterable[float]) -> float:
    """A sum that does not depend on the order of its terms."""
    return math.fsum(values)
