"""Fill the tables of docs/reliability.md from the figures in docs/results/reliability.

    python docs/reliability_tables.py            write them
    python docs/reliability_tables.py --check    exit 1 when the page is not in step

A page says `<!-- figures: NAME -->` … `<!-- end -->`; NAME.json is what a campaign of tests/faults wrote.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from filling import keep_in_step

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / "docs" / "results" / "reliability"
BLOCK = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end -->)", re.S)
COLUMNS = {
    "fuzzing": {
        "reader": "reader",
        "engine": "engine",
        "executions": "inputs",
        "seconds": "seconds",
        "covered": "branches covered",
        "crashes": "crashes",
        "hangs": "hangs",
    },
    "mutations": {"subject": "subject", "what": "planted fault", "caught": "caught by"},
    "lies": {"subject": "subject", "lies": "lies", "verbs": "met by"},
}
"""Columns of campaigns whose figures are rows; of all others every figure is shown by its name."""


def table(name: str) -> str:
    """One campaign's figures as Markdown; says so where it has not run."""
    file = FIGURES / f"{name}.json"
    if not file.is_file():
        return "*Not run yet.*"
    found = json.loads(file.read_text(encoding="utf-8"))
    known = found.pop("conditions", None)
    if name in COLUMNS:
        lines = _rows(found["rows"], COLUMNS[name])
    elif name == "starvation":
        lines = _shortages(found)
    else:
        lines = _by_name(found)
    if known:
        lines += ["", "Conditions: " + ", ".join(f"{key} {value}" for key, value in known.items()) + "."]
    return "\n".join(lines)


def _rows(rows: list[dict[str, Any]], columns: dict[str, str]) -> list[str]:
    lines = ["| " + " | ".join(columns.values()) + " |", "| --- " * len(columns) + "|"]
    for row in rows:
        row = {**row, "caught": row["caught"] or "**survived**"} if "caught" in row else row
        lines.append("| " + " | ".join(_cell(row.get(key)) for key in columns) + " |")
    return [*lines, ""]


def _shortages(found: dict[str, Any]) -> list[str]:
    """A row a shortage: how many commands, how many felt it, and the shortest of the lines that they said."""
    rows = []
    for shortage, verbs in found["tried"].items():
        commands, felt = (sum(cell[key] for cell in verbs.values()) for key in ("commands", "felt"))
        said = found["lines"].get(shortage, [])
        example = f"`{min(said, key=len)}`" if said else "–"
        rows.append([shortage, str(commands), str(felt), str(len(said)), example])
    head = ["shortage", "commands", "felt it", "different lines", "the shortest of them"]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]
    skipped = [f"{shortage} was skipped: {why}" for shortage, why in found["skipped"].items()]
    return [*lines, "", "Problems: " + ("; ".join(found["problems"]) or "none") + ".", *skipped]


def _by_name(found: dict[str, Any]) -> list[str]:
    lines = ["| figure | value |", "| --- | --- |"]
    return [*lines, *(f"| {name} | {_cell(value)} |" for name, value in _flat(found))]


def _flat(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    """(name, figure) of every figure in nested mappings and lists of mappings."""
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in _flat(item, (*path, str(key)))]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [pair for n, item in enumerate(value, 1) for pair in _flat(item, (*path, str(n)))]
    return [(": ".join(path).replace("_", " "), value)]


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value).replace("|", "\\|")
    return f"`{text}`" if "::" in text or "/" in text else text


def filled(text: str) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text)


if __name__ == "__main__":
    sys.exit(keep_in_step(PAGE, filled, "reliability_tables.py"))
