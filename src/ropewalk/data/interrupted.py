"""Windows in which one text is interrupted by another: what belongs together lies far apart.

In a window that is one stretch of a book, a token seldom needs what stands a whole window earlier, and few
pairs of tokens are that far apart at all: training hardly ever asks for the longest distances. Here two
windows exchange their parts, every token still read once:

    A = a₁ a₂ a₃        a₁ b₁ a₂        a₁ and a₂ belong together, |b₁| tokens apart
    B = b₁ b₂ b₃   ->   b₂ a₃ b₃        b₂ and b₃ likewise, |a₃| tokens apart

with |b₁| = |a₃| drawn evenly between half a window and nearly all of it. After "Untie the Knots" (Tian et
al. 2024, arXiv 2409.04774), which cuts documents into more parts. Positions stay 0 … L' − 1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from .windows import Window

EDGE = 32
"""The interruption leaves at least a window's 1/EDGE to the text that it interrupts."""


class Stream(Protocol):
    """An endless stream of windows that can be left and found again: a `Mixture`."""

    def __next__(self) -> Window: ...

    @property
    def passes(self) -> int: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class Interrupted:
    """``stream`` with a share of its neighbouring windows interrupting each other.

    share: of the pairs, 0 to 1; as many of the first n pairs as n·share, rounded down.
    seed: of the lengths; the pair's number goes into it too, so that a resumed stream draws the same.
    """

    def __init__(self, stream: Stream, share: float, seed: int = 0) -> None:
        assert 0 <= share <= 1, share
        self._stream, self._share, self._seed = stream, share, seed
        self._pairs = 0  # begun so far
        self._before = stream.state()  # of the stream, before the pair that is being handed out
        self._left: deque[Window] = deque()

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        if not self._left:
            self._read_pair()
        return self._left.popleft()

    @property
    def passes(self) -> int:
        """Passes begun over the source that was read most often."""
        return self._stream.passes

    def state(self) -> dict[str, Any]:
        """Where the stream stands, as JSON; in the middle of a pair, where that pair began."""
        if not self._left:
            return {"stream": self._stream.state(), "pairs": self._pairs, "given": 0}
        return {"stream": self._before, "pairs": self._pairs - 1, "given": 1}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` of the same stream, share and seed."""
        self._stream.restore(state["stream"])
        self._pairs, self._left = int(state["pairs"]), deque()
        if state["given"]:
            next(self)

    def _read_pair(self) -> None:
        self._before = self._stream.state()
        pair = next(self._stream), next(self._stream)
        number, self._pairs = self._pairs, self._pairs + 1
        if int((number + 1) * self._share + 1e-9) > int(number * self._share + 1e-9):
            pair = exchange(*pair, np.random.default_rng([self._seed, number]))
        self._left.extend(pair)


def exchange(a: Window, b: Window, rng: np.random.Generator) -> tuple[Window, Window]:
    """The two windows of the module's drawing: (T,), (T,) -> (T,), (T,), the same tokens.

    Windows of another length than each other, or of fewer than four tokens, stay as they are.
    """
    length = len(a.ids)
    if len(b.ids) != length or length < 4:
        return a, b
    least = max(2, length // EDGE)
    between = int(rng.integers(length // 2, length - least + 1))
    own = length - between
    first, second = (int(rng.integers(1, own)) for _ in range(2))
    one = _join((a, 0, first), (b, 0, between), (a, first, own))
    # b goes on behind `between`; a behind `own`: the other way round, with the same lengths
    two = _join((b, between, between + second), (a, own, length), (b, between + second, length))
    return one, two


def _join(*parts: tuple[Window, int, int]) -> Window:
    """The given stretches (window, from, to) end to end; documents that begin inside begin there too."""
    ids, starts, at = [], [], 0
    for window, low, high in parts:
        ids.append(window.ids[low:high])
        starts += [at + start - low for start in window.starts if low <= start < high]
        at += high - low
    return Window(np.concatenate(ids), tuple(starts))
