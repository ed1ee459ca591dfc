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
    context: int | None,
    memory: int | None,
) -> Spread:
    """What ``ranks`` processes do with a model and a window; the least that fits when ``way`` is "auto".

    load: one window with its activations computed twice, as one process alone would have it.
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
        if memory is None or fits(shape, replace(load, copies=ranks), memory):
            return Spread(False, 1, "each process has the whole model")
        for context in (n for n in range(1, ranks + 1) if ranks % n == 0):
            part = replace(load, shards=ranks, length=-(-load.length // context))
            if fits(shape, part, memory):
                break
        if context == 1:
            return Spread(True, 1, "the model is spread over all (FSDP): it does not fit one")
    context = ranks if context is None else context
    return Spread(True, context, f"FSDP, and {context} processes share each window")


def processes_for(batch: int, available: int) -> int:
    """As many processes as have equal shares of ``batch`` rows, at most ``available``.

    >>> processes_for(12, 8)
    6
    """
    return next(n for n in range(max(1, min(batch, available)), 0, -1) if batch % n == 0)
