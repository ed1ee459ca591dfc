"""How far a long work is, left in one small file that `report --watch` reads while the work goes on."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRESS = ".progress.json"
"""In the directory of what a running verb makes; gone when it ends."""
EVERY = 1.0
"""Seconds between two writings at least, unless something new begins."""
POINTS = 400
"""Points of a curve that are kept at most: every second one is dropped when there are more."""


class Board:
    """The file of one process. What cannot be written is left out: progress never stops a work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()}
        self.curve: list[tuple[float, float]] = []
        self._stride = self._seen = 0
        self._written = -math.inf

    def begin(self, **facts: Any) -> None:
        """Something new begins: its curve is empty, and the file says so at once."""
        self.curve, self._stride, self._seen = [], 1, 0
        self.tell(at_once=True, **facts)

    def point(self, x: float, y: float) -> None:
        """One more point of the curve of what goes on, such as (step, loss)."""
        self._seen += 1
        if math.isfinite(y) and self._seen % max(1, self._stride) == 0:
            self.curve.append((x, y))
        if len(self.curve) > POINTS:
            self.curve, self._stride = self.curve[1::2], 2 * max(1, self._stride)

    def tell(self, at_once: bool = False, **facts: Any) -> None:
        """Change what the board says."""
        self.facts.update(facts)
        now = time.monotonic()
        if not at_once and now - self._written < EVERY:
            return
        self._written = now
        text = json.dumps({**self.facts, "seen": time.time(), "curve": self.curve})
        beside = self.path.with_name(self.path.name + ".new")
        with contextlib.suppress(OSError):
            beside.write_text(text, encoding="utf-8")
            os.replace(beside, self.path)

    def remove(self) -> None:
        """The work has ended."""
        for path in (self.path, self.path.with_name(self.path.name + ".new")):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


_current: Board | None = None


def current() -> Board | None:
    """The board of this process, while one is open."""
    return _current


@contextlib.contextmanager
def published(directory: Path | str) -> Iterator[Board | None]:
    """Open a board in ``directory`` (made if need be); where one is open already it goes on being the one.

    Of several processes that do one work, the first alone has one.
    """
    global _current
    if _current is not None or os.environ.get("RANK", "0") != "0":
        yield _current
        return
    with contextlib.suppress(OSError):
        Path(directory).mkdir(parents=True, exist_ok=True)
    _current = Board(Path(directory) / PROGRESS)
    try:
        yield _current
    finally:
        _current.remove()
        _current = None


def read_board(path: Path) -> dict[str, Any] | None:
    """What a board says, each part None where it is missing or not of its kind; None without a board.

    Keys: step, steps, title, done, total, unit, rate, left, note, curve, alive.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    texts = {key: _text(found.get(key)) for key in ("title", "unit", "note")}
    numbers = {key: _number(found.get(key)) for key in ("step", "done", "total", "rate", "left")}
    steps, curve = found.get("steps"), found.get("curve")
    return {
        **texts,
        **numbers,
        "steps": [str(step)[:200] for step in steps[:200]] if isinstance(steps, list) else [],
        "curve": [
            (float(point[0]), float(point[1]))
            for point in (curve if isinstance(curve, list) else [])
            if isinstance(point, list) and len(point) == 2 and None not in map(_number, point)
        ],
        "alive": _alive(found),
    }


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18
    return value if good else None


def _alive(found: dict[str, Any]) -> bool:
    """Whether the process that wrote a board is still there; of another machine, whether it wrote of late."""
    pid, seen = found.get("pid"), _number(found.get("seen"))
    if found.get("host") != socket.gethostname() or not isinstance(pid, int) or not 0 < pid < 1 << 31:
        return seen is not None and time.time() - seen < 600
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True
