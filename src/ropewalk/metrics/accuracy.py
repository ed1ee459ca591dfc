"""Right or wrong, question by question: accuracy, its error, and what one model lost against another.

``items`` are the answers of one model to a list of questions: a text of "1" (right) and "0" (wrong).
Two models are compared question by question: on the same questions most answers agree, so the paired
interval is far narrower than the two models' own intervals suggest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

Verdict = Literal["kept", "lost", "open"]


def accuracy(items: str) -> float:
    """The share of right answers. Raises ValueError when there are none at all.

    >>> accuracy("0111")
    0.75
    """
    _require_items(items)
    return items.count("1") / len(items)


def standard_error(items: str) -> float | None:
    """Standard error of the accuracy, sqrt(p (1 - p) / (n - 1)) as lm-eval prints it; None when n = 1.

    >>> standard_error("0101")
    0.28867513459481287
    """
    p, n = accuracy(items), len(items)
    return math.sqrt(p * (1 - p) / (n - 1)) if n > 1 else None


def mcnemar(before: str, after: str) -> float:
    """Exact two-sided McNemar test: the chance of so uneven a change if neither model were better.

    Of the questions on which the two differ, b were right only before and c only after; under the
    hypothesis each falls either way like a coin: p = 2 P(X <= min(b, c)), X ~ Binomial(b + c, 1/2).

    >>> mcnemar("1111100", "0000011")
    0.453125
    """
    b, c = changes(before, after)
    if b == c:
        return 1.0
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1))
    return min(1.0, 2 * tail / 2 ** (b + c))


def changes(before: str, after: str) -> tuple[int, int]:
    """(right only before, right only after). Raises ValueError for items of different questions.

    >>> changes("1100", "1010")
    (1, 1)
    """
    _require_items(before)
    _require_items(after)
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} answers cannot be of the same questions")
    return (
        sum(x == "1" and y == "0" for x, y in zip(before, after)),
        sum(x == "0" and y == "1" for x, y in zip(before, after)),
    )


def paired_difference(before: str, after: str, level: float = 0.95) -> tuple[float, float, float]:
    """(difference of the accuracies after - before, its lower, its upper bound), in shares of 1.

    The interval is Bonett and Price's adjusted Wald interval for paired proportions (2012, Statistics
    in Medicine 31): one is added to b and to c, two to n; it keeps its level at small n, where the
    plain one does not. The difference itself is the plain (c - b) / n.
    """
    b, c = changes(before, after)
    n = len(before)
    lost, won = (b + 1) / (n + 2), (c + 1) / (n + 2)
    middle = won - lost
    spread = _z(level) * math.sqrt(max(0.0, lost + won - middle**2) / (n + 2))
    difference = (c - b) / n
    return (
        difference,
        max(-1.0, min(difference, middle - spread)),
        min(1.0, max(difference, middle + spread)),
    )


def verdict(before: str, after: str, allowed: float = 0.02, level: float = 0.95) -> Verdict:
    """May it be said that at most ``allowed`` of accuracy (share of 1, absolute) was lost?

    "kept": yes, even the lower bound of the difference loses no more; "lost": no, even the upper bound
    loses more; "open": these questions cannot tell.
    """
    _, low, high = paired_difference(before, after, level)
    if low >= -allowed:
        return "kept"
    return "lost" if high < -allowed else "open"


def matches(prediction: str, answers: Sequence[str]) -> int:
    """How many of the answers occur in the prediction, letter case aside: RULER's "string match all".

    Control characters count as line ends, as in RULER's clean-up. A task's score is the mean of
    ``matches / len(answers)`` over its samples.

    >>> matches("They are: 12 and\\x0734", ["12", "34", "56"])
    2
    """
    text = re.sub(r"[\x00-\x1f]", "\n", prediction).lower()
    return sum(answer.lower() in text for answer in answers)


def _z(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level {level} is not between 0 and 1")
    return NormalDist().inv_cdf((1 + level) / 2)


def _require_items(items: str) -> None:
    if not items or set(items) - {"0", "1"}:
        raise ValueError(f"answers are a text of 0 and 1, not {items[:20]!r}")
