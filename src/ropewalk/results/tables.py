"""Tables of a report: declared once, written as HTML cells, CSV, Markdown and LaTeX.

The page, Markdown and LaTeX show `Table.rows` (one row a model, figures as text with their intervals); the
CSV holds `Table.records`, one record a measured cell with everything its row in the results file has.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from .phrasing import clean

SHOWN = 60
"""Rows that page, Markdown and LaTeX show at most; the CSV holds all."""


@dataclass(frozen=True)
class Table:
    """One table: ``rows`` of text for people, ``records`` of values for machines."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    records: Sequence[dict[str, Any]]
    notes: Sequence[str] = ()

    @property
    def shown(self) -> Sequence[Sequence[str]]:
        """The rows that are shown."""
        return self.rows[:SHOWN]

    @cached_property
    def csv(self) -> str:
        """All records as CSV: for the file and for the page's button."""
        return to_csv(self)

    @property
    def hidden(self) -> int:
        """How many rows are only in the CSV."""
        return max(0, len(self.rows) - SHOWN)

    @property
    def remark(self) -> str:
        """Says that rows were left out, if any were."""
        if not self.hidden:
            return ""
        return f"{SHOWN} of {len(self.rows):,} rows shown; all are in tables/{self.name}.csv."


def to_csv(table: Table) -> str:
    """Records as CSV (RFC 4180); text that a spreadsheet would run as a formula gets a leading quote."""
    columns = list(dict.fromkeys(key for record in table.records for key in record))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_cell(column) for column in columns])
    for record in table.records:
        writer.writerow([_cell(record.get(column)) for column in columns])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """A GitHub table with its title, notes beneath; names are escaped to be shown as they are."""
    lines = [f"**{markdown_text(table.title)}**", ""]
    lines.append("| " + " | ".join(markdown_text(c) for c in table.columns) + " |")
    lines.append("| --- " + "| ---: " * (len(table.columns) - 1) + "|")
    for row in table.shown:
        lines.append("| " + " | ".join(markdown_text(cell) for cell in row) + " |")
    for note in (*table.notes, table.remark):
        if note:
            lines += ["", markdown_text(note)]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """A `table` environment for booktabs; needs no other package and only ASCII-safe fonts."""
    body = " \\\\\n".join(" & ".join(latex_text(cell) for cell in row) for row in table.shown)
    notes = "\n\n".join(f"\\footnotesize {latex_text(note)}" for note in (*table.notes, table.remark) if note)
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}",
        f"\\label{{tab:{re.sub(r'[^a-z0-9-]', '-', table.name)}}}",
        f"\\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        "\\toprule",
        " & ".join(latex_text(column) for column in table.columns) + " \\\\",
        "\\midrule",
        body + " \\\\" if body else "",
        "\\bottomrule",
        "\\end{tabular}",
        f"\n{notes}" if notes else "",
        "\\end{table}",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def markdown_text(text: Any) -> str:
    """Text that Markdown shows as it is: no markup, HTML, link or table cell comes out of it."""
    escaped = re.sub(r"([\\`*_\[\]<>|~&#!$])", r"\\\1", clean_line(text))
    return re.sub(
        r"(?i)(https?|ftp)://|www\.", lambda m: m.group().replace(":", "\\:").replace(".", "\\."), escaped
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "†": r"\textdagger{}",
    "×": r"$\times$",
    "–": "--",
    "−": "$-$",
    "→": r"$\to$",
    "…": r"\ldots{}",
    "θ": r"$\theta$",
    "±": r"$\pm$",
    "’": "'",
}


def latex_text(text: Any) -> str:
    """Text that LaTeX prints as it is; what is outside ASCII and unknown here becomes ``?``."""
    shown = (_LATEX.get(c, c if c.isascii() else "?") for c in clean_line(text))
    return "".join(shown)


def clean_line(text: Any) -> str:
    """One line of text without control characters (sentences may be longer than names)."""
    return " ".join(clean(word) for word in str(text).split())


@lru_cache(maxsize=1 << 14)
def _text_cell(text: str) -> str:
    """The same names and hashes stand in many rows."""
    text = clean(text)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return _text_cell(value)
    if isinstance(value, (list, dict)):
        return clean(value)
    return "" if value is None else value
