"""The conditions of every number in a report: models, data, protocols, machines, commands."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any

from .collection import Collection, Model, Series, number
from .phrasing import clean, count, listed, plain
from .tables import Table

COMMANDED = 8
"""Models for which commands are shown at most."""


def conditions(found: Collection) -> list[Table]:
    """Tables of models, data, protocols and environment."""
    return [_models(found.models), _data(found.series), _protocols(found.series), _environment(found.series)]


def commands(found: Collection) -> list[str]:
    """Commands that make these results again: as recorded with them, else in their general form."""
    recorded = [s.provenance.get("command") for s in found.series]
    said = [clean_command(c) for c in dict.fromkeys(c for c in recorded if isinstance(c, str))]
    if said:
        return [*said[:40], "ropewalk report RESULTS --out REPORT"]
    lines = []
    start = found.baseline.label if found.baseline else "MODEL"
    for model in found.models[:COMMANDED]:
        lines += _made(model, start)
        flags = _evaluations(found, model)
        lines += [f"ropewalk evaluate {shlex.quote(model.label)}{flags}"] if flags else []
    return [*lines, "ropewalk report RESULTS --out REPORT"]


def _made(model: Model, start: str) -> list[str]:
    """How a model is made from the one before."""
    if model.role == "original":
        return []
    name, start = shlex.quote(model.label), shlex.quote(start)
    method = "" if model.method == "linear" else f" --method {shlex.quote(model.method or 'none')}"
    longer = shlex.quote(f"{model.label}-start") if model.steps else name
    lines = [f"ropewalk extend {start} {longer} --to {model.window}{method}"]
    if model.steps:
        lines.append(f"ropewalk finetune {longer} {name} --data FILES --steps {model.steps}")
    return lines


def _evaluations(found: Collection, model: Model) -> str:
    """The flags that ask for a model's perplexity and passkey again."""
    flags, contexts = "", set()
    for group in found.of("perplexity"):
        series = found.get(model, "perplexity", group)
        if series:
            names = (
                " ".join(shlex.quote(clean(block.get("name", "FILE"))) for block in series.data) or "FILES"
            )
            flags += f" {shlex.quote(clean(group))}={names}" if group else f" {names}"
            contexts |= {int(row["context"]) for row in series.rows}
    if flags:
        flags = f" --perplexity{flags} --contexts {' '.join(map(str, sorted(contexts)))}"
    passkey = found.get(model, "passkey")
    if passkey:
        target = number(passkey.protocol.get("target"))
        flags += " --passkey" + (f" --target {target}" if target and target != model.window else "")
    return flags


def clean_command(command: str) -> str:
    """A recorded command as one printable line."""
    return " ".join(clean(word) for word in command.split())[:2000]


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
        lambda s: s.protocol,
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
    known = ((k, v) for k, v in sorted(value.items()) if k != "name" and v is not None)
    return "; ".join([*named, *(f"{clean(k).replace('_', ' ')}: {plain(v)}" for k, v in known)])


def _sorted_text(value: dict[str, Any]) -> str:
    return repr(sorted((str(k), repr(v)) for k, v in value.items()))
