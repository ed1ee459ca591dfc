"""The attention scores of a real head by distance, before and after interpolation, beside their bounds.

Input: the queries and keys of one head before rotation, (n, d) each, in the order of their tokens.
Two pictures, both divided by √d as attention does:
`mean_score_by_distance`  what the head gave, on average, to a key s tokens back in this very text
`score_curve`             the paper's a(s): the text's mean content held fixed, the distance varied freely,
                          also past the window and between the integers
All in float64; pure arithmetic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .bounds import Complex, Real, attention_score, error_bound, extrapolation_bound, magnitude_bound

if TYPE_CHECKING:
    from .rotate import Layout  # a type only: this module and `bounds` run without torch


def as_complex(x: ArrayLike, layout: Layout = "half-split") -> Complex:
    """A head's dimensions as d/2 complex numbers: (n, d) -> (n, d/2).  `layout`: see `rotate`."""
    real = np.asarray(x, dtype=np.float64)
    assert real.shape[-1] % 2 == 0, real.shape
    half = real.shape[-1] // 2
    if layout == "half-split":
        return real[..., :half] + 1j * real[..., half:]
    return real[..., 0::2] + 1j * real[..., 1::2]


def mean_products(q: ArrayLike, k: ArrayLike, layout: Layout = "half-split") -> Complex:
    """h_j averaged over all causal pairs m ≥ n of the text      (Chen et al. 2023, Eq. 2–3): (d/2,)."""
    queries, keys = as_complex(q, layout), as_complex(k, layout)
    assert queries.shape == keys.shape and queries.ndim == 2, (queries.shape, keys.shape)
    n = len(queries)
    total = (queries * np.cumsum(keys, axis=0).conj()).sum(axis=0)
    return np.asarray(total / (n * (n + 1) / 2))


def products_by_distance(q: ArrayLike, k: ArrayLike, layout: Layout = "half-split") -> Complex:
    """h_j averaged over the n − s pairs of the text that are s tokens apart: (n, d/2), row s.

    A correlation by FFT: n·log n instead of the n² of the score matrix.
    """
    queries, keys = as_complex(q, layout), as_complex(k, layout)
    assert queries.shape == keys.shape and queries.ndim == 2, (queries.shape, keys.shape)
    n = len(queries)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.fft(queries, size, axis=0) * np.fft.fft(keys, size, axis=0).conj()
    totals = np.fft.ifft(spectrum, axis=0)[:n]
    return np.asarray(totals / (n - np.arange(n))[:, None])


def mean_score_by_distance(
    q: ArrayLike,
    k: ArrayLike,
    inv_freq: ArrayLike,
    attention_factor: float = 1.0,
    layout: Layout = "half-split",
) -> Real:
    """The mean of <f(q, m), f(k, m − s)>/√d over the text, for s = 0 … n − 1: (n,).

    inv_freq: (d/2,), as trained or scaled: what the same contents would score under it.
    The mean at s is over n − s pairs, so its last values are those of single pairs.
    """
    means = products_by_distance(q, k, layout)
    theta = np.asarray(inv_freq, dtype=np.float64)
    assert theta.shape == means.shape[1:], f"{theta.shape} frequencies for {means.shape[1]} pairs"
    waves = np.exp(1j * np.outer(np.arange(len(means)), theta))
    scale = attention_factor**2 / math.sqrt(2 * len(theta))
    return np.asarray((means * waves).sum(axis=1).real * scale)


class HeadScores(NamedTuple):
    """One head's mean score by distance, beside its bounds; every array has the shape of `distance`."""

    distance: Real
    """s, tokens; the trained window ends at L."""
    before: Real
    """a(s)/√d with the trained frequencies: extrapolated past L."""
    after: Real
    """a(s/k)/√d: the same contents under Position Interpolation."""
    extrapolation: Real
    """The paper's bound of |before| (Eq. 8), or the triangle inequality's Σ|h_j| where that is smaller."""
    after_low: Real
    """Floor of `after`: the chord between the trained whole distances, less the error of Theorem 3."""
    after_high: Real
    """Its ceiling."""


def score_curve(
    q: ArrayLike,
    k: ArrayLike,
    inv_freq: ArrayLike,
    factor: float,
    distances: ArrayLike,
    layout: Layout = "half-split",
) -> HeadScores:
    """a(s) of the text's mean content before and after Position Interpolation by `factor`, with bounds.

    inv_freq: (d/2,), as trained. distances: (p,), whole or fractional, >= 0.
    """
    theta = np.asarray(inv_freq, dtype=np.float64)
    h = mean_products(q, k, layout) / math.sqrt(2 * len(theta))
    s = np.asarray(distances, dtype=np.float64)
    squeezed = s / factor
    left = np.floor(squeezed)
    place = squeezed - left
    chord = (1 - place) * attention_score(h, theta, left) + place * attention_score(h, theta, left + 1)
    error = error_bound(h, theta)
    return HeadScores(
        distance=s,
        before=attention_score(h, theta, s),
        after=attention_score(h, theta, squeezed),
        extrapolation=np.minimum(extrapolation_bound(h, theta, s), magnitude_bound(h)),
        after_low=chord - error,
        after_high=chord + error,
    )
