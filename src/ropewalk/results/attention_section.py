"""The report's section on attention scores past the window: one figure a head, raw beside interpolated."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import plots
from .collection import Collection, Series, number
from .phrasing import clean, count, figure, percent
from .plots import Figure
from .section import Section, notes, record, slug
from .style import Slots
from .tables import Table

DRAWN_HEADS = 4
"""Heads that have a figure; the table has all."""
Rows = list[dict[str, Any]]


class Head(NamedTuple):
    """One head of one model: its curves by name, the raw one first, and the trained window L."""

    series: Series
    name: str
    curves: dict[str, Rows]
    window: int


def attention(found: Collection, slots: Slots) -> Section | None:
    """Attention scores by distance: why raw positions past the window break a model."""
    del slots  # the lines are readings of one head, not models
    series = found.of("attention").get("", [])
    if not series:
        return None
    heads = [head for one in series for head in _heads(one)]
    several = len({s.model.key for s in series}) > 1
    table = _table(heads, series, several)
    figures = [
        _figure(head, number_, several, table if number_ == 1 else None)
        for number_, head in enumerate(_drawn(heads), 1)
    ]
    lead = (
        "A head looks for what it needs by giving every earlier token a score. Shown is what one head gives "
        "to the same content at growing distance: with positions as they are, and interpolated. Scores that "
        "it never gave in training drown the others, and the model loses the thread."
    )
    return Section("attention", "Attention scores past the window", lead, figures, [table])


def _heads(one: Series) -> list[Head]:
    """A series' heads; rows that name none are one."""
    grouped: dict[str, dict[str, Rows]] = {}
    for row in one.rows:
        layer, head = number(row.get("layer")), number(row.get("head"))
        known = layer is not None and head is not None
        name = f"layer {layer:g} head {head:g}" if known else ""
        curve = clean(row.get("series", "")).removeprefix(f"{name}, ") or "score"
        grouped.setdefault(name, {}).setdefault(curve, []).append(row)
    window = int(one.model.original_window or one.model.window or 0)
    return [Head(one, name, curves, window) for name, curves in grouped.items()]


def _drawn(heads: list[Head]) -> list[Head]:
    """All heads of the first model, then the first of each other, as far as there is room."""
    first = heads[0].series
    others = {id(head.series): head for head in reversed(heads) if head.series is not first}
    own = [head for head in heads if head.series is first]
    return [*own[: DRAWN_HEADS - min(1, len(others))], *reversed(others.values())][:DRAWN_HEADS]


def _ends(rows: Rows, window: int, past: bool) -> tuple[float, float] | None:
    """Lowest and highest score at distances below the window, or from it on."""
    scores = [row["score"] for row in rows if (row["distance"] >= window) == past]
    return (min(scores), max(scores)) if scores else None


def _said(ends: tuple[float, float] | None) -> str:
    return "–" if ends is None else f"{figure(ends[0])} to {figure(ends[1])}"


def _title(head: Head, several: bool) -> str:
    named = head.name[:1].upper() + head.name[1:] or "Attention scores by distance"
    return f"{named}: {clean(head.series.model.label)}" if several else named


def _table(heads: list[Head], series: list[Series], several: bool) -> Table:
    rows = []
    for head in heads:
        for name, curve in head.curves.items():
            label = ", ".join(filter(None, (head.name, name)))
            bounds = [
                (row["high"] - row["low"]) / 2
                for row in curve
                if number(row.get("low")) is not None and number(row.get("high")) is not None
            ]
            rows.append(
                [
                    f"{head.series.model.label}: {label}" if several else label,
                    count(head.window),
                    _said(_ends(curve, head.window, past=False)),
                    _said(_ends(curve, head.window, past=True)),
                    f"± {figure(max(bounds))}" if bounds else "–",
                ]
            )
    said = (
        "Lowest to highest score at distances inside the trained window L, and past it. Bound: of raw "
        "positions, the largest size a score can have at any distance; of interpolated ones, how far it can "
        "be off the line between the scores at the nearest trained distances (the corrected theorem).",
        *notes(series),
    )
    records = [record(s, row) for s in series for row in s.rows]
    columns = ["head", "L", "inside", "past", "bound"]
    return Table("attention", "Attention scores by head", columns, rows, records, said)


def _figure(head: Head, number_: int, several: bool, table: Table | None) -> Figure:
    name = "attention" if number_ == 1 else slug("attention", str(number_))
    curves = {label: plots.thin(rows) for label, rows in head.curves.items()}
    raw = next(iter(head.curves.values()))
    inside = _ends(raw, head.window, past=False)
    spec, legend = plots.attention(curves, head.window, inside)
    alt = "Line chart of one head's attention scores by distance. The extremes are in the table beneath."
    return Figure(name, _title(head, several), _words(head), alt, spec, legend, table)


def _words(head: Head) -> str:
    """What to see: how far the scores leave the range they had inside the window, in figures."""
    raw_name, raw = next(iter(head.curves.items()))
    inside, past = _ends(raw, head.window, past=False), _ends(raw, head.window, past=True)
    if inside is None or past is None:
        return "The higher a token's score, the more the head looks at it."
    words = (
        f"Up to {count(head.window)} tokens the scores stay between {figure(inside[0])} and "
        f"{figure(inside[1])}, the shaded range."
    )
    words += (
        f" Past it, {raw_name}, they run from {figure(past[0])} to {figure(past[1])}{_beyond(raw, head)}."
    )
    for name, rows in list(head.curves.items())[1:]:
        ends = _ends(rows, head.window, past=True)
        if ends is not None:
            words += (
                f" {name.capitalize()}, from {figure(ends[0])} to {figure(ends[1])}{_beyond(rows, head)}."
            )
    return words


def _beyond(rows: Rows, head: Head) -> str:
    """Says which share of the scores past the window lies outside the range inside it, and how far."""
    inside = _ends(next(iter(head.curves.values())), head.window, past=False)
    assert inside is not None
    past = [row["score"] for row in rows if row["distance"] >= head.window]
    beyond = [max(inside[0] - score, score - inside[1]) for score in past]
    outside = [excess for excess in beyond if excess > 0]
    if not outside:
        return ", all within it"
    return f", {percent(len(outside) / len(past))} of them outside it by up to {figure(max(outside))}"
