"""Passages that come back later in a window: at every distance, little of it, the same every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.repeats import EVERY, LONGEST, SHORTEST, with_repeats


def changed_runs(ids, once):
    """(first, behind the last, distance back) of each changed stretch of a window of rising numbers."""
    runs = []
    for at in np.flatnonzero(ids != once):
        back = int(once[at] - ids[at])
        if runs and runs[-1][1] == at and runs[-1][2] == back:
            runs[-1][1] = int(at) + 1
        else:
            runs.append([int(at), int(at) + 1, back])
    return runs


@given(st.integers(2 * LONGEST, 3000), st.integers(0, 2**32))
def test_what_changed_stood_earlier_in_the_same_window(length, seed):
    once = np.arange(length)
    ids = with_repeats(once, np.random.default_rng(seed))
    assert (once == np.arange(length)).all()  # the given window is not written to
    assert (ids <= once).all() and (ids >= 0).all()
    assert (ids != once).sum() <= max(1, length // EVERY) * LONGEST


def test_every_distance_is_asked_for_and_the_longest_most():
    """Of the larger of two even draws, a share of (n² - (n-1)²)/64 falls into the n-th eighth."""
    once, backs, longs = np.arange(511), [], []  # shorter than two: one passage a window
    for seed in range(4000):
        runs = changed_runs(with_repeats(once, np.random.default_rng(seed)), once)
        assert len(runs) == 1
        first, behind, back = runs[0]
        backs.append(back)
        longs.append(behind - first)
    assert min(longs) == SHORTEST and max(longs) == LONGEST
    eighths = np.histogram(backs, bins=8, range=(SHORTEST, 511 - SHORTEST))[0]
    wanted = 4000 * (2 * np.arange(1, 9) - 1) / 64
    assert (abs(eighths[1:-1] - wanted[1:-1]) < 0.25 * wanted[1:-1]).all(), (eighths, wanted)
    assert eighths[0] > 20 and max(backs) > 0.97 * 511


@pytest.mark.parametrize("density", [0.5, 1.0, 2.0])
def test_a_long_window_has_as_many_passages_for_every_256_tokens_as_asked(density):
    once = np.arange(16384)
    runs = changed_runs(with_repeats(once, np.random.default_rng(0), density), once)
    asked = density * 16384 / EVERY
    assert 0.8 * asked <= len(runs) <= 1.5 * asked  # some overwrite others in part


def test_a_window_too_short_stays_as_it_is():
    once = np.arange(2 * LONGEST - 1)
    assert with_repeats(once, np.random.default_rng(0)) is once
