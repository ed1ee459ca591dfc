"""Windows in which one text is interrupted by another: nothing lost, nothing twice, found again."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.interrupted import EDGE, Interrupted, exchange
from ropewalk.data.windows import Window


class Count:
    """Windows of T rising numbers, two lanes that take turns: 0 … and a million …"""

    def __init__(self, length=64):
        self.length, self.given = length, 0

    def __next__(self):
        lane, turn = self.given % 2, self.given // 2
        self.given += 1
        first = 1_000_000 * lane + turn * self.length
        return Window(np.arange(first, first + self.length), (0,) if turn == 0 else ())

    passes = 1

    def state(self):
        return {"given": self.given}

    def restore(self, state):
        self.given = state["given"]


@given(st.integers(4, 300), st.integers(0, 2**32))
def test_every_token_is_in_one_of_the_two_windows_once(length, seed):
    a, b = Window(np.arange(length), ()), Window(np.arange(1000, 1000 + length), ())
    one, two = exchange(a, b, np.random.default_rng(seed))
    assert len(one.ids) == len(two.ids) == length
    assert sorted(np.concatenate([one.ids, two.ids])) == [*range(length), *range(1000, 1000 + length)]


@given(st.integers(64, 300), st.integers(0, 2**32))
def test_each_window_holds_one_text_interrupted_by_the_other_for_at_least_half_of_it(length, seed):
    a, b = Window(np.arange(length), ()), Window(np.arange(1000, 1000 + length), ())
    for window in exchange(a, b, np.random.default_rng(seed)):
        jumps = np.flatnonzero(np.diff(window.ids) != 1)
        assert len(jumps) == 2
        between = jumps[1] - jumps[0]
        assert length // 2 <= between <= length - length // EDGE
        outer = np.concatenate([window.ids[: jumps[0] + 1], window.ids[jumps[1] + 1 :]])
        assert (np.diff(outer) == 1).all()  # behind the interruption the text goes on where it stopped


def test_documents_still_begin_where_they_began():
    a = Window(np.arange(64), (0, 10))
    b = Window(np.arange(1000, 1064), (5, 63))
    for seed in range(20):
        windows = exchange(a, b, np.random.default_rng(seed))
        found = sorted(int(w.ids[start]) for w in windows for start in w.starts)
        assert found == [0, 10, 1005, 1063]


@pytest.mark.parametrize("share, changed", [(0.0, 0), (0.25, 2), (0.5, 5), (1.0, 10)])
def test_the_share_of_changed_pairs_is_the_share_asked(share, changed):
    plain, mixed = Count(), Interrupted(Count(), share)
    pairs = [(next(plain), next(plain), next(mixed), next(mixed)) for _ in range(10)]
    assert sum(not np.array_equal(one.ids, other.ids) for one, _, other, _ in pairs) == changed


@given(st.integers(0, 12), st.integers(0, 5))
def test_a_stream_found_again_goes_on_as_if_it_had_never_stopped(stop, seed):
    whole = [window.ids.tolist() for window in itertools.islice(Interrupted(Count(), 0.7, seed), 20)]
    first = Interrupted(Count(), 0.7, seed)
    for _ in range(stop):
        next(first)
    second = Interrupted(Count(), 0.7, seed)
    second.restore(first.state())
    assert [window.ids.tolist() for window in itertools.islice(second, 20 - stop)] == whole[stop:]


def test_windows_too_short_to_be_cut_stay_as_they_are():
    a, b = Window(np.arange(3), ()), Window(np.arange(3), ())
    assert exchange(a, b, np.random.default_rng(0)) == (a, b)
