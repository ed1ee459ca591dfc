"""From passkeys found to one figure: how far back a model can look."""

from __future__ import annotations

import re
from collections.abc import Iterable

PAPER_RATE = 0.2
"""The paper's bar: at least 20 % of the keys at a distance (Chen et al. 2023, section 3.3)."""


def k_max(rates: Iterable[tuple[int, float]], at_least: float = PAPER_RATE) -> int:
    """The effective context window: the largest k such that every tested k' <= k reaches ``at_least``.

    rates: (distance k in tokens, share of keys found), in any order.  0 when the nearest already fails.
    A model that fails in the middle and finds again farther out is not credited for the far end.

    >>> k_max([(256, 1.0), (512, 0.2), (768, 0.1), (1024, 1.0)])
    512
    """
    best = 0
    for k, rate in sorted(rates):
        if rate < at_least:
            break
        best = k
    return best


DIGITS = 5
"""Of a passkey."""


def first_digits(answer: str, count: int = DIGITS) -> str:
    """The first ``count`` decimal digits in an answer, whatever stands between or around them.

    >>> first_digits(' 12345. Remember it')
    '12345'
    """
    return "".join(re.findall(r"[0-9]", answer)[:count])
