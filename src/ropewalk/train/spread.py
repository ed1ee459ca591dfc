"""How a training is spread over several processes: copies, parts of the weights, or parts of a window."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import UserError
from ..model.shape import Shape
from .memory import Load, fits


@dataclass(frozen=True)
class Spread:
    """sharded: weights, gradients and optimizer state are in parts.   context: ranks that share a window.

    why: said to the user.
    """

    sharded: bool
    context: int
    why: str


def choose_spread(
    way: Literal["auto", "data", "fsdp", "context"],
    shape: Shape,
    load: Load,
    *,
    ranks: int,
    batch: int,
    context: int | None,
    memory: int | None,
) -> Spread:
    """What ``ranks`` processes do with a model and a window; the least that fits when ``way`` is "auto".

    `finetune` does what this says and `plan` tells it, so that both say the same.
    load: one window with its activations computed twice, as one process alone would have it.
    batch: windows in an optimizer step; "auto" passes over what does not share them equally.
    context: how many share a window, None for what fits ("auto") or all ("context").
    memory: free bytes of one device, None on a CPU, where everything is taken to fit.
    Raises UserError: a number of ranks that does not divide, or a setting that excludes another.
    """
    if context is not None and way not in ("auto", "context"):
        raise UserError(f"share_window is {context}: with --parallel {way} each process has whole windows")
    if context is not None and (context < 1 or ranks % context):
        raise UserError(f"share_window {context} does not divide the number of processes, {ranks}")
    if ranks == 1:
        if way in ("fsdp", "context"):
            raise UserError(f"parallel {way} needs several processes: --gpus N, or torchrun")
        return Spread(False, 1, "one process")
    if way == "data":
        return Spread(False, 1, "each process has the whole model")
    if way == "fsdp":
        return Spread(True, 1, "the model is spread over all (FSDP)")
    if way == "auto" and context is None:
        return _least(shape, load, ranks, batch, memory)
    context = ranks if context is None else context
    return Spread(True, context, f"FSDP, and {context} processes share each window")


def _least(shape: Shape, load: Load, ranks: int, batch: int, memory: int | None) -> Spread:
    """The first that fits: copies, parts of the weights, parts of the windows; the last when none does."""
    whole = batch % ranks == 0
    because = "" if whole else f": batch {batch} does not divide by {ranks}"
    found = [
        Spread(False, 1, "each process has the whole model"),
        Spread(True, 1, "the model is spread over all (FSDP): it does not fit one"),
    ][: 2 * whole]
    found += [
        Spread(True, n, f"FSDP, and {n} processes share each window{because}")
        for n in range(2, ranks + 1)
        if ranks % n == 0 and batch % (ranks // n) == 0
    ]
    if memory is None:
        return found[0]
    return next((one for one in found if fits(shape, held(load, one, ranks), memory)), found[-1])


def held(load: Load, spread: Spread, ranks: int) -> Load:
    """What one of ``ranks`` processes holds of ``load``."""
    return replace(
        load,
        length=-(-load.length // spread.context),
        shards=ranks if spread.sharded else 1,
        copies=1 if spread.sharded else ranks,
    )


def processes_for(batch: int, available: int) -> int:
    """As many processes as have equal shares of ``batch`` rows, at most ``available``.

    >>> processes_for(12, 8)
    6
    """
    return next(n for n in range(max(1, min(batch, available)), 0, -1) if batch % n == 0)
