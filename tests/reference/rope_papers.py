"""Rotary position embedding and its scalings in float64, from the papers alone.

Plain Python, one number at a time; no tensor, nothing imported from ropewalk.
Each function returns the d/2 angular frequencies, or a table from positions.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence


def plain(d: int, base: float) -> list[float]:
    """RoFormer: θ_i = base^(−2(i−1)/d), i = 1 … d/2."""
    return [base ** (-2 * (i - 1) / d) for i in range(1, d // 2 + 1)]


def linear(d: int, base: float, k: float) -> list[float]:
    """Chen et al., Eq. 4: position m becomes m·L/L', so each angle m·θ becomes m·θ/k."""
    return [theta / k for theta in plain(d, base)]


def ntk(d: int, base: float, k: float) -> list[float]:
    """NTK-aware: frequency i is divided by k^(2(i−1)/(d−2)): the first by 1, the last by k."""
    return [theta / k ** (2 * i / (d - 2)) for i, theta in enumerate(plain(d, base))]


def dynamic(d: int, base: float, k: float, window: int, length: int) -> list[float]:
    """Dynamic NTK: NTK-aware with the stretch k·l/L − (k − 1) once the text is longer than the window."""
    return ntk(d, base, max(1.0, k * length / window - (k - 1)))


def yarn(d: int, base: float, k: float, window: int, fast: float, slow: float) -> tuple[list[float], float]:
    """YaRN: keep what turns more than `fast` times in the window, divide what turns fewer than `slow` times.

    The ramp between runs over the dimension index, rounded outwards, as in the authors' code.
    """

    def index_of(turns: float) -> float:
        # window·base^(−2j/d)/(2π) = turns, solved for j
        return d / 2 * math.log(window / (2 * math.pi * turns), base)

    first = max(math.floor(index_of(fast)), 0)
    last = min(math.ceil(index_of(slow)), d - 1)
    frequencies = []
    for j, theta in enumerate(plain(d, base)):
        if j <= first:
            share = 0.0
        elif j >= last:
            share = 1.0
        else:
            share = (j - first) / (last - first)
        frequencies.append(share * theta / k + (1 - share) * theta)
    return frequencies, 1 + math.log(k) / 10


def llama3(d: int, base: float, k: float, window: int, low: float, high: float) -> list[float]:
    """Llama 3.1: by turns in the window; above `high` kept, below `low` divided, linear in turns between."""
    frequencies = []
    for theta in plain(d, base):
        turns = window * theta / (2 * math.pi)
        share = min(max((turns - low) / (high - low), 0.0), 1.0)
        frequencies.append(share * theta + (1 - share) * theta / k)
    return frequencies


def longrope(d: int, base: float, divisors: Sequence[float]) -> list[float]:
    """LongRoPE: each frequency over its own rescale factor."""
    return [theta / divisor for theta, divisor in zip(plain(d, base), divisors)]


def score(query: Sequence[float], key: Sequence[float], m: float, n: float, theta: Sequence[float]) -> float:
    """Chen et al., Eq. 2: Re Σ (q_2j + i·q_2j+1)(k_2j − i·k_2j+1) e^{i(m−n)θ_j}, interleaved layout."""
    total = 0.0
    for j, speed in enumerate(theta):
        q = complex(query[2 * j], query[2 * j + 1])
        k = complex(key[2 * j], key[2 * j + 1])
        total += (q * k.conjugate() * cmath.exp(1j * (m - n) * speed)).real
    return total
