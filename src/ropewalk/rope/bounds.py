"""The paper's theory: an attention score as a function of distance, and how far it can stray.

Chen et al. 2023 (arXiv:2306.15595), Sec. 2.3 and App. A and B; docs/theory.md tells it in words and holds
the proofs. The paper's symbols: d rotary dimensions, c the base, θ_j = c^(−2j/d) for j = 0 … d/2 − 1,
h_j complex products of query and key, s a distance in tokens (any real number), λ the place in a gap.
All in float64; `theta` is a (d/2,) array of frequencies, scaled or not.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


def frequencies(d: int, c: float) -> Real:
    """θ_j = c^(−2j/d)      (Eq. 1): (d/2,)."""
    return np.asarray(c ** (-np.arange(0, d, 2) / d), dtype=np.float64)


def _waves(theta: ArrayLike, s: ArrayLike) -> Complex:
    """e^{isθ_j}: (..., d/2) for distances s of shape (...)."""
    waves: Complex = np.exp(1j * np.multiply.outer(np.asarray(s, dtype=np.float64), np.asarray(theta)))
    return waves


def attention_score(h: ArrayLike, theta: ArrayLike, s: ArrayLike) -> Real:
    """a(s) = Re Σ_j h_j·e^{isθ_j}      (Eq. 3)

    h: (d/2,) complex, h_j = (q_2j + i·q_2j+1)(k_2j − i·k_2j+1), before the division by √d.
    s: any shape, also fractional. Returns that shape.
    """
    return np.asarray((_waves(theta, s) @ np.asarray(h)).real)


# --- extrapolation -----------------------------------------------------------------------------------------


def partial_sums(theta: ArrayLike, s: ArrayLike) -> Complex:
    """A_k(s) = Σ_{j<k} e^{isθ_j} for k = 1 … d/2      (Su et al. 2021, Sec. 3.4.3): (..., d/2)."""
    return np.asarray(np.cumsum(_waves(theta, s), axis=-1))


def extrapolation_sum(theta: ArrayLike, s: ArrayLike, block: int = 4096) -> Real:
    """B(s) = Σ_{k=1}^{d/2} |A_k(s)|      (Eq. 8; App. B and Figure 5 show B(s)/d)

    block: distances computed at once; bounds the memory, changes nothing.
    """
    flat = np.asarray(s, dtype=np.float64).reshape(-1)
    parts = [
        np.abs(partial_sums(theta, flat[i : i + block])).sum(axis=-1) for i in range(0, len(flat), block)
    ]
    return np.concatenate([*parts, np.empty(0)]).reshape(np.shape(s))


def extrapolation_bound(h: ArrayLike, theta: ArrayLike, s: ArrayLike) -> Real:
    """|a(s)| ≤ max_j |h_{j+1} − h_j| · B(s), with h_{d/2} = 0      (Eq. 8, by Abel summation)

    The paper goes on to ≤ 2·max_j |h_j| · B(s); `magnitude_bound` is smaller than that wherever B(s) ≥ d/4.
    """
    steps = np.abs(np.diff(np.append(np.asarray(h), 0)))
    return np.asarray(steps.max() * extrapolation_sum(theta, s))


def magnitude_bound(h: ArrayLike) -> float:
    """|a(s)| ≤ Σ_j |h_j| ≤ (d/2)·max_j |h_j| for every s: the triangle inequality; see `worst_score`."""
    return float(np.abs(np.asarray(h)).sum())


def worst_score(theta: ArrayLike, s: float) -> Complex:
    """The h with |h_j| = 1 whose score at distance s is d/2, the largest there is: h_j = e^{−isθ_j}."""
    return np.asarray(_waves(theta, s).conj())


# --- interpolation -----------------------------------------------------------------------------------------


def linear_interpolation(h: ArrayLike, theta: ArrayLike, s1: float, s2: float, s: ArrayLike) -> Real:
    """a_linear(s) = (1 − λ)·a(s1) + λ·a(s2), λ = (s − s1)/(s2 − s1)      (Eq. 6)"""
    place = (np.asarray(s, dtype=np.float64) - s1) / (s2 - s1)
    ends = attention_score(h, theta, [s1, s2])
    return np.asarray((1 - place) * ends[0] + place * ends[1])


def interpolation_error(h: ArrayLike, theta: ArrayLike, s1: float, s2: float, s: ArrayLike) -> Real:
    """|a(s) − a_linear(s)|, the left side of Theorem 2.1, for s1 ≤ s ≤ s2      (Eq. 5)"""
    return np.abs(attention_score(h, theta, s) - linear_interpolation(h, theta, s1, s2, s))


def square_sum(d: int, c: float) -> float:
    """S = Σ_j θ_j² = (1 − c^−2)/(1 − c^(−4/d))      (Eq. 13, which drops the c^−2)"""
    return float(np.expm1(-2 * np.log(c)) / np.expm1(-4 * np.log(c) / d))


def printed_constant(d: int, c: float) -> float:
    """d/(8·ln c), printed in Theorem 2.1 before max|h|·(s − s1)(s2 − s)      (Eq. 5); too small."""
    return float(d / (8 * np.log(c)))


def corrected_constant(d: int, c: float) -> float:
    """S/2: the smallest constant with which Theorem 2.1 is true      (ours; theory.md, Theorem 1)

    |a(s) − a_linear(s)| ≤ S/2 · max|h| · (s − s1)(s2 − s), for every h and s1 ≤ s ≤ s2. Equality is reached
    in the limit of a small gap around s = 0 with all h_j equal.
    """
    return square_sum(d, c) / 2


def clean_constant(d: int, c: float) -> float:
    """d/(8·ln c) + 1/4 + ln c/(6d) ≥ S/2: the printed constant with what it lacks      (ours; Corollary 2)"""
    return float(printed_constant(d, c) + 1 / 4 + np.log(c) / (6 * d))


def sharp_error(theta: ArrayLike, gap: float = 1.0) -> float:
    """Σ_j (1 − cos(gap·θ_j/2)): the largest error over |h_j| ≤ 1 and s in a gap      (ours; Theorem 3)

    Reached in the middle of the gap by `worst_products`. gap: s2 − s1 in tokens, with gap·θ_0 ≤ 2π.
    At d = 128, c = 10000, gap 1 it is 0.4939, where the paper prints d/(32 ln c) = 0.4343 (Eq. 7).
    """
    return error_bound(np.ones(len(np.asarray(theta))), theta, gap)


def error_bound(h: ArrayLike, theta: ArrayLike, gap: float = 1.0) -> float:
    """Σ_j |h_j|·(1 − cos(gap·θ_j/2)): the largest error with these |h_j|      (ours; Theorem 3)

    Far below max|h| times `sharp_error` when the large h_j sit at slow frequencies, as in fitted scores.
    """
    waves = np.asarray(theta, dtype=np.float64)
    assert gap * waves.max() <= 2 * np.pi, "Theorem 3 needs gap·θ_0 ≤ 2π"
    return float((np.abs(np.asarray(h)) * 2 * np.sin(gap * waves / 4) ** 2).sum())


def worst_products(theta: ArrayLike, s1: float, s2: float, s: float) -> Complex:
    """The h with |h_j| = 1 of the largest error at s: the conjugate phase of each pair's own error."""
    place = (s - s1) / (s2 - s1)
    own = _waves(theta, s) - (1 - place) * _waves(theta, s1) - place * _waves(theta, s2)
    size = np.abs(own)
    counts = size > np.finfo(np.float64).tiny  # the quotient of smaller ones is lost in rounding, or infinite
    return np.where(counts, own.conj() / np.where(counts, size, 1), 1)


def counterexample(d: int = 128, c: float = 10000.0) -> dict[str, Any]:
    """Theorem 2.1 against all h_j = 1, s1 = 0, s2 = 1, s = 1/2: error, printed bound, true bounds."""
    theta = frequencies(d, c)
    return {
        "d": d,
        "c": c,
        "error": float(interpolation_error(np.ones(d // 2), theta, 0.0, 1.0, 0.5)),
        "printed": printed_constant(d, c) / 4,
        "sharp": sharp_error(theta),
        "corrected": corrected_constant(d, c) / 4,
        "clean": clean_constant(d, c) / 4,
    }


class Ratios(NamedTuple):
    """How much smaller interpolation's bound is than extrapolation's: "~600×" and what it becomes."""

    printed: float
    """2d over the printed bound of a unit gap, = 64·ln c: the paper's, from |a| ≤ 2·max|h|·B(s), B(s) ≥ d."""
    corrected: float
    """2d over S/8: the same sentence with the true constant."""
    sharp: float
    """(d/2)/Σ(1 − cos(θ_j/2)): largest possible score over largest possible error; both are reached."""


def ratios(d: int, c: float) -> Ratios:
    """The three readings of the paper's "at least ~600× smaller"      (Sec. 2.3, after Eq. 8)"""
    return Ratios(
        printed=2 * d / (printed_constant(d, c) / 4),
        corrected=2 * d / (corrected_constant(d, c) / 4),
        sharp=d / 2 / sharp_error(frequencies(d, c)),
    )


# --- Figure 2 ----------------------------------------------------------------------------------------------


def fit_scores(scores: ArrayLike, distances: ArrayLike, theta: ArrayLike, cutoff: float = 1e-6) -> Complex:
    """h of the least-squares fit a(s_i) ≈ scores_i      (the paper's Figure 2 and App. C.1)

    scores, distances: (n,), n ≥ d. Pairs that make less than a turn over the distances are nearly the same
    column twice; singular values below cutoff × the largest are dropped, and how far the fit explodes outside
    depends on that choice (docs/theory.md has the table). Returns (d/2,) complex.
    """
    waves = _waves(theta, distances)
    columns = np.concatenate([waves.real, -waves.imag], axis=1)
    fitted = np.linalg.lstsq(columns, np.asarray(scores, dtype=np.float64), rcond=cutoff)[0]
    half = columns.shape[1] // 2
    return np.asarray(fitted[:half] + 1j * fitted[half:])
