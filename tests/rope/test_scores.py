"""A head's scores by distance against the score matrix that attention computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.rope.rotate import rotary_table, rotate_half_split, rotate_interleaved
from ropewalk.rope.scaling import scaled
from ropewalk.rope.scores import (
    as_complex,
    mean_products,
    mean_score_by_distance,
    products_by_distance,
    score_curve,
)

ROTATE = {"half-split": rotate_half_split, "interleaved": rotate_interleaved}


def head(seed: int, n: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return q, k + 0.5  # a mean that is not zero, so that the averages are not noise alone


@pytest.mark.parametrize("layout", ROTATE)
@pytest.mark.parametrize("method", ["none", "linear", "yarn"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), d=st.sampled_from([4, 16, 32]))
def test_the_mean_by_distance_is_the_mean_of_each_diagonal_of_the_score_matrix(layout, method, seed, n, d):
    q, k = head(seed, n, d)
    inv_freq, factor = scaled(method, d, 1e4, 64, 256, dtype=torch.float64)
    cos, sin = rotary_table(torch.arange(n), inv_freq, factor, torch.float64, layout)
    matrix = ROTATE[layout](q, cos, sin) @ ROTATE[layout](k, cos, sin).T / math.sqrt(d)
    expected = [float(matrix.diagonal(-s).mean()) for s in range(n)]
    got = mean_score_by_distance(q, k, inv_freq, factor, layout)
    assert np.allclose(got, expected, atol=1e-9)


def test_the_mean_products_are_those_of_every_causal_pair():
    q, k = head(0, 12, 8)
    pairs = [as_complex(q[m]) * as_complex(k[n]).conj() for m in range(12) for n in range(m + 1)]
    assert np.allclose(mean_products(q, k), np.mean(pairs, axis=0))
    apart = products_by_distance(q, k)
    assert np.allclose((apart * (12 - np.arange(12))[:, None]).sum(axis=0), np.sum(pairs, axis=0))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), factor=st.floats(1, 16), d=st.sampled_from([8, 32, 64]))
def test_a_curve_stays_inside_its_bounds(seed, factor, d):
    q, k = head(seed, 50, d)
    theta = scaled("none", d, 1e4, 64, 64, dtype=torch.float64).inv_freq
    curve = score_curve(q, k, theta, factor, np.linspace(0, 500, 777))
    assert (np.abs(curve.before) <= curve.extrapolation + 1e-9).all()
    assert (curve.after >= curve.after_low - 1e-9).all() and (curve.after <= curve.after_high + 1e-9).all()


def test_interpolation_shows_at_ks_what_was_trained_at_s():
    q, k = head(3, 30, 16)
    theta = scaled("none", 16, 1e4, 64, 64, dtype=torch.float64).inv_freq
    trained = score_curve(q, k, theta, 1.0, np.arange(64))
    extended = score_curve(q, k, theta, 4.0, 4 * np.arange(64))
    assert np.allclose(trained.before, trained.after)
    assert np.allclose(extended.after, trained.before)


def test_a_wrong_number_of_frequencies_is_a_fault_of_ours():
    q, k = head(0, 4, 8)
    with pytest.raises(AssertionError, match="frequencies for 4 pairs"):
        mean_score_by_distance(q, k, np.ones(3))
