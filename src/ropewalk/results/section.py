"""What a section of the report is made of, and what all sections share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .collection import MARK, Collection, Series, difference, number, references
from .phrasing import clean, listed
from .plots import Figure
from .style import DRAWN, Slots
from .tables import Table


@dataclass(frozen=True)
class Section:
    """One kind of evidence: what it measures, its figures and its tables."""

    name: str
    title: str
    lead: str
    figures: Sequence[Figure]
    tables: Sequence[Table]


@dataclass(frozen=True)
class Missing:
    """A kind of evidence for which no results are here."""

    title: str
    how: str


def slug(*parts: str) -> str:
    """A file name and anchor from names of any kind."""
    text = "-".join(parts).lower()
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:60] or "unnamed"


def of_group(title: str, group: str) -> str:
    """A title that names the group of texts, if it has a name."""
    return f"{title}: {clean(group)}" if group else title


def notes(series: Sequence[Series]) -> list[str]:
    """What must be said beneath a table: which series were measured under other conditions, and how."""
    reference = references(series)
    found = []
    for one in series:
        if one.mark:
            what = difference(one, reference) or "other conditions"
            found.append(f"{MARK} {one.model.label}: not comparable with the rows without {MARK}: {what}.")
    return found[:12]


def left_out(series: Sequence[Series], slots: Slots) -> str:
    """Says that a figure does not show every model, if so."""
    models = {s.model.label for s in series}
    drawn = models & set(slots.labels)
    if models == drawn:
        twice = len({(s.model.label, s.mark) for s in series}) > len(models)
        marked = [s.model.label for s in series if s.mark]
        if twice:
            return " The figure shows each model's comparable measurement."
        return f" {MARK} Measured under other conditions: {listed(marked[:4])}." if marked else ""
    return f" The figure shows {len(drawn)} of {len(models):,} models (at most {DRAWN}); the CSV has all."


def record(series: Series, row: dict[str, Any]) -> dict[str, Any]:
    """One CSV record: whose figure it is, then the row as the results file has it."""
    return {
        "model": series.model.label,
        "model_hash": series.model.hash,
        "window": series.model.window,
        **{key: value for key, value in row.items() if not isinstance(value, list) and "items" not in key},
        "comparable": "no" if series.mark else "yes",
    }


def best_first(found: Collection, series: Sequence[Series]) -> tuple[Series | None, Series | None]:
    """The verdict's model's series and its baseline's, both comparable, else None."""

    def one(model: Any) -> Series | None:
        return next((s for s in series if model and s.model.key == model.key and not s.mark), None)

    return one(found.subject), one(found.baseline)


def numbers(rows: Sequence[dict[str, Any]], key: str) -> list[float]:
    """A column's numbers."""
    return [value for value in (number(row.get(key)) for row in rows) if value is not None]
