"""How a training is spread over several processes: copies, parts of the weights, or parts of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UserError
from .memory import SHARE, STATE_BYTES, activation_bytes

RESERVE = 2 << 30
"""Bytes left to the driver and to kernels' workspaces."""


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
    config: dict[str, Any],
    *,
    ranks: int,
    context: int | None,
    parameters: int,
    trained: int,
    length: int,
    memory: int | None,
) -> Spread:
    """What ``ranks`` processes do with a model and a window; the least that fits when ``way`` is "auto".

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
    state = STATE_BYTES * trained + 2 * (parameters - trained)
    room = None if memory is None else SHARE * memory - RESERVE
    if way == "auto" and context is None:
        window = activation_bytes(config, True) * length
        if room is None or state + window <= room:
            return Spread(False, 1, "each process has the whole model")
        if state / ranks + window <= room:
            return Spread(True, 1, "the model is spread over all (FSDP): it does not fit one")
        fits = (n for n in range(2, ranks + 1) if ranks % n == 0 and state / ranks + window / n <= room)
        context = next(fits, ranks)
    context = ranks if context is None else context
    return Spread(True, context, f"FSDP, and {context} processes share each window")


def processes_for(batch: int, available: int) -> int:
    """As many processes as have equal shares of ``batch`` rows, at most ``available``.

    >>> processes_for(12, 8)
    6
    """
    return next(n for n in range(max(1, min(batch, available)), 0, -1) if batch % n == 0)
