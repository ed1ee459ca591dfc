"""Windows -> micro-batches on their way into the Trainer, and where in the data each step ended."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..data.mixture import Mixture
from ..data.repeats import with_repeats
from ..data.windows import Window
from .context import split
from .loss import IGNORED

REPEATS = 1
"""Tells the chances of repeated passages from those of skipped positions."""

REMEMBERED = 256
"""Steps of which the data's state is kept: more than a reader can be ahead of the training."""


@dataclass(frozen=True)
class Layout:
    """How a window becomes a row of a batch.

    All chances are drawn by the number of the window, or of the optimizer step, from the beginning: how many
    windows are in memory at once, and on how many processes, changes none of them.

    packing: "joined": documents follow each other and see each other; "apart": positions begin anew at
    each document, and attention stays inside it.
    short_share: share of the optimizer steps whose windows are cut into some of ``original`` tokens, L. A
    step is short as a whole: the rows of a micro-batch have one length, and its size must not matter.
    short_share_end: where that share has come, evenly, by the last of ``steps``; None: it stays.
    repeats: passages for every 256 tokens that come back later in the window: see data/repeats.py.
    repeats_end: where that density has come, evenly, by the last of ``steps``; None: it stays.
    batch: windows in an optimizer step, on all ranks together.
    skip_to: L' of skip-position training, 0 without: the row's position ids jump ahead so that its
    ``segments`` pieces span up to L' (PoSE, Zhu et al. 2023, arXiv 2309.10400).
    """

    packing: Literal["joined", "apart"] = "joined"
    short_share: float = 0.0
    original: int = 0
    skip_to: int = 0
    segments: int = 2
    seed: int = 0
    short_share_end: float | None = None
    steps: int = 0
    batch: int = 1
    repeats: float = 0.0
    repeats_end: float | None = None


class Feeder:
    """What the Trainer takes for its data loader: an endless iterable of micro-batches of tensors.

    micro: rows in a micro-batch.   accumulate: micro-batches in an optimizer step, on each rank.
    Every rank walks the whole stream and keeps its own micro-batches, so that the data of a step does not
    depend on the number of ranks.
    part, parts: which share of each window is this rank's, where several hold one together: see context.py.
    """

    def __init__(
        self,
        mixture: Mixture,
        layout: Layout,
        *,
        micro: int,
        accumulate: int,
        rank: int = 0,
        ranks: int = 1,
        part: int = 0,
        parts: int = 1,
        ahead: int = 0,
    ) -> None:
        self._mixture, self._layout = mixture, layout
        self._micro, self._accumulate, self._rank, self._ranks = micro, accumulate, rank, ranks
        self._part, self._parts, self._ahead = part, parts, ahead
        self._step = self._windows = 0
        self._states: deque[tuple[int, dict[str, Any]]] = deque(maxlen=REMEMBERED)
        self._lock = threading.Lock()  # the reader-ahead writes, the Trainer's thread reads
        self._remember()

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return read_ahead(self._batches(), self._ahead) if self._ahead else self._batches()

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        while True:
            for turn in range(self._accumulate):
                batch = None
                for rank in range(self._ranks):
                    windows = [next(self._mixture) for _ in range(self._micro)]
                    if rank == self._rank:
                        batch = make_batch(windows, self._layout, self._windows)
                        batch = split(batch, self._part, self._parts) if self._parts > 1 else batch
                    self._windows += self._micro
                if turn == self._accumulate - 1:
                    self._step += 1
                    self._remember()
                assert batch is not None
                yield batch

    @property
    def plainly_causal(self) -> bool:
        """Do all batches come without positions and masks of their own?"""
        return self._layout.packing == "joined" and not self._layout.skip_to

    def state(self, step: int) -> dict[str, Any]:
        """Where the data stood when optimizer step ``step`` had been fed, as JSON."""
        with self._lock:
            return next(state for at, state in self._states if at == step)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self._mixture.restore(state["mixture"])
        self._step = int(state["step"])
        self._windows = self._step * self._accumulate * self._ranks * self._micro
        self._states.clear()
        self._remember()

    def passes(self, step: int) -> int:
        """Passes over the data begun by the end of step ``step``."""
        return int(self.state(step)["passes"])

    def _remember(self) -> None:
        state = {
            "mixture": self._mixture.state(),
            "step": self._step,
            "passes": self._mixture.passes,
        }
        with self._lock:
            self._states.append((self._step, state))


def make_batch(windows: list[Window], layout: Layout, first: int) -> dict[str, Tensor]:
    """One micro-batch: input_ids and labels (B, T) int64, and position_ids, attention_mask where needed.

    labels[:, t] is the token after input_ids[:, t]; the last of a row has none (`IGNORED`).
    first: the first window's number from the beginning of the training; all are of one optimizer step.
    """
    ids = torch.from_numpy(
        np.stack([_repeated(window.ids, layout, number) for number, window in enumerate(windows, first)])
    )
    short = is_short(first // layout.batch, layout.short_share, layout.short_share_end, layout.steps)
    if short and 0 < layout.original < ids.shape[1] and not layout.skip_to:
        return _short_rows(ids, layout.original)
    labels = torch.full_like(ids, IGNORED)
    labels[:, :-1] = ids[:, 1:]
    batch = {"input_ids": ids, "labels": labels}
    if layout.skip_to and not short:
        chances = [np.random.default_rng([layout.seed, first + row]) for row in range(len(ids))]
        jumping = [skipped_positions(ids.shape[1], layout.skip_to, layout.segments, rng) for rng in chances]
        batch["position_ids"] = torch.from_numpy(np.stack(jumping))
        # Without a mask, transformers takes a jump of the positions for the start of another document.
        batch["attention_mask"] = torch.ones_like(ids)
    elif layout.packing == "apart":
        batch["position_ids"] = torch.from_numpy(
            np.stack([restarted_positions(ids.shape[1], window.starts) for window in windows])
        )
        for row, window in enumerate(windows):
            ends = [start - 1 for start in window.starts if start > 0]
            labels[row, ends] = IGNORED
    return batch


def repeats_at(number: int, layout: Layout) -> float:
    """The density of repeats in window ``number`` from the beginning.

    >>> rising = Layout(repeats=0.0, repeats_end=2.0, steps=2, batch=2)
    >>> [repeats_at(n, rising) for n in range(4)]
    [0.25, 0.75, 1.25, 1.75]
    """
    start, end = layout.repeats, layout.repeats_end
    if end is None or layout.steps < 1:
        return start
    return start + (end - start) * min(1.0, (number + 0.5) / (layout.steps * layout.batch))


def _repeated(ids: np.ndarray, layout: Layout, number: int) -> np.ndarray:
    """Window ``number`` from the beginning, with the passages that are to come back."""
    density = repeats_at(number, layout)
    if not density:
        return ids
    return with_repeats(ids, np.random.default_rng([layout.seed, number, REPEATS]), density)


def is_short(number: int, share: float, end: float | None = None, total: int = 0) -> bool:
    """Does optimizer step ``number``, from 0, belong to the share?

    As many of the first n do as n·share, rounded down.

    With ``end`` the share goes evenly from ``share`` to it over ``total`` steps, and as many of the
    first n do as the shares of those add up to.

    >>> [is_short(n, 0.25) for n in range(8)]
    [False, False, False, True, False, False, False, True]
    >>> [n for n in range(8) if is_short(n, 1.0, 0.0, 8)]
    [1, 2, 3, 7]
    """

    def so_far(count: int) -> int:
        fall = 0.0 if end is None or total < 1 else (share - end) * count * count / (2 * total)
        return int(count * share - fall + 1e-9)

    return so_far(number + 1) > so_far(number)


def restarted_positions(length: int, starts: tuple[int, ...]) -> np.ndarray:
    """(length,) int64 positions that begin anew at each of ``starts`` (and at the row's own begin)."""
    positions = np.arange(length, dtype=np.int64)
    origin = np.zeros(length, dtype=np.int64)
    for start in starts:
        origin[start:] = start
    return positions - origin


def skipped_positions(length: int, window: int, segments: int, rng: np.random.Generator) -> np.ndarray:
    """(length,) int64 positions rising from 0 in ``segments`` runs of +1 with jumps, the last < window.

    The cuts between the runs are uniform; the total of the jumps is uniform in [0, window - length] and
    falls on each jump by uniform cuts again, so that every distance below the window is met.
    """
    assert length <= window and 1 <= segments <= length, (length, window, segments)
    positions = np.arange(length, dtype=np.int64)
    cuts = np.sort(rng.choice(length - 1, segments - 1, replace=False)) + 1
    total = int(rng.integers(0, window - length + 1))
    jumps = np.sort(rng.integers(0, total + 1, segments - 1))
    if segments > 1:
        jumps[-1] = total
    for cut, jump in zip(cuts, np.diff(jumps, prepend=0)):
        positions[cut:] += jump
    return positions


def _short_rows(ids: Tensor, original: int) -> dict[str, Tensor]:
    """(B, T) cut into rows of at most ``original`` tokens, equally long; the filling is not scored."""
    pieces = -(-ids.shape[1] // original)
    length = -(-ids.shape[1] // pieces)
    padded = torch.zeros((len(ids), pieces * length), dtype=torch.int64)
    padded[:, : ids.shape[1]] = ids
    scored = torch.zeros_like(padded, dtype=torch.bool)
    scored[:, : ids.shape[1]] = True
    rows, real = padded.view(-1, length), scored.view(-1, length)
    labels = torch.full_like(rows, IGNORED)
    labels[:, :-1] = torch.where(real[:, 1:], rows[:, 1:], IGNORED)
    return {"input_ids": rows, "labels": labels}


def read_ahead(batches: Iterator[dict[str, Tensor]], depth: int) -> Iterator[dict[str, Tensor]]:
    """The same batches, made by a thread up to ``depth`` ahead: tokenising beside the accelerator's work."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(item: Any) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stop.is_set():
                    return
        except BaseException as error:  # handed to the consumer, which raises it
            put(error)

    thread = threading.Thread(target=work, daemon=True, name="read-ahead")
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=10)
