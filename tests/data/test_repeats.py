"""Passages that come back later in a window: at every distance alike, little of it, the same every time."""

import numpy as np
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


def test_every_distance_is_asked_for_as_often_as_every_other():
    once, backs, longs = np.arange(1023), [], []  # shorter than two: one passage a window
    for seed in range(2000):
        runs = changed_runs(with_repeats(once, np.random.default_rng(seed)), once)
        assert len(runs) == 1
        first, behind, back = runs[0]
        backs.append(back)
        longs.append(behind - first)
    assert min(longs) == SHORTEST and max(longs) == LONGEST
    eighths = np.histogram(backs, bins=8, range=(LONGEST, 1023 - LONGEST))[0]
    assert eighths.min() > 0.8 * 2000 / 8, eighths
    assert max(backs) > 0.98 * 1023


def test_a_long_window_has_a_passage_for_every_512_tokens():
    once = np.arange(16384)
    runs = changed_runs(with_repeats(once, np.random.default_rng(0)), once)
    assert 0.8 * 16384 / EVERY <= len(runs) <= 1.5 * 16384 / EVERY  # some overwrite others in part


def test_a_window_too_short_stays_as_it_is():
    once = np.arange(2 * LONGEST - 1)
    assert with_repeats(once, np.random.default_rng(0)) is once
