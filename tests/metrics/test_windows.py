"""The laws of windows: who is read, who is scored, how much each scored token sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.metrics.windows import PROTOCOLS, Window, windows

sizes = st.tuples(st.integers(0, 200), st.integers(4, 40), st.integers(1, 30), st.booleans()).filter(
    lambda t: t[2] < t[1] - t[3]
)


def naive(protocol: str, n: int, context: int, stride: int, bos: bool) -> list[tuple[list[int], list[int]]]:
    """(tokens read, tokens scored) of each window, written the slow way, token by token."""
    room = context - bos
    if protocol == "truncate" or n < room:
        read = list(range(min(n, room)))
        windows = [(read, [t for t in read if bos or t > 0])]
    elif protocol == "overlap":
        windows = []
        for begin in range(0, n, stride):
            read = list(range(begin, begin + room))
            if read[-1] < n:
                windows.append((read, read if bos else read[1:]))
    else:
        windows, scored = [], set() if bos else {0}
        for begin in range(0, n, stride):
            read = [t for t in range(begin, begin + room) if t < n]
            new = [t for t in read if t not in scored]
            scored |= set(new)
            if protocol == "sliding":  # full also at the end
                read = list(range(read[-1] + 1 - room, read[-1] + 1))
            if new:
                windows.append((read, new))
            if read[-1] == n - 1:
                break
    return [w for w in windows if w[1]]


@given(sizes, st.sampled_from(PROTOCOLS))
def test_windows_are_those_of_the_naive_reference(size, protocol):
    n, context, stride, bos = size
    found = [
        (list(range(w.start, w.stop)), list(range(w.first_scored, w.stop)))
        for w in windows(protocol, n, context, stride, bos)
    ]
    assert found == naive(protocol, n, context, stride, bos)


@given(sizes, st.sampled_from(["sliding", "window-mean"]))
def test_every_token_is_scored_once_and_in_order(size, protocol):
    n, context, stride, bos = size
    scored = [t for w in windows(protocol, n, context, stride, bos) for t in range(w.first_scored, w.stop)]
    assert scored == list(range(0 if bos else 1, n))


@given(sizes)
def test_after_the_first_window_each_scored_token_sees_at_least_the_context_less_the_stride(size):
    n, context, stride, bos = size
    for w in windows("sliding", n, context, stride, bos)[1:]:
        assert w.stop - w.start + bos == context  # full
        assert w.first_scored - w.start + bos >= context - stride


def test_the_drawings_of_ten_tokens_are_right():
    def draw(protocol, n):
        return [(w.start, w.stop, w.scored) for w in windows(protocol, n, 6, 2, False)]

    assert draw("sliding", 10) == [(0, 6, 5), (2, 8, 2), (4, 10, 2)]
    assert draw("window-mean", 9) == [(0, 6, 5), (2, 8, 2), (4, 9, 1)]
    assert draw("overlap", 10) == [(0, 6, 5), (2, 8, 5), (4, 10, 5)]
    assert draw("truncate", 10) == [(0, 6, 5)]
    assert windows("sliding", 10, 6, 2, True)[0] == Window(0, 5, 5)


@pytest.mark.parametrize("stride", [0, 6, 7])
def test_a_stride_that_leaves_tokens_out_or_without_context_is_refused(stride):
    with pytest.raises(ValueError, match="stride"):
        windows("sliding", 10, 6, stride, False)
