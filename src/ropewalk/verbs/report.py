"""VERB report: results files -> one page, Markdown, CSV and LaTeX tables, figures. Imports no torch."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import console
from ..board import PROGRESS, read_board
from ..errors import UserError
from ..files import fingerprint, locked, new_directory, require_ours, write_record
from ..settings import option, to_record, verb
from ..starving import require_room

EXAMPLE = "ropewalk report results --out report"


@dataclass(frozen=True)
class Report:
    """Show results: a page that opens from disk, Markdown, CSV and LaTeX tables, SVG and PNG figures.

    Several models stand side by side; what was not run is said; figures under different conditions are
    marked. With --watch the report is made anew as results appear, until Ctrl-C; while `ropewalk run` or
    `evaluate` makes them, it says how far they are: step, share, time left, training loss so far.
    """

    results: tuple[str, ...] = option(help="results files, or directories of them", positional=True)
    out: Path = option(help="directory of the report; replaced as a whole")
    title: str | None = option(None, help="title of the page (default: a general one)")
    card: tuple[str, ...] = option(
        (), help="also put the results into the model cards of these checkpoints, where they are theirs"
    )
    watch: bool = option(False, help="keep going: make the report anew as results appear")
    every: int = option(5, help="with --watch: seconds between two looks")


@verb(Report)
def report(settings: Report) -> dict[str, Any]:
    """Write the report; {"out", "page", "files", "verdict"}."""
    if settings.every < 1:
        raise UserError(f"--every {settings.every} is below 1 second; name 1 or more")
    require_ours(settings.out, "report")
    require_room("drawing figures", files=24, space=64 << 30)  # V8's and its threads'
    with locked(settings.out):
        if not settings.watch:
            return _finish(_make(settings, None), settings)
        return _watch(settings)


def _make(settings: Report, refresh: int | None, board: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read everything, then write the directory beside and put it in place.

    board: how far a run is, shown first; with it, a page is written also where there are no results yet.
    """
    from ..results.card import add_results
    from ..results.collection import collect
    from ..results.live_section import live
    from ..results.page import write_report, write_waiting
    from ..results.record import find_results, read_result

    now = live(board) if board else None
    paths = find_results([Path(place) for place in settings.results]) if not now or _state(settings) else []
    found = collect((path, read_result(path)) for path in paths) if paths else None
    with new_directory(settings.out, "report") as beside:
        verdict = None
        if found is not None:
            verdict = write_report(found, beside, settings.title, refresh, now)
        elif now is not None:
            write_waiting(now, beside, settings.title, settings.every)
        record = {"verb": "report", "settings": to_record(settings), "verdict": verdict}
        write_record(beside, {**record, "fingerprint": fingerprint(record)})
    if found is not None and refresh is None:
        for directory in settings.card:
            if add_results(Path(directory), found):
                console.say(f"results put into the model card of {directory}")
    return {"verdict": verdict, "files": len(paths)}


def _finish(made: dict[str, Any], settings: Report) -> dict[str, Any]:
    page = settings.out / "report.html"
    console.say(made["verdict"]["sentence"])
    console.say(f"report of {made['files']:,} results files: {page}")
    return {"out": str(settings.out), "page": str(page), **made}


def _watch(settings: Report) -> dict[str, Any]:
    """Make the report whenever results or progress change; Ctrl-C makes it once more, without either.

    Between two steps or tenths of one, at most a tenth of the time goes into new pages: the run has the rest.
    """
    seen: Any = None
    told, rest, said = "", 0.0, False
    console.say(f"watching {', '.join(settings.results)}; Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            files, board = _state(settings), _board(settings)
            now, before = (files, board), told
            told = _tell(board, told)
            new = seen is None or files != seen[0] or told != before
            if (files or board) and (new or (now != seen and time.monotonic() >= rest)):
                started = time.monotonic()
                made = _make_if_whole(settings, board)
                rest = time.monotonic() + 10 * (time.monotonic() - started)
                if made is not None:
                    if made["verdict"] and (seen is None or files != seen[0]):
                        console.say(f"{made['files']:,} results files: {made['verdict']['sentence']}")
                    seen = now
            elif not said and not files:
                said = True
                console.say("no results yet; waiting")
            time.sleep(settings.every)
    if not _state(settings):
        console.say("no results appeared")
        return {"out": str(settings.out), "page": None, "files": 0, "verdict": None}
    return _finish(_make(settings, None), settings)


def _make_if_whole(settings: Report, board: dict[str, Any] | None) -> dict[str, Any] | None:
    """The report, or None while a results file cannot be read (it is said and tried again)."""
    try:
        return _make(settings, settings.every, board)
    except UserError as error:
        console.say(f"not yet: {error}")
        return None


def _board(settings: Report) -> dict[str, Any] | None:
    """How far the run is that makes these results, if it says so: in their directory, or the one above."""
    for place in map(Path, settings.results):
        directory = place if place.is_dir() else place.parent
        for candidate in (directory, directory.parent):
            found = read_board(candidate / PROGRESS)
            if found is not None:
                return found
    return None


def _tell(board: dict[str, Any] | None, told: str) -> str:
    """Say how far the run is where that has changed: a line for each step and each tenth of its work."""
    from ..results.live_section import sentence

    if board is None:
        return ""
    share = int(10 * board["done"] / board["total"]) if board["done"] and board["total"] else 0
    mark = f"{board['step']} {board['title']} {share} {board['alive']}"
    if mark != told:
        console.say(sentence(board))
    return mark


def _state(settings: Report) -> dict[str, tuple[int, int]]:
    """Size and time of change of every results file there is now."""
    from ..results.record import find_results

    places = [Path(place) for place in settings.results if Path(place).exists()]
    try:
        paths = find_results(places) if places else []
    except UserError:
        return {}
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            found[str(path)] = (stat.st_size, stat.st_mtime_ns)
    return found
