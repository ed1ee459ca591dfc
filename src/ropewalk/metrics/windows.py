"""Which windows of a document are read, and which of their tokens are scored: four protocols, by name.

All four are called "sliding-window perplexity" somewhere in public code and differ by up to 3 % on the
same model and text. `sliding` is the paper's (Chen et al. 2023, section 3.2, after Press et al. 2022) and
ours; the others are here to compare with other people's figures.

In the drawings a document has ten tokens 0…9, the context is L = 6, the stride S = 2 and there is no BOS:
``s`` a token that is scored, ``.`` one that is only read. With a BOS in front of every window, the window
holds L − 1 tokens of the document, and its first token is scored too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

PROTOCOLS = ("sliding", "window-mean", "overlap", "truncate")


@dataclass(frozen=True)
class Window:
    """Tokens ``start`` … ``stop − 1`` of a document are read; the last ``scored`` of them are scored."""

    start: int
    stop: int
    scored: int

    @property
    def first_scored(self) -> int:
        """The document position of the first token scored here."""
        return self.stop - self.scored


class Windows(Sequence[Window]):
    """``size`` windows, each computed when it is asked for: a long document has hundreds of thousands."""

    def __init__(self, size: int, make: Callable[[int], Window]) -> None:
        self._size, self._make = size, make

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, at: int) -> Window: ...
    @overload
    def __getitem__(self, at: slice) -> list[Window]: ...
    def __getitem__(self, at: int | slice) -> Window | list[Window]:
        if isinstance(at, slice):
            return [self._make(i) for i in range(*at.indices(self._size))]
        if not -self._size <= at < self._size:
            raise IndexError(at)
        return self._make(at % self._size)


def windows(protocol: str, n: int, context: int, stride: int, bos: bool) -> Windows:
    """The windows of a document of ``n`` tokens under a protocol of `PROTOCOLS`.

    n: tokens of the document, >= 0.  context: L, tokens that the model sees, a BOS included.
    stride: S, tokens, 1 <= S < the document tokens in a window.  bos: does a BOS stand in front of each?
    A document shorter than the window gives one short window; of nothing to score, none.
    Raises ValueError for an unknown protocol, or a stride that does not fit.
    """
    room = context - bos
    if not 1 <= stride < room:
        raise ValueError(f"stride {stride} must be at least 1 and below the {room} tokens in a window")
    if n + bos < 2:
        return Windows(0, lambda i: Window(0, 0, 0))
    if protocol not in PROTOCOLS:
        raise ValueError(f"no protocol {protocol!r}; choose one of {', '.join(PROTOCOLS)}")
    make = {"sliding": sliding, "window-mean": window_mean, "overlap": overlap, "truncate": truncate}
    return make[protocol](n, room, stride, 0 if bos else 1)


def sliding(n: int, room: int, stride: int, unseen: int) -> Windows:
    """Every token once, each after the first window with at least L − S tokens before it.

        token     0 1 2 3 4 5 6 7 8 9
        window 1  . s s s s s              the first token has nothing before it (with BOS it is scored)
        window 2      . . . . s s
        window 3          . . . . s s      perplexity = exp(sum of all losses / number of tokens)

    The last window is moved left so that it is full: its few new tokens see more, never less.
    room: document tokens in a window.  unseen: 1 when the first token cannot be scored, else 0.
    """
    ends = range(room, n, stride)

    def make(i: int) -> Window:
        if i == 0:
            return Window(0, min(room, n), min(room, n) - unseen)
        stop = min(ends[i - 1] + stride, n)
        return Window(stop - room, stop, stop - ends[i - 1])

    return Windows(1 + len(ends), make)


def window_mean(n: int, room: int, stride: int, unseen: int) -> Windows:
    """The same tokens, but perplexity = exp(mean over *windows* of each window's mean loss).

        token     0 1 2 3 4 5 6 7 8        (nine tokens, to show the last window)
        window 1  . s s s s s              5 tokens, weight 1/3
        window 2      . . . . s s          2 tokens, weight 1/3
        window 3          . . . . s        1 token,  weight 1/3; starts at a multiple of S, so it is short

    As in jquesnelle/yarn eval/perplexity.py, and copied into EasyContext and LongRoPE.
    """
    ends = range(room, n, stride)

    def make(i: int) -> Window:
        if i == 0:
            return Window(0, min(room, n), min(room, n) - unseen)
        stop = min(ends[i - 1] + stride, n)
        return Window(ends[i - 1] + stride - room, stop, stop - ends[i - 1])

    return Windows(1 + len(ends), make)


def overlap(n: int, room: int, stride: int, unseen: int) -> Windows:
    """Every token of every full window, so that most are scored L/S times, with 0 … L − 1 tokens before.

        token     0 1 2 3 4 5 6 7 8 9
        window 1  . s s s s s
        window 2      . s s s s s
        window 3          . s s s s s      perplexity = exp(sum of all losses / number of scores)

    As in dvlab-research/LongLoRA eval.py and LCEG (there over one stream without document borders).
    The value is the mean over contexts 0 … L, not that at context L.
    """
    if n < room:
        return truncate(n, room, stride, unseen)
    starts = range(0, n - room + 1, stride)
    return Windows(len(starts), lambda i: Window(starts[i], starts[i] + room, room - unseen))


def truncate(n: int, room: int, stride: int, unseen: int) -> Windows:
    """One window: the document's first L tokens, all scored; the rest of the document is not read.

        token     0 1 2 3 4 5 6 7 8 9
        window 1  . s s s s s              perplexity = exp(sum of all losses / number of tokens)

    As with `--truncate` of jquesnelle/yarn, behind most published proof-pile curves.
    """
    del stride  # a single window has no stride
    return Windows(1, lambda i: Window(0, min(room, n), min(room, n) - unseen))
