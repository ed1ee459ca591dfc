"""Perplexity from a random few windows, and how sure it is."""

import numpy as np
import pytest

from ropewalk.metrics.perplexity import Stratum, choose_windows, perplexity, sampled_interval
from ropewalk.metrics.retrieval import first_digits, k_max


def test_perplexity_of_a_uniform_guess_is_the_number_of_choices():
    assert perplexity(np.log(4096)) == pytest.approx(4096)


def test_a_sample_of_everything_is_exact_and_sure():
    stratum = Stratum([256.0, 300.0, 20.0], [256, 256, 10], 3, 522)
    assert stratum.estimate == 576 and stratum.variance == 0
    assert sampled_interval(100.0, [stratum], 1000) == (0.676, 0.676)


def test_every_document_gives_at_least_two_windows_and_its_share():
    chosen = choose_windows([0, 1, 100, 1000], 0.02, seed=3)
    assert [len(c) for c in chosen] == [0, 1, 2, 20]
    assert all(c == sorted(set(c)) for c in chosen) and all(0 <= i < 1000 for i in chosen[3])
    assert chosen != choose_windows([0, 1, 100, 1000], 0.02, seed=4)


def test_the_interval_of_a_sample_covers_the_exact_value_as_often_as_it_says():
    """One fixed set of losses, sampled 500 times: 95 % ± 3 points of the intervals hold the exact mean.

    20 documents of 30 to 200 windows; losses drift along a document and jump between documents.
    """
    draw = np.random.default_rng(1)
    counts = draw.integers(30, 200, 20)
    tokens = [np.r_[np.full(n - 1, 256), draw.integers(1, 256)] for n in counts]
    losses = [
        t * (2 + draw.normal() + 0.5 * np.sin(np.arange(n) / 9) + 0.3 * draw.standard_normal(n))
        for n, t in zip(counts, tokens)
    ]
    total = sum(t.sum() for t in tokens)
    exact = sum(x.sum() for x in losses) / total
    held, errors = 0, []
    for trial in range(500):
        strata = [
            Stratum(list(x[c]), list(t[c]), len(x), int(t.sum()))
            for c, x, t in zip(choose_windows(counts, 0.1, trial), losses, tokens)
        ]
        low, high = sampled_interval(0.0, strata, total)
        held += low <= exact <= high
        errors.append(sum(s.estimate for s in strata) / total - exact)
    assert held / 500 == pytest.approx(0.95, abs=0.03)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(500) + 1e-3  # no bias


def test_k_max_stops_at_the_first_distance_that_fails():
    assert k_max([(512, 0.1), (256, 0.2), (768, 1.0)]) == 256
    assert k_max([(256, 0.1), (512, 1.0)]) == 0
    assert k_max([(256, 0.9), (512, 0.8)], 0.9) == 256


def test_digits_are_read_whatever_stands_between():
    assert first_digits(" 1 2345678") == "12345"
    assert first_digits("no idea") == ""
    assert first_digits("١٢٣٤٥") == ""  # only ASCII digits are those of the key
