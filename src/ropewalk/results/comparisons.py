"""Sections beyond the paper's two tests: benchmarks, RULER, summarization, and the rest."""

from __future__ import annotations

import math
from typing import Any

from ..metrics.accuracy import paired_difference
from . import plots
from .collection import FORMS, Collection, Series, number
from .phrasing import between, clean, count, figure, percent, plain
from .plots import Figure
from .section import Section, left_out, notes, record, slug
from .style import Slots
from .tables import Table

Z = 1.959963984540054
"""Standard errors in half of a 95 % interval."""


def benchmark(found: Collection, slots: Slots) -> Section | None:
    """Accuracy on short tasks: what lengthening cost inside the old window, as differences."""
    series = found.of("benchmark").get("", [])
    if not series:
        return None
    tasks = list(dict.fromkeys(_task(row) for s in series for row in s.rows))
    base = next((s for s in series if found.baseline and s.model.key == found.baseline.key), None)
    rows = []
    for s in series:
        mine = {_task(row): row for row in s.rows}
        rows.append([s.label, *(_accuracy(mine.get(task)) for task in tasks)])
    said = ("Accuracy with its 95 % interval.", *_cut_at(series), *notes(series))
    records = [record(s, row) for s in series for row in s.rows]
    tables = [Table("benchmark", "Benchmarks", ["model", *tasks], rows, records, said)]
    figures = []
    changes = [
        c for s in series if base and s is not base and s.mark == base.mark for c in differences(base, s)
    ]
    if base and changes:
        table = _difference_table(base, changes)
        tables.append(table)
        drawn = [c for c in changes if c["model"] in slots.by_label]
        if drawn:
            spec, legend = plots.dots(
                drawn, slots, f"accuracy against {base.model.label}", zero=True, share=True
            )
            caption = (
                "Each mark is the change of accuracy against the model before; its line is the 95 % "
                "interval. A line "
                "that crosses zero is no difference that this test can see." + left_out(series, slots)
            )
            alt = "Differences of benchmark accuracy with intervals. The values are in the table beneath."
            figures.append(Figure("benchmark", "Change on benchmarks", caption, alt, spec, legend, table))
    lead = "Tasks that fit into the old window: what the longer window cost there."
    return Section("benchmark", "Benchmarks inside the old window", lead, figures, tables)


def differences(base: Series, other: Series) -> list[dict[str, Any]]:
    """Accuracy of ``other`` less that of ``base``, a task each, with a 95 % interval.

    Paired over the questions where both files list their answers to the same number of them, else from both
    standard errors as if the questions were different ones, which is wider.
    """
    theirs = {_task(row): row for row in base.rows}
    found = []
    for row in other.rows:
        before = theirs.get(_task(row))
        if before is None:
            continue
        change, low, high, paired = _change(before, row)
        found.append(
            {
                "model": other.model.label,
                "task": _task(row),
                "before": before["accuracy"],
                "after": row["accuracy"],
                "y": change,
                "low": low,
                "high": high,
                "n": number(row.get("n")),
                "paired": paired,
            }
        )
    return found


def _change(before: dict[str, Any], after: dict[str, Any]) -> tuple[float, float | None, float | None, bool]:
    """(difference of the accuracies, its 95 % interval, whether it is paired)."""
    a, b = before.get("items"), after.get("items")
    if isinstance(a, str) and isinstance(b, str) and len(a) == len(b) > 0 and not set(a + b) - {"0", "1"}:
        return (*paired_difference(a, b), True)
    change = after["accuracy"] - before["accuracy"]
    errors = [_standard_error(row) for row in (before, after)]
    if errors[0] is None or errors[1] is None:
        return change, None, None, False
    half = Z * math.hypot(errors[0], errors[1])
    return change, change - half, change + half, False


def _standard_error(row: dict[str, Any]) -> float | None:
    found = number(row.get("standard_error"))
    return number(row.get("stderr")) if found is None else found


def _difference_table(base: Series, changes: list[dict[str, Any]]) -> Table:
    rows = [
        [
            f"{c['task']}: {c['model']}",
            f"{100 * c['before']:.1f}",
            f"{100 * c['after']:.1f}",
            f"{100 * c['y']:+.1f}".replace("-", "−"),
            "–" if c["low"] is None else f"{100 * c['low']:+.1f} to {100 * c['high']:+.1f}".replace("-", "−"),
            count(c["n"]),
        ]
        for c in changes
    ]
    kinds = {c["paired"] for c in changes}
    how = {True: "paired over the same questions", False: "from both standard errors"}
    intervals = " or ".join(how[kind] for kind in sorted(kinds))
    said = f"In points of accuracy, against {base.model.label}; intervals {intervals}."
    records = [{**c, "difference": c["y"]} for c in changes]
    for one in records:
        one.pop("y")
    columns = ["task and model", "before", "after", "change", "95 % interval", "n"]
    return Table("benchmark-differences", "Change on benchmarks", columns, rows, records, (said,))


def ruler(found: Collection, slots: Slots) -> Section | None:
    """RULER scores by length: the mean over tasks in figure and table, every task in the CSV."""
    series = found.of("ruler").get("", [])
    if not series:
        return None
    lengths = sorted({row["length"] for s in series for row in s.rows})
    uneven = len({frozenset(_fitting(s, length)) for s in series for length in lengths} - {frozenset()}) > 1
    rows, points = [], []
    for s in series:
        cells = []
        for length in lengths:
            here = [row for row in s.rows if row["length"] == length]
            if not here:
                cells.append("–")
                continue
            mean = sum(row["score"] for row in here) / len(here)
            alone = here[0] if len(here) == 1 else {}
            n = sum(int(number(row.get("n")) or 0) for row in here)
            more = [f"n {count(n)}"] if n else []
            more += [f"tasks {len(here)}"] if uneven else []
            cells.append(figure(mean) + (f" ({', '.join(more)})" if more else ""))
            point = {"x": length, "y": mean, "n": n or None, "model": s.model.label}
            points.append({**point, "low": number(alone.get("low")), "high": number(alone.get("high"))})
        rows.append([s.label, count(s.model.window), *cells])
    tasks = {_task(row) for s in series for row in s.rows}
    over = f"{'those that fit of ' if uneven else ''}{len(tasks)} task{'s'[: len(tasks) > 1]}"
    said = (
        f"Mean over {over}; each task with its interval is in the CSV.",
        *_unfit(series),
        *notes(series),
    )
    records = [record(s, row) for s in series for row in s.rows]
    table = Table("ruler", "RULER by length", ["model", "window", *map(count, lengths)], rows, records, said)
    drawn = [p for p in points if p["model"] in slots.by_label]
    spec, legend = plots.by_length(drawn, slots, "mean score")
    caption = (
        "A line that stays level uses its whole window; where it drops, the text is too long for the model."
    )
    if uneven:
        caption += " Not every point is the mean of the same tasks; the table says how many."
    alt = "Line chart of RULER scores by length. The values are in the table beneath."
    shown = Figure("ruler", "RULER by length", caption + left_out(series, slots), alt, spec, legend, table)
    return Section(
        "ruler", "RULER by length", "Synthetic tasks of many kinds at growing lengths.", [shown], [table]
    )


def _fitting(series: Series, length: float) -> list[str]:
    """The tasks that have a score at one length."""
    return [_task(row) for row in series.rows if row["length"] == length]


def _unfit(series: list[Series]) -> list[str]:
    """Says which tasks were left out at which length, as they do not fit: models in like case together."""
    found: dict[str, dict[float, list[str]]] = {}
    for s in series:
        left = s.summary.get("left_out")
        for one in left if isinstance(left, list) else []:
            length = number(one.get("length")) if isinstance(one, dict) else None
            if length is not None:
                found.setdefault(s.label, {}).setdefault(length, []).append(_task(one))
    said: dict[str, list[str]] = {}
    for label, by_length in found.items():
        places = [f"at {count(length)} {', '.join(tasks)}" for length, tasks in sorted(by_length.items())]
        said.setdefault("; ".join(places), []).append(label)
    return [
        f"Left out, as they do not fit ({', '.join(labels[:8])}): {places}."
        for places, labels in list(said.items())[:8]
    ]


def summarization(found: Collection, slots: Slots) -> Section | None:
    """ROUGE and the like, with intervals, for each window that the documents were cut to."""
    series = found.of("summarization").get("", [])
    if not series:
        return None
    metrics = list(dict.fromkeys(_task(row) for s in series for row in s.rows))
    rows, points = [], []
    for s in series:
        windows = sorted({_read(s, row) for row in s.rows})
        for window in windows:
            mine = {_task(row): row for row in s.rows if _read(s, row) == window}
            n = [int(row["n"]) for row in mine.values() if number(row.get("n"))]
            cells = [_score(mine.get(metric)) for metric in metrics]
            rows.append([s.label, count(window), *cells, count(max(n)) if n else "–"])
            if window == windows[-1] and s.model.label in slots.by_label and not s.mark:
                points += [{"task": task, "model": s.model.label, **_dot(row)} for task, row in mine.items()]
    said = (
        "Read: tokens that a document was cut to. Scores with their 95 % intervals; n: documents.",
        *notes(series),
    )
    records = [{**record(s, row), "read": number(row.get("window"))} for s in series for row in s.rows]
    table = Table("summarization", "Summarization", ["model", "read", *metrics, "n"], rows, records, said)
    figures = []
    if points:
        spec, legend = plots.dots(points, slots, "score", zero=False, share=False)
        caption = (
            "Further right is better; lines are 95 % intervals, and where they overlap the order is "
            "not sure. Each model reads as much as its window holds."
        )
        alt = "Summarization scores with intervals. The values are in the table beneath."
        figures.append(Figure("summarization", "Summarization scores", caption, alt, spec, legend, table))
    lead = "Long documents are summarized and compared with summaries that people wrote."
    return Section("summarization", "Summarization of long documents", lead, figures, [table])


def _read(series: Series, row: dict[str, Any]) -> float:
    """How much of a document was read, tokens."""
    return number(row.get("window")) or series.model.window or 0


def _score(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    interval = between(row.get("low"), row.get("high"))
    return figure(row["score"]) + (f" ({interval})" if interval else "")


def _dot(row: dict[str, Any]) -> dict[str, Any]:
    return {"y": row["score"], **{key: number(row.get(key)) for key in ("low", "high", "n")}}


def other(found: Collection, evaluation: str) -> Section:
    """Results of an evaluation that has no section of its own: its rows as they are."""
    assert evaluation not in FORMS
    series = found.of(evaluation).get("", [])
    records = [record(s, row) for s in series for row in s.rows]
    keys = [
        k
        for k in dict.fromkeys(k for r in records for k in r)
        if k not in ("model_hash", "window", "comparable")
    ]
    rows = [[plain(r.get(key)) for key in keys[:10]] for r in records]
    table = Table(
        slug("other", evaluation), evaluation, [clean(k) for k in keys[:10]], rows, records, notes(series)
    )
    return Section(
        slug("other", evaluation),
        evaluation.capitalize(),
        "Rows as the results files have them.",
        [],
        [table],
    )


def _task(row: dict[str, Any]) -> str:
    return clean(row.get("task") or row.get("metric") or "unnamed")


def _cut_at(series: list[Series]) -> list[str]:
    """Says where prompts were cut, when not alike."""
    windows = {s.model.label: s.protocol.get("window") for s in series[:8]}
    if len(set(map(str, windows.values()))) < 2:
        return []
    each = ", ".join(f"{label} {plain(window)}" for label, window in windows.items())
    return [f"Prompts longer than a model's window are cut to it (tokens): {each}."]


def _accuracy(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    interval = between(number(row.get("low")), number(row.get("high")), share=True)
    error = _standard_error(row)
    if not interval and error is not None:
        interval = f"± {100 * Z * error:.1f}"
    return percent(row["accuracy"]) + (f" ({interval})" if interval else "")
