import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.metrics.accuracy import (
    accuracy,
    changes,
    matches,
    mcnemar,
    paired_difference,
    standard_error,
    verdict,
)

ITEMS = st.text("01", min_size=1, max_size=60)
PAIRS = st.integers(1, 60).flatmap(lambda n: st.tuples(*2 * [st.text("01", min_size=n, max_size=n)]))


@given(ITEMS)
def test_standard_error_is_the_sample_deviation_over_root_n(items):
    n = len(items)
    if n == 1:
        assert standard_error(items) is None
        return
    values = [int(i) for i in items]
    deviation = math.sqrt(sum((v - accuracy(items)) ** 2 for v in values) / (n - 1))
    assert standard_error(items) == pytest.approx(deviation / math.sqrt(n))


@given(PAIRS)
def test_mcnemar_is_symmetric_and_a_probability(pair):
    a, b = pair
    assert mcnemar(a, b) == mcnemar(b, a)
    assert 0 < mcnemar(a, b) <= 1
    assert mcnemar(a, a) == 1


def test_mcnemar_equals_the_exact_binomial_test():
    """Two-sided exact binomial; the last from scipy 1.x, binomtest(12, 48).pvalue."""
    assert mcnemar("1" * 6, "0" * 6) == 2 / 64
    assert mcnemar("1" * 8 + "0", "0" * 8 + "1") == 20 / 512
    assert mcnemar("1" * 36 + "0" * 12, "0" * 36 + "1" * 12) == pytest.approx(0.0007172696733945827)


@given(PAIRS)
def test_the_paired_difference_lies_in_its_interval_and_turns_with_the_models(pair):
    a, b = pair
    difference, low, high = paired_difference(a, b)
    assert -1 <= low <= difference <= high <= 1
    assert difference == pytest.approx(accuracy(b) - accuracy(a))
    turned = paired_difference(b, a)
    assert (-turned[0], -turned[2], -turned[1]) == pytest.approx((difference, low, high))


@pytest.mark.parametrize(("n", "lost", "won"), [(40, 0.05, 0.05), (100, 0.1, 0.04), (400, 0.03, 0.02)])
def test_the_interval_covers_the_true_difference_as_often_as_it_says(n, lost, won):
    random = Random(1)
    inside = 0
    for _ in range(1000):
        kinds = random.choices(("11", "10", "01"), (1 - lost - won, lost, won), k=n)
        before, after = ("".join(kind[i] for kind in kinds) for i in (0, 1))
        _, low, high = paired_difference(before, after)
        inside += low <= won - lost <= high
    assert 935 <= inside <= 990


def test_at_most_two_percent_lost_is_said_only_when_the_questions_can_tell():
    same = "1" * 700 + "0" * 300
    assert verdict(same, same) == "kept"
    assert verdict(same[:40], same[:40]) == "open"
    assert verdict(same, "0" * 100 + same[100:]) == "lost"
    assert verdict(same, "0" * 25 + same[25:-10] + "1" * 10) == "open"


def test_answers_of_different_questions_are_refused():
    with pytest.raises(ValueError, match="same questions"):
        changes("101", "10")
    with pytest.raises(ValueError, match="0 and 1"):
        accuracy("1x")
    with pytest.raises(ValueError, match="0 and 1"):
        accuracy("")


def test_matches_count_answers_by_substring_without_letter_case():
    assert matches("The words: Rope, HEMP.", ["rope", "hemp", "tar"]) == 2
    assert matches("12\x00345", ["12345"]) == 0
