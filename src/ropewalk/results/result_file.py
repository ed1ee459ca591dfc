"""What `evaluate` and `sweep` do with a results file: its name, whose it is, what a terminal shows of it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..console import say, table
from ..errors import UserError
from .record import read_result


def safe(name: str) -> str:
    """A name as part of a file name: letters and digits of every script stay."""
    return re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip(".-")


def require_same(path: Path, block: dict[str, Any], data: Sequence[dict[str, Any]], cure: str) -> None:
    """Refuse to replace the results of another model, or on other data: they would be lost unsaid.

    block, data: of the evaluation that wants the file.  cure: what gives it another file.
    """
    try:
        there = read_result(path) if path.exists() else None
    except UserError:  # no results are lost with it
        return
    if there is None:
        return
    cure = f"give {cure}, or --overwrite to replace it"
    model = there["model"]
    if model.get("hash") and model["hash"] != block["hash"]:
        whose = [f"{one.get('name')} ({str(one['hash'])[:6]})" for one in (model, block)]
        raise UserError(f"{path} holds results of another model, {whose[0]}, not of {whose[1]}: {cure}")
    held = [one if isinstance(one, dict) else {} for one in there["data"]]
    if not _same_data(held, data):
        which = [_named(blocks) for blocks in (held, data)]
        raise UserError(f"{path} holds results on other data, {which[0]}, not on {which[1]}: {cure}")


def replaced(there: dict[str, Any], block: dict[str, Any], versions: dict[str, Any]) -> str:
    """In words, what the result that is about to be replaced has that the new one has not."""
    name, before = there["model"].get("name"), there["provenance"]
    if name != block["name"]:
        return f"replaces the same model's result under the name {name}"
    others = [
        f"{key} {before.get(key)}, now {now}" for key, now in versions.items() if before.get(key) != now
    ]
    if others:
        return f"replaces the result of {'; '.join(others)}"
    command = before.get("command")
    return "replaces the result with other settings" + (f": {command}" if isinstance(command, str) else "")


def _same_data(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> bool:
    if len(one) != len(other):
        return False
    for a, b in zip(one, other):
        if "revision" in b and None in (a.get("revision"), b["revision"]):
            key = "name"  # the Hub could not be asked once: the digest says nothing
        else:
            key = "sha256" if "sha256" in b else "name"
        if a.get(key) != b.get(key):
            return False
    return True


def _named(blocks: Sequence[dict[str, Any]]) -> str:
    """Data by name and the beginning of its digest."""
    words = [f"{one.get('name')} ({str(one.get('sha256', 'no digest'))[:6]})" for one in blocks[:3]]
    return ", ".join(words) + (f" and {len(blocks) - 3} more" if len(blocks) > 3 else "") or "none"


def show(result: dict[str, Any]) -> None:
    """Print a result's rows, and the plain figures of its summary."""
    rows = result["rows"]
    names = [
        key
        for key in (rows[0] if rows else ())
        if key not in UNSHOWN
        and all(_is_plain(row.get(key)) for row in rows)
        and any(row.get(key) is not None for row in rows)
    ]
    title = f"{result['model']['name']}: {result['evaluation']}"
    if len(rows) <= 100:  # longer ones are curves, for the report
        table(title, names, [[_number(row.get(key)) for key in names] for row in rows])
    plain = [f"{key} {_number(value)}" for key, value in result["summary"].items() if _is_plain(value)]
    if plain:
        say("  " + ", ".join(plain))


UNSHOWN = (
    "data",
    "stride",
    "sampled",
    "of_windows",
    "sample_low",
    "sample_high",
    "real_distance",
    "standard_error",
    "low_norm",
    "high_norm",
    "items",
    "items_norm",
)
"""Figures of a row that stand in the results file only, so that the table fits a terminal."""


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float | str)


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)
