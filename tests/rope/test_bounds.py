"""The paper's theory and its correction: every inequality is tried on random and on the worst scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ropewalk.rope import bounds

HEADS = st.sampled_from([2, 4, 16, 32, 64, 96, 128, 256])
BASES = st.floats(10, 1e7)
SEEDS = st.integers(0, 2**31)
SLACK = 1e-9


def random_products(seed: int, d: int, unit: bool = False) -> np.ndarray:
    generator = np.random.default_rng(seed)
    h = generator.standard_normal(d // 2) + 1j * generator.standard_normal(d // 2)
    return h / np.abs(h) if unit else h


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, d=HEADS, c=BASES, s=st.floats(0, 1e5))
def test_a_score_is_the_sum_of_its_cosines_and_sines(seed, d, c, s):
    """a(s) = Σ Re h_j·cos(sθ_j) − Im h_j·sin(sθ_j)      (Eq. 2–3), one number at a time"""
    h, theta = random_products(seed, d), bounds.frequencies(d, c)
    expected = sum(z.real * math.cos(s * t) - z.imag * math.sin(s * t) for z, t in zip(h, theta))
    assert float(bounds.attention_score(h, theta, s)) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, d=HEADS, c=BASES, s=st.floats(0, 1e5))
def test_extrapolation_obeys_equation_8_and_the_triangle_inequality(seed, d, c, s):
    h, theta = random_products(seed, d), bounds.frequencies(d, c)
    size = abs(float(bounds.attention_score(h, theta, s)))
    assert size <= float(bounds.extrapolation_bound(h, theta, s)) + SLACK
    assert size <= bounds.magnitude_bound(h) + SLACK
    worst = bounds.worst_score(theta, s)
    assert float(bounds.attention_score(worst, theta, s)) == pytest.approx(d / 2)


def test_abel_summation_by_hand():
    """d = 4, s = 0: A_1 = 1, A_2 = 2, so B = 3; h = (5, 2): steps −3 and −2, bound 9, score 7."""
    theta = bounds.frequencies(4, 1e4)
    assert bounds.extrapolation_sum(theta, 0.0) == 3
    assert bounds.extrapolation_bound([5, 2], theta, 0.0) == 9
    assert bounds.attention_score([5, 2], theta, 0.0) == 7


def test_extrapolation_sum_does_not_depend_on_its_block():
    theta = bounds.frequencies(32, 1e4)
    s = np.arange(30.0).reshape(5, 6)
    assert np.array_equal(bounds.extrapolation_sum(theta, s), bounds.extrapolation_sum(theta, s, block=7))


def test_b_over_d_is_above_one_up_to_4860_tokens_and_not_beyond():
    """Sec. 2.3: B(s) is "at least larger than d" (d = 128, c = 10000); its Figure 5 ends at 4095."""
    ratio = bounds.extrapolation_sum(bounds.frequencies(128, 1e4), np.arange(4862)) / 128
    assert (ratio[:4861] > 1).all()
    assert ratio[4861] < 1


@settings(max_examples=100, deadline=None)
@given(
    seed=SEEDS,
    d=HEADS,
    c=BASES,
    s1=st.floats(0, 10_000),
    gap=st.floats(0.01, 200),
    place=st.floats(0.01, 0.99),
)
def test_interpolation_obeys_the_corrected_bound_for_random_and_for_the_worst_scores(
    seed, d, c, s1, gap, place
):
    """Theorem 1: |a − a_linear| ≤ S/2·max|h|·(s − s1)(s2 − s)      (docs/theory.md)"""
    theta, s = bounds.frequencies(d, c), s1 + place * gap
    limit = bounds.corrected_constant(d, c) * place * (1 - place) * gap**2
    for h in (random_products(seed, d), bounds.worst_products(theta, s1, s1 + gap, s)):
        error = float(bounds.interpolation_error(h, theta, s1, s1 + gap, s))
        assert error <= np.abs(h).max() * limit * (1 + 1e-9) + SLACK
    assert bounds.corrected_constant(d, c) <= bounds.clean_constant(d, c)


@settings(max_examples=100, deadline=None)
@given(
    seed=SEEDS, d=HEADS, c=BASES, s1=st.floats(0, 10_000), gap=st.floats(0.05, 6.28), place=st.floats(0, 1)
)
@example(seed=0, d=2, c=10.0, s1=0.0, gap=1.0, place=2.225073858507e-311)
def test_the_sharp_bound_holds_at_every_place_of_a_gap(seed, d, c, s1, gap, place):
    """Theorem 3: |a − a_linear| ≤ Σ|h_j|(1 − cos(gap·θ_j/2)) for gap ≤ 2π"""
    theta, s = bounds.frequencies(d, c), s1 + place * gap
    h = random_products(seed, d)
    assert bounds.interpolation_error(h, theta, s1, s1 + gap, s) <= bounds.error_bound(h, theta, gap) + SLACK
    worst = bounds.worst_products(theta, s1, s1 + gap, s)
    error = float(bounds.interpolation_error(worst, theta, s1, s1 + gap, s))
    assert error <= bounds.sharp_error(theta, gap) + SLACK


@settings(max_examples=60, deadline=None)
@given(d=HEADS, c=BASES, s1=st.floats(0, 10_000), gap=st.floats(0.05, 6.28))
def test_the_sharp_bound_is_reached_in_the_middle_of_a_gap(d, c, s1, gap):
    theta, middle = bounds.frequencies(d, c), s1 + gap / 2
    worst = bounds.worst_products(theta, s1, s1 + gap, middle)
    error = float(bounds.interpolation_error(worst, theta, s1, s1 + gap, middle))
    assert np.abs(worst).max() <= 1 + 1e-12
    assert error == pytest.approx(bounds.sharp_error(theta, gap), rel=1e-6, abs=1e-9)


def test_an_adversary_climbing_from_random_scores_reaches_the_sharp_bound_and_never_passes_it():
    """Coordinate ascent over the phases of h, scored by the definition alone, without `worst_products`."""
    theta = bounds.frequencies(32, 1e4)
    sharp = bounds.sharp_error(theta)
    phases = np.exp(2j * np.pi * np.arange(720) / 720)
    best = 0.0
    for seed in range(3):
        h = random_products(seed, 32, unit=True)
        for j in range(16):
            tries = np.tile(h, (len(phases), 1))
            tries[:, j] = phases
            errors = [float(bounds.interpolation_error(h_, theta, 3.0, 4.0, 3.5)) for h_ in tries]
            assert max(errors) <= sharp + SLACK
            h = tries[int(np.argmax(errors))]
        best = max(best, max(errors))
    assert best == pytest.approx(sharp, rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(d=HEADS, c=BASES)
def test_no_smaller_constant_than_the_corrected_one_is_true(d, c):
    """All h_j = 1 on a small gap around s = 0 has error S/2·(gap/2)² in the limit."""
    gap = 1e-2
    theta = bounds.frequencies(d, c)
    error = float(bounds.interpolation_error(np.ones(d // 2), theta, -gap / 2, gap / 2, 0.0))
    assert error == pytest.approx(bounds.corrected_constant(d, c) * gap**2 / 4, rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(d=st.integers(1, 200).map(lambda half: 2 * half), c=st.floats(10, 1e7))
def test_the_printed_constant_is_too_small_for_every_usual_head(d, c):
    """Corollary 2: printed < S/2 whenever d < 2(c² − 1)·ln c; 1.8 billion at c = 10000."""
    if d < 2 * (c * c - 1) * math.log(c):
        assert bounds.printed_constant(d, c) < bounds.corrected_constant(d, c)


def test_the_geometric_sum_is_the_sum_of_squares():
    for d, c in ((2, 1e4), (64, 1e4), (128, 5e5)):
        assert bounds.square_sum(d, c) == pytest.approx((bounds.frequencies(d, c) ** 2).sum(), rel=1e-13)


@pytest.mark.parametrize(
    ("d", "error", "printed", "sharp", "corrected"),
    [(128, 0.4593, 0.4343, 0.4939, 0.4998), (64, 0.2598, 0.2171, 0.2818, 0.2856)],
)
def test_the_counterexample_to_theorem_2_1(d, error, printed, sharp, corrected):
    """c = 10000, all h_j = 1, s1 = 0, s2 = 1, s = 1/2: the error passes what the paper prints."""
    got = bounds.counterexample(d)
    assert got["error"] == pytest.approx(error, abs=5e-5)
    assert got["printed"] == pytest.approx(printed, abs=5e-5)
    assert got["sharp"] == pytest.approx(sharp, abs=5e-5)
    assert got["corrected"] == pytest.approx(corrected, abs=5e-5)
    assert got["printed"] < got["error"] < got["sharp"] < got["corrected"] < got["clean"]


def test_what_remains_of_six_hundred():
    printed, corrected, sharp = bounds.ratios(128, 1e4)
    assert printed == pytest.approx(64 * math.log(1e4))
    assert (round(printed), round(corrected), round(sharp)) == (589, 512, 130)


def test_scores_fitted_inside_the_window_explode_outside_and_stay_smooth_between_the_integers():
    """The paper's Figure 2: d = 128, L = 2048, random scores, least squares."""
    theta, window = bounds.frequencies(128, 1e4), 2048
    for seed in range(3):
        scores = np.random.default_rng(seed).standard_normal(window)
        h = bounds.fit_scores(scores, np.arange(window), theta)
        inside = bounds.attention_score(h, theta, np.arange(window))
        outside = bounds.attention_score(h, theta, np.arange(window, 2 * window))
        between = bounds.interpolation_error(h, theta, 100, 101, np.linspace(100, 101, 11))
        assert np.abs(inside).max() < 1
        assert np.abs(outside).max() > 100
        assert between.max() <= bounds.error_bound(h, theta) < 0.05
        interpolated = bounds.attention_score(h, theta, np.arange(2 * window - 1) / 2)
        assert np.abs(interpolated).max() < 1 + bounds.error_bound(h, theta)


def test_a_fit_to_scores_that_a_head_can_give_finds_them_again():
    theta = bounds.frequencies(8, 100.0)
    h = random_products(5, 8)
    s = np.arange(200)
    assert np.allclose(bounds.fit_scores(bounds.attention_score(h, theta, s), s, theta), h)
