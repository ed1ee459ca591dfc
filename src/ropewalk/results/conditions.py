"""The conditions of every number in a report: models, data, protocols, machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .collection import Collection, Model, Series
from .phrasing import clean, count, listed, plain
from .tables import Table


def conditions(found: Collection) -> list[Table]:
    """Tables of models, data, protocols and environment."""
    return [_models(found.models), _data(found.series), _protocols(found.series), _environment(found.series)]


def _models(models: Sequence[Model]) -> Table:
    rows = [
        [
            m.label,
            m.story,
            count(m.window),
            count(m.original_window),
            count(m.parameters),
            m.hash or "–",
        ]
        for m in models
    ]
    records = [
        {"label": m.label, **{k: v for k, v in m.block.items() if k != "trained"}, **_trained(m)}
        for m in models
    ]
    columns = ["model", "what was done", "window", "old window", "parameters", "hash"]
    return Table("models", "Models", columns, rows, records, ("Windows in tokens.",))


def _trained(model: Model) -> dict[str, Any]:
    return {"trained_steps": model.steps, "trained_tokens": model.tokens}


def _data(series: Sequence[Series]) -> Table:
    used: dict[tuple[str, str], dict[str, Any]] = {}
    for s in series:
        for block in s.data:
            key = str(block.get("name", "unnamed")), str(block.get("sha256", ""))
            one = used.setdefault(key, {**block, "used": []})
            if s.evaluation not in one["used"]:
                one["used"].append(s.evaluation)
    rows = [
        [clean(name), listed(one["used"]), plain(one.get("documents")), clean(digits)[:16] or "–"]
        for (name, digits), one in sorted(used.items())
    ]
    records = [{**one, "used": ", ".join(one["used"])} for _, one in sorted(used.items())]
    notes = ("SHA-256: the first 16 of 64 digits; all in the CSV.",)
    return Table("data", "Data", ["name", "used for", "documents", "SHA-256"], rows, records, notes)


def _protocols(series: Sequence[Series]) -> Table:
    return _settings(
        "protocols",
        "Protocols",
        series,
        lambda s: s.evaluation,
        lambda s: {key: _without_places(value) for key, value in s.protocol.items()},
        ["evaluation", "settings"],
    )


def _environment(series: Sequence[Series]) -> Table:
    def settings(s: Series) -> dict[str, Any]:
        return {k: v for k, v in s.provenance.items() if k not in ("command", "inputs")}

    return _settings(
        "environment",
        "Versions, device, precision, seed",
        series,
        lambda s: s.evaluation,
        settings,
        ["for", "conditions"],
    )


def _settings(
    name: str,
    title: str,
    series: Sequence[Series],
    group: Callable[[Series], str],
    settings: Callable[[Series], dict[str, Any]],
    columns: Sequence[str],
) -> Table:
    """Distinct settings, each with what it holds for and for how many measurements."""
    distinct: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {}
    for s in series:
        value = settings(s)
        _, groups, models = distinct.setdefault(_sorted_text(value), (value, [], []))
        if group(s) not in groups:
            groups.append(group(s))
        if s.model.label not in models:
            models.append(s.model.label)
    rows, records = [], []
    for value, groups, models in distinct.values():
        who = listed(models) if len(models) <= 4 else f"{len(models):,} models"
        rows.append([listed(groups), _said(value), who])
        records.append({columns[0]: ", ".join(groups), **value, "models": ", ".join(models[:100])})
    return Table(name, title, [*columns, "models"], rows, records)


def _said(value: dict[str, Any]) -> str:
    """Settings as ``sliding; stride: 256``, the name first."""
    named = [clean(value["name"])] if "name" in value else []
    known = ((k, v) for k, v in sorted(value.items()) if k != "name" and v not in (None, []))
    return "; ".join([*named, *(f"{clean(k).replace('_', ' ')}: {plain(v)}" for k, v in known)])


def _without_places(value: Any) -> Any:
    """A mapping of files to shares by the files' names: where they lay is nobody's business."""
    if not isinstance(value, dict):
        return value
    return {" ".join(word.rpartition("/")[2] for word in str(k).split()): v for k, v in value.items()}


def _sorted_text(value: dict[str, Any]) -> str:
    return repr(sorted((str(k), repr(v)) for k, v in value.items()))
