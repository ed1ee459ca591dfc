"""What a training is, so that the same command goes on with it and another one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import to_json, write_atomic

SETTINGS = "settings.json"

ROWS = "micro_batch"
"""Kept beside the identity and no part of it: how many windows are in memory at once changes neither the data
nor, but for the order of sums, the weights. What ran out of memory goes on with fewer."""


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first setting in which two trainings differ, in words; None when they are the same.

    >>> difference({"rate": 0.1, "steps": 5}, {"rate": 0.2, "steps": 5})
    'rate was 0.1, now 0.2'
    """
    for key in sorted({*before, *now} - {ROWS}):
        if before.get(key) != now.get(key):
            return f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}"
    return None


def is_same(found: dict[str, Any] | None, now: dict[str, Any]) -> bool:
    """Is what was found the same training?"""
    return found is not None and difference(found, now) is None


def require_same(found: dict[str, Any] | None, now: dict[str, Any], out: Path) -> None:
    """Refuse to mix two trainings in one directory. Raises UserError naming the setting that differs."""
    changed = difference(found, now) if found is not None else None
    if changed is not None:
        raise UserError(
            f"{out} holds another training: {changed}; give the same settings to go on with it, "
            "--overwrite to begin again, or another output"
        )


def read_settings(work: Path) -> dict[str, Any] | None:
    """The identity of the training in a work directory; None when there is none that can be read."""
    try:
        found = json.loads((work / SETTINGS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_settings(work: Path, identity: dict[str, Any]) -> None:
    """Leave the identity in a work directory."""
    write_atomic(work / SETTINGS, to_json(identity))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."
