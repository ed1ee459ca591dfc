"""The figures at a glance of every model on a page, side by side."""

from __future__ import annotations

from typing import Any

from .collection import Collection, Model
from .phrasing import between, clean, count, figure, percent
from .tables import Table
from .verdict import at, cost, k_max, pooled, usable

GROUPS = 2
"""Groups of texts that have a column at most; the section on perplexity has all."""


def overview(found: Collection) -> Table | None:
    """Usable window, perplexity at the new window, passkey and cost at the old one; None for a single model.

    Everything is measured against the verdict's baseline and at the verdict's window (see `_context`).
    """
    if len(found.models) < 2:
        return None
    groups = list(found.of("perplexity"))
    target, old = _context(found), found.subject.original_window
    shown = _informative(found, target)[:GROUPS]
    rows, records = [], []
    for model in found.models:
        cells: dict[str, Any] = {"usable": count(usable(found, model))}
        for group in shown:
            name = clean(group) if len(groups) > 1 and group else "perplexity"
            cells[f"{name} at {count(target)}"] = _perplexity(found, model, group, target)
        cells |= {"k_max": count(k_max(found.get(model, "passkey"))), "passkeys": _passkeys(found, model)}
        change = cost(found, model, [clean(group) for group in groups]) if _other(found, model) else None
        cells[f"change at {count(old)}"] = percent(change["share"], signed=True) if change else "–"
        rows.append([model.label, *cells.values()])
        records.append({"model": model.label, "model_hash": model.hash, **cells})
    said = (
        "Usable: the smaller of what perplexity and passkey allow, tokens. Texts: perplexity with its 95 % "
        "interval. Passkeys: found of all prompts. Change: of perplexity inside the old window against the "
        "original. –: not measured, or not under the same conditions.",
    )
    columns = ["model", *(list(records[0])[2:])]
    return Table("overview", "Every model at a glance", columns, rows, records, said)


def _other(found: Collection, model: Model) -> bool:
    return found.baseline is not None and model.key != found.baseline.key


def _context(found: Collection) -> int | None:
    """The verdict's window; where no text was read at it, the longest context that most models have."""
    target = found.subject.window
    models: dict[int, set[str]] = {}
    for group in found.of("perplexity").values():
        for series in group:
            for row in series.rows if not series.mark else []:
                models.setdefault(int(row["context"]), set()).add(series.model.key)
    if target in models or not models:
        return target
    return max(models, key=lambda context: (len(models[context]), context))


def _informative(found: Collection, context: int | None) -> list[str]:
    """Groups of texts, first those with a figure of the verdict's model, then those with the most figures."""

    def rank(group: str) -> tuple[bool, int]:
        measured = [m.key for m in found.models if _row(found, m, group, context) is not None]
        return found.subject.key not in measured, -len(measured)

    return sorted(found.of("perplexity"), key=rank)


def _row(found: Collection, model: Model, group: str, context: int | None) -> dict[str, Any] | None:
    series = found.get(model, "perplexity", group)
    return at(series.rows, context) if series and not series.mark else None


def _perplexity(found: Collection, model: Model, group: str, context: int | None) -> str:
    row = _row(found, model, group, context)
    if row is None:
        return "–"
    interval = between(row.get("low"), row.get("high"))
    return figure(row["perplexity"]) + (f" ({interval})" if interval else "")


def _passkeys(found: Collection, model: Model) -> str:
    series = found.get(model, "passkey")
    total = pooled(series) if series and not series.mark else None
    return f"{count(total['right'])} of {count(total['n'])}" if total else "–"
