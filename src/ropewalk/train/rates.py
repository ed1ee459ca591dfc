"""How fast and how much at a time: the peak learning rate, the batch, and the schedule, with reasons."""

from __future__ import annotations

import math

RATES = ((3.4e6, 5e-4), (135e6, 6e-4), (7e9, 2e-5), (13e9, 2e-5), (33e9, 1e-5), (65e9, 1e-5))
"""(parameters, peak rate): the first two measured by us, the others the paper's (section 3.1)."""

PAPER_SEQUENCES = 64
SMALL_MODEL = 1_000_000_000
SMALL_BATCH = 131_072
TINY_MODEL = 20_000_000
TINY_BATCH = 8_192
WARMUP_FROM = 0.1
DECAY_LAST = 0.2
"""The share of the steps in which the schedule "wsd" (warm-up, stable, decay) falls to zero."""


def peak_rate(parameters: int) -> tuple[float, str]:
    """The peak learning rate for a model of that many parameters, and why.

    Linear in log size and log rate between the `RATES`, constant outside them; two digits.

    >>> peak_rate(7_000_000_000)[0]
    2e-05
    >>> peak_rate(134_515_008)[0]
    0.0006
    """
    sizes = [math.log(size) for size, _ in RATES]
    rates = [math.log(rate) for _, rate in RATES]
    at = math.log(max(parameters, 1))
    if at <= sizes[0]:
        found = rates[0]
    elif at >= sizes[-1]:
        found = rates[-1]
    else:
        i = next(i for i in range(1, len(sizes)) if at <= sizes[i])
        share = (at - sizes[i - 1]) / (sizes[i] - sizes[i - 1])
        found = rates[i - 1] + share * (rates[i] - rates[i - 1])
    reason = (
        "the paper's for this size"
        if parameters >= RATES[2][0]
        else "by size: 5e-4 and 6e-4 measured at 3.4M and 135M, the paper's 2e-5 at 7B"
    )
    return float(f"{math.exp(found):.1e}"), reason


def batch_size(parameters: int, length: int) -> tuple[int, str]:
    """Sequences of ``length`` tokens in one optimizer step, and why."""
    if parameters >= SMALL_MODEL:
        return PAPER_SEQUENCES, f"the paper's {PAPER_SEQUENCES} sequences"
    tokens = TINY_BATCH if parameters < TINY_MODEL else SMALL_BATCH
    sequences = max(1, tokens // length)
    return sequences, f"{sequences * length:,} tokens a step, for a model of this size"


def schedule_factor(step: int, *, steps: int, warmup: int, schedule: str) -> float:
    """What the peak rate is multiplied by in optimizer step ``step`` (from 0).

    Linear from a tenth of the peak at step 0 to the peak at step ``warmup`` (the paper's warm-up), then
    constant, or falling to zero at ``steps`` in a line or half a cosine, or (wsd: warm-up, stable, decay,
    Hu et al. 2024, arXiv 2404.06395) constant and then falling in a line over the last fifth.

    >>> [round(schedule_factor(s, steps=100, warmup=20, schedule="constant"), 3) for s in (0, 10, 20, 99)]
    [0.1, 0.55, 1.0, 1.0]
    """
    if step < warmup:
        return WARMUP_FROM + (1 - WARMUP_FROM) * step / warmup
    if schedule == "constant":
        return 1.0
    start = max(warmup, int((1 - DECAY_LAST) * steps)) if schedule == "wsd" else warmup
    share = min(1.0, max(0, step - start) / max(1, steps - start))
    return 0.5 * (1 + math.cos(math.pi * share)) if schedule == "cosine" else 1 - share
