"""What goes on now: the first section of a page that is watched while a run makes its results."""

from __future__ import annotations

from typing import Any

from ..console import clock
from . import plots
from .phrasing import clean, count, figure
from .plots import Figure
from .section import Section
from .tables import Table

GONE = "Nothing goes on any more: the process ended without clearing up. The same command goes on from there."


def live(board: dict[str, Any]) -> Section:
    """The section that a board (see `ropewalk.board.read_board`) asks for."""
    tables = [_steps(board)] if board["steps"] else []
    figures = []
    if len(board["curve"]) > 1:
        spec, legend = plots.so_far(board["curve"])
        caption = (
            f"Loss on the training text so far: {figure(board['curve'][0][1])} in the first step shown, "
        )
        caption += (
            f"{figure(board['curve'][-1][1])} in the last. It should sink quickly at first, then slowly."
        )
        alt = f"Line chart of the training loss so far. {caption}"
        figures.append(Figure("loss-so-far", "Training loss so far", caption, alt, spec, legend))
    return Section("now", "Going on now", sentence(board), figures, tables)


def sentence(board: dict[str, Any]) -> str:
    """How far it is, in words: the step, its share, rate and time left."""
    if not board["alive"]:
        return GONE
    parts = []
    step, steps = board["step"], board["steps"]
    if step is not None and 1 <= step <= len(steps):
        parts.append(f"Step {count(step)} of {count(len(steps))}, {clean(steps[int(step) - 1])}.")
    if board["title"]:
        parts.append(_work(board))
    return " ".join(parts) or "A run has begun."


def _work(board: dict[str, Any]) -> str:
    done, total, rate, left = (board[key] for key in ("done", "total", "rate", "left"))
    text = clean(board["title"])
    if done is not None and total:
        text += f": {count(done)} of {count(total)} {clean(board['unit'] or '')} ({100 * done / total:.0f} %)"
    if rate:
        text += f", {figure(rate)} a second"
    if left is not None and left >= 0:
        text += f", about {clock(left)} left for this step"
    return text + (f" ({clean(board['note'])})." if board["note"] else ".")


def _steps(board: dict[str, Any]) -> Table:
    now = int(board["step"] or 0)
    state = {True: "done", False: "to do"}
    rows = [
        [str(number), clean(text), "now" if number == now else state[number < now]]
        for number, text in enumerate(board["steps"], 1)
    ]
    records = [dict(zip(("number", "step", "state"), row)) for row in rows]
    return Table("steps", "Steps of the run", ["", "step", "state"], rows, records)
