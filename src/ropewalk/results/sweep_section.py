"""The report's section on methods that were compared without training: one figure and one ranked table."""

from __future__ import annotations

import dataclasses
from typing import Any

from . import plots
from .collection import Collection, Series, number
from .phrasing import between, clean, count, figure, listed
from .plots import Figure
from .section import Section, notes, of_group, record, slug
from .style import DRAWN, SERIES, Slots
from .tables import Table


def sweep(found: Collection, slots: Slots) -> Section | None:
    """Perplexity by position and passkeys of each method and factor, a figure and a table for each model."""
    del slots  # the lines are methods of one model, not models
    figures, tables = [], []
    series = found.of("sweep").get("", [])
    several = len({(s.model.key, _target(s)) for s in series}) > 1
    for one in series:
        if not any("perplexity" in row for row in one.rows):
            continue
        who = f"{one.model.label} to {count(_target(one))}" if several else ""
        name, title = slug("sweep", who), of_group("Methods without training", who)
        table = _table(name, title, one)
        figures.append(_figure(name, title, one, table))
        tables.append(table)
    if not tables:
        return None
    lead = (
        "The same weights under each method and factor, before any fine-tuning. It says what a method is "
        "worth as it stands; a method that starts worse may still end better after a short training."
    )
    return Section("sweep", "Methods without training", lead, figures, tables)


def _label(row: dict[str, Any]) -> str:
    """``yarn ×4``; a method without a factor by its name alone."""
    method, factor = clean(row.get("method")), number(row.get("factor"))
    return method if method == "none" or factor is None else f"{method} ×{factor:g}"


def _by_label(one: Series) -> dict[str, list[dict[str, Any]]]:
    """Rows of each method and factor, the best first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in one.rows:
        found.setdefault(_label(row), []).append(row)
    ranking = one.summary.get("ranking")
    ranked = [_label(r) for r in ranking if isinstance(r, dict)] if isinstance(ranking, list) else []
    order = [label for label in ranked if label in found]
    return {label: found[label] for label in dict.fromkeys([*order, *found])}


def _target(one: Series) -> int:
    """L' of a sweep: the end of its last positions."""
    return int(max(number(row.get("to")) or 0 for row in one.rows))


def _table(name: str, title: str, one: Series) -> Table:
    places = sorted({(r["from"], r["to"]) for r in one.rows if "perplexity" in r})
    lengths = sorted({r["length"] for r in one.rows if "length" in r})
    overall = {_label(r): r for r in one.summary.get("ranking", []) if isinstance(r, dict)}
    rows = []
    for label, mine in _by_label(one).items():
        at = {(r["from"], r["to"]): r for r in mine if "perplexity" in r}
        keys = {r["length"]: r for r in mine if "length" in r}
        cells = [_value(overall.get(label)), *(_value(at.get(place)) for place in places)]
        rows.append([label, *cells, *(_found(keys.get(length)) for length in lengths)])
    columns = ["method", "perplexity", *(f"{count(a)}–{count(b)}" for a, b in places)]
    columns += [f"passkeys at {count(n)}" for n in lengths]
    said = (
        f"Best first, by perplexity over all positions of windows of {count(_target(one))} tokens; then by "
        "position in the window, with 95 % intervals over documents. Passkeys: the key stands at the start "
        "of prompts of that length.",
        *notes([one]),
    )
    return Table(name, title, columns, rows, [record(one, row) for row in one.rows], said)


def _value(row: dict[str, Any] | None) -> str:
    if row is None or number(row.get("perplexity")) is None:
        return "–"
    interval = between(row.get("low"), row.get("high"))
    return figure(row["perplexity"]) + (f" ({interval})" if interval else "")


def _found(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{count(row['right'])} of {count(row['n'])}"


def _figure(name: str, title: str, one: Series, table: Table) -> Figure:
    """Perplexity over position: each method drawn as the report draws models."""
    drawn = list(_by_label(one).items())[:DRAWN]
    slots = Slots(dict(zip([label for label, _ in drawn], SERIES)), models=False)
    lines = [
        dataclasses.replace(
            one,
            model=dataclasses.replace(one.model, label=label, key=label),
            rows=[{**row, "context": row["to"]} for row in mine if "perplexity" in row],
            mark="",
        )
        for label, mine in drawn
    ]
    spec, legend = plots.perplexity(lines, slots, one.model.window, _target(one))
    best = [label for label, _ in drawn[:2]]
    caption = (
        f"Each mark is the perplexity of the tokens between the mark before it and this position. Best over "
        f"all positions: {listed(best)}."
    )
    if len(_by_label(one)) > DRAWN:
        caption += f" The figure shows the best {DRAWN} of {len(_by_label(one))}; the CSV has all."
    alt = "Line chart of perplexity by position, one line a method. The values are in the table beneath."
    return Figure(name, title, caption, alt, spec, legend, table)
