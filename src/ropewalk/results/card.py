"""Measured results in a checkpoint's model card: put there by the report, from results files alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..files import locked, read_record, write_atomic
from .collection import Collection, Model, Series
from .phrasing import between, clean, count, figure
from .tables import markdown_text
from .verdict import k_max, pooled, sureness

CARD = "README.md"
BLOCK = re.compile(r"<!-- evaluation -->\n.*?<!-- /evaluation -->\n\n", re.S)
SERVING = "## Serving it\n"


def add_results(directory: Path, found: Collection) -> bool:
    """Put the figures of the model in ``directory`` into its card, in place of those of an earlier report.

    False, and the card as it was, where it is no card of ours or no results of these very weights are here.
    """
    record, card = read_record(directory), directory / CARD
    if record is None or not isinstance(record.get("model"), dict) or not card.is_file():
        return False
    mark = record["model"].get("hash")
    model = next((m for m in found.models if m.hash and m.hash == mark), None)
    lines = _lines(found, model) if model else []
    before = card.read_text(encoding="utf-8")
    text = BLOCK.sub("", before)
    if not lines or text.count(SERVING) != 1:
        return False
    block = "\n".join(["<!-- evaluation -->", "## Evaluation", "", *lines, "<!-- /evaluation -->", "", ""])
    text = text.replace(SERVING, block + SERVING)
    with locked(card):  # which clears what a killed report left beside it
        if text != before:
            write_atomic(card, text)
    return True


def _lines(found: Collection, model: Model) -> list[str]:
    """A table of perplexity a group of texts, a sentence on passkeys, the conditions."""
    lines = []
    for group in found.of("perplexity"):
        series = found.get(model, "perplexity", group)
        if series:
            lines += [*_perplexity(group, series), ""]
    passkey = found.get(model, "passkey")
    total = pooled(passkey) if passkey else None
    if passkey and total:
        lines += [
            f"Passkey retrieval: k_max {count(k_max(passkey))} tokens; {count(total['right'])} of "
            f"{count(total['n'])} found ({sureness(total)}).",
            "",
        ]
    return lines


def _perplexity(group: str, series: Series) -> list[str]:
    rows = [row for row in series.rows if row.get("perplexity") is not None]
    name = f"Perplexity on {markdown_text(group)}" if group else "Perplexity"
    cells = [f"{figure(row['perplexity'])}{_interval(row)}" for row in rows]
    protocol = markdown_text(str(series.protocol.get("name", "protocol not said")))
    made = ", ".join(clean(series.provenance[k]) for k in ("device", "dtype") if series.provenance.get(k))
    scored = [row["n"] for row in rows if row.get("n")]
    n = f"; {count(min(scored))} to {count(max(scored))} scored tokens" if scored else ""
    return [
        "| context, tokens | " + " | ".join(count(row["context"]) for row in rows) + " |",
        "| --- |" + " ---: |" * len(rows),
        f"| {name} | " + " | ".join(cells) + " |",
        "",
        f"Protocol {protocol}, with 95 % intervals{n}; {markdown_text(made)}.",
    ]


def _interval(row: dict[str, Any]) -> str:
    interval = between(row.get("low"), row.get("high"))
    return f" ({interval})" if interval else ""
