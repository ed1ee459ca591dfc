"""VERB report: results files -> one page, Markdown, CSV and LaTeX tables, figures. Imports no torch."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import console
from ..errors import UserError
from ..files import fingerprint, locked, new_directory, require_ours, write_record
from ..settings import option, to_record, verb

EXAMPLE = "ropewalk report results --out report"


@dataclass(frozen=True)
class Report:
    """Show results: a page that opens from disk, Markdown, CSV and LaTeX tables, SVG and PNG figures.

    Several models stand side by side; what was not run is said; figures under different conditions are
    marked. With --watch the report is made anew whenever results appear, until Ctrl-C.
    """

    results: tuple[str, ...] = option(help="results files, or directories of them", positional=True)
    out: Path = option(help="directory of the report; replaced as a whole")
    title: str | None = option(None, help="title of the page (default: a general one)")
    watch: bool = option(False, help="keep going: make the report anew as results appear")
    every: int = option(5, help="with --watch: seconds between two looks")


@verb(Report)
def report(settings: Report) -> dict[str, Any]:
    """Write the report; {"out", "page", "files", "verdict"}."""
    if settings.every < 1:
        raise UserError(f"--every {settings.every} is below 1 second; name 1 or more")
    require_ours(settings.out)
    with locked(settings.out):
        if not settings.watch:
            return _finish(_make(settings, None), settings)
        return _watch(settings)


def _make(settings: Report, refresh: int | None) -> dict[str, Any]:
    """Read everything, then write the directory beside and put it in place."""
    from ..results.collection import collect
    from ..results.page import write_report
    from ..results.record import find_results, read_result

    paths = find_results([Path(place) for place in settings.results])
    found = collect((path, read_result(path)) for path in paths)
    with new_directory(settings.out) as beside:
        verdict = write_report(found, beside, settings.title, refresh)
        record = {"verb": "report", "settings": to_record(settings), "verdict": verdict}
        write_record(beside, {**record, "fingerprint": fingerprint(record)})
    return {"verdict": verdict, "files": len(paths)}


def _finish(made: dict[str, Any], settings: Report) -> dict[str, Any]:
    page = settings.out / "report.html"
    console.say(made["verdict"]["sentence"])
    console.say(f"report of {made['files']:,} results files: {page}")
    return {"out": str(settings.out), "page": str(page), **made}


def _watch(settings: Report) -> dict[str, Any]:
    """Make the report whenever the results files change; Ctrl-C makes it once more, without reloading."""
    seen: dict[str, tuple[int, int]] | None = None
    console.say(f"watching {', '.join(settings.results)}; Ctrl-C ends it")
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            now = _state(settings)
            if now and now != seen:
                made = _make_if_whole(settings)
                if made is not None:
                    seen = now
                    console.say(f"{made['files']:,} results files: {made['verdict']['sentence']}")
            elif seen is None and not now:
                seen = {}
                console.say("no results yet; waiting")
            time.sleep(settings.every)
    if not _state(settings):
        console.say("no results appeared")
        return {"out": str(settings.out), "page": None, "files": 0, "verdict": None}
    return _finish(_make(settings, None), settings)


def _make_if_whole(settings: Report) -> dict[str, Any] | None:
    """The report, or None while a results file cannot be read (it is said and tried again)."""
    try:
        return _make(settings, settings.every)
    except UserError as error:
        console.say(f"not yet: {error}")
        return None


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
