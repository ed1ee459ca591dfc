"""How many sequences fit at once: a sum over what training keeps, before anything is loaded."""

from __future__ import annotations

from typing import Any

CPU_TOKENS = 8_192
"""Tokens in a micro-batch on a CPU: enough to keep its cores busy, little enough for its caches."""

SHARE = 0.8
"""Of the free memory that the sum may fill; the rest is for kernels' workspaces and fragmentation."""

STATE_BYTES = 16
"""For each trained parameter: weight, gradient and AdamW's two moments, float32."""


def activation_bytes(config: dict[str, Any], recompute: bool) -> int:
    """Bytes of activations that one token leaves until the backward pass, in 16-bit arithmetic.

    About 16 vectors of the hidden size and 5 of the feed-forward's in each layer (measured on
    SmolLM2-135M at 32,768 tokens: 33 GB); with recomputing, one of the hidden size, and one layer whole.
    """
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    inner = config.get("intermediate_size") or 4 * hidden
    layer = 2 * (16 * hidden + 5 * inner)
    return layers * 2 * hidden + layer if recompute else layers * layer


def choose(
    config: dict[str, Any],
    *,
    parameters: int,
    trained: int,
    length: int,
    rows: int,
    memory: int | None,
    recompute: bool | None,
) -> tuple[int, bool]:
    """(rows in memory at once, recompute activations?) for ``rows`` rows of ``length`` tokens on one rank.

    memory: free bytes of the device, None on a CPU.   recompute: what the user said, None for nothing.
    The rows divide ``rows``; they are 1 when nothing fits: the attempt then says what is missing.
    """
    if memory is None:
        return divisor(rows, max(1, CPU_TOKENS // length)), bool(recompute)
    state = STATE_BYTES * trained + 2 * (parameters - trained)
    free = SHARE * memory - state - (2 << 30)
    fit = 0
    for again in (False, True) if recompute is None else (recompute,):
        fit = int(free // (activation_bytes(config, again) * length)) if free > 0 else 0
        if fit >= 1:
            return divisor(rows, fit), again
    return 1, recompute is not False


def divisor(rows: int, limit: int) -> int:
    """The largest divisor of ``rows`` that is at most ``limit``.

    >>> divisor(12, 5)
    4
    """
    return next(n for n in range(min(rows, limit), 0, -1) if rows % n == 0)
