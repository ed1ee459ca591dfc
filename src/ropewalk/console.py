"""What people see in the terminal: lines, tables that fit 80 columns, progress with rate and time left.

Human text goes to standard output, or to standard error while a machine reads the JSON (`--json`).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from . import board

_stream: TextIO | None = None


@contextlib.contextmanager
def on_stderr() -> Iterator[None]:
    """Inside, human text goes to standard error: standard output is for the JSON alone."""
    global _stream
    before, _stream = _stream, sys.stderr
    try:
        yield
    finally:
        _stream = before


def silence() -> None:
    """Say nothing from now on: of several processes that do one work, one speaks."""
    global _stream
    _stream = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def stream() -> TextIO:
    """Where human text goes."""
    return _stream or sys.stdout


def harmless(text: str) -> str:
    """Text in which nothing commands the terminal and all can be encoded, whatever file it came from."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def say(text: str) -> None:
    """Print one line of plain text."""
    print(harmless(text), file=stream(), flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(harmless(title)), box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.title_justify, drawn.title_style = "left", "bold"
    for i, name in enumerate(columns):
        drawn.add_column(Text(harmless(name)), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(harmless(str(cell))) for cell in row))
    width = None if stream().isatty() else 80
    Console(file=stream(), width=width, highlight=False).print(drawn)


class Progress:
    """How far a long work is; ``advance`` it as units finish. It says so on the open board too."""

    def __init__(self, title: str, total: float, unit: str, done: float = 0) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self.started_at = done
        self.note = ""
        self.start = self._last = time.monotonic()
        self._tty = stream().isatty()
        self._board = board.current()
        if self._board is not None:
            self._board.begin(**self._facts())

    def advance(self, amount: float = 1, note: str = "", point: tuple[float, float] | None = None) -> None:
        """Say that ``amount`` more units are done; ``note`` stands behind the numbers.

        point: one more of the curve that this work draws, such as (step, loss).
        """
        self.done += amount
        self.note = note or self.note
        if self._board is not None:
            if point is not None:
                self._board.point(*point)
            self._board.tell(**self._facts())
        now = time.monotonic()
        if now - self._last >= (0.2 if self._tty else 15) or (self._tty and self.done >= self.total):
            self._last = now
            self._show()

    def _facts(self) -> dict[str, Any]:
        spent = time.monotonic() - self.start
        rate = (self.done - self.started_at) / spent if spent > 0 else 0.0
        facts = {"title": self.title.strip(), "done": self.done, "total": self.total, "unit": self.unit}
        left = (self.total - self.done) / rate if rate else None
        return {**facts, "rate": rate, "left": left, "note": self.note}

    def line(self) -> str:
        """``title 12/40 windows 30% 3.1/s, 0:09 left, note``"""
        spent = time.monotonic() - self.start
        rate = (self.done - self.started_at) / spent if spent > 0 else 0.0
        share = 100 * self.done / self.total if self.total else 100.0
        left = f"{clock((self.total - self.done) / rate)} left" if rate else "…"
        text = f"{self.title} {self.done:,.0f}/{self.total:,.0f} {self.unit} {share:.0f}% "
        text += f"{rate:,.0f}/s, {left}" if rate >= 10 else f"{rate:.2g}/s, {left}"
        return harmless(f"{text}, {self.note}" if self.note else text)

    def _show(self, end: str = "") -> None:
        if self._tty:
            print(f"\r\x1b[2K{self.line()[:110]}", end=end, file=stream(), flush=True)
        else:
            print(self.line(), file=stream(), flush=True)

    def close(self) -> None:
        """Leave the line as it stands (on a terminal it is cleared: the result follows)."""
        if self._tty:
            print("\r\x1b[2K", end="", file=stream(), flush=True)
        if self._board is not None:
            self._board.begin(title=None, note=None, left=None)


@contextlib.contextmanager
def progress(title: str, total: float, unit: str, done: float = 0) -> Iterator[Progress]:
    """Progress of a work of ``total`` units of which ``done`` were done by an earlier run."""
    shown = Progress(title, total, unit, done)
    try:
        yield shown
    finally:
        shown.close()


def clock(seconds: float) -> str:
    """``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
