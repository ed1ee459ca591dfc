"""Intervals cover what they say as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.metrics.intervals import (
    document_interval,
    paired_difference,
    student_quantile,
    wilson,
)


def test_wilson_agrees_with_published_values():
    """Newcombe 1998, Statistics in Medicine 17, Table I, method 3."""
    for right, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611)]:
        assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500), st.data())
def test_wilson_holds_the_rate_and_mirrors(n, data):
    right = data.draw(st.integers(0, n))
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low))


def test_student_quantiles_are_those_of_the_tables():
    table = {1: 12.7062, 2: 4.30265, 3: 3.18245, 7: 2.36462, 30: 2.04227, 1000: 1.96234}
    for degrees, value in table.items():
        assert student_quantile(0.975, degrees) == pytest.approx(value, rel=1e-4)
    assert student_quantile(0.025, 7) == -student_quantile(0.975, 7)


@pytest.mark.parametrize("documents", [4, 12])
def test_the_document_interval_covers_the_mean_of_all_documents_as_often_as_it_says(documents):
    """Documents of unlike length and loss are drawn 1,000 times; 95 % ± 2.5 points of the intervals hold."""
    draw = np.random.default_rng(100 + documents)
    held = 0
    for trial in range(1000):
        counts = draw.integers(500, 1500, documents)
        losses = 3 + 0.4 * draw.standard_normal(documents)
        low, high = document_interval(losses * counts, counts, seed=trial)
        held += low <= 3 <= high
    assert held / 1000 == pytest.approx(0.95, abs=0.025)


def test_one_document_gives_no_interval():
    assert document_interval([3.0], [1]) is None


def test_the_interval_is_the_same_for_the_same_seed_and_other_for_another():
    sums, counts = [1.0, 5.0, 3.0], [1, 2, 3]
    assert document_interval(sums, counts, 1) == document_interval(sums, counts, 1)
    assert document_interval(sums, counts, 1) != document_interval([1.0, 5.0, 9.0], counts, 1)


def test_a_paired_difference_is_sharp_where_the_two_intervals_overlap():
    """Model b loses 0.01 nats more on every document, whose own losses lie 0.3 apart."""
    draw = np.random.default_rng(0)
    a = 3 + 0.3 * draw.standard_normal(12)
    b = a + 0.01 + 0.001 * draw.standard_normal(12)
    counts = np.full(12, 1000)
    found = paired_difference(a * counts, b * counts, counts)
    assert found.low > 0 and found.high < 0.02 and found.mean == pytest.approx(0.01, abs=1e-3)
    _, high_a = document_interval(a * counts, counts)
    low_b, _ = document_interval(b * counts, counts)
    assert low_b < high_a and found.documents == 12 and found.tokens == 12_000


@given(st.lists(st.floats(0, 10), min_size=2, max_size=6))
def test_a_paired_difference_turns_its_sign_when_the_models_change_places(losses):
    other = [x * 0.9 + 0.1 for x in losses]
    counts = [10.0] * len(losses)
    there, back = paired_difference(losses, other, counts), paired_difference(other, losses, counts)
    assert there.mean == pytest.approx(-back.mean, abs=1e-12) and math.isfinite(there.low)
