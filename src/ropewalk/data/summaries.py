"""Documents with reference summaries, and the paper's prompt around a document (section 3.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UserError
from .tables import read_rows

HUB = "hub:ccdv/govreport-summarization:test"
BEFORE = "Read the following article and then summarize it.\n"
AFTER = "\nNow summarize the above article.\nSummary:"
KNOWN = (("report", "summary"), ("document", "summary"), ("article", "abstract"), ("text", "summary"))
"""Pairs of columns that are taken without being named."""

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Summarized:
    """A document and its reference summary."""

    document: str
    summary: str


def read_summaries(source: str, columns: tuple[str, ...] = (), limit: int | None = None) -> list[Summarized]:
    """Documents and summaries of a file or Hub set; rows without either are left out.

    columns: (document, summary); may be empty where `KNOWN` tells.
    Raises UserError: unreadable, a column missing or not text, nothing left.
    """
    rows = read_rows(source, columns, limit)
    if not columns:
        columns = next((pair for pair in KNOWN if set(pair) <= set(rows[0])), ())
    if len(columns) != 2:
        raise UserError(
            f"{source} needs two text columns, document and summary; name them with "
            f"--set 'summarization.columns=[DOCUMENT, SUMMARY]' (it has {', '.join(rows[0])})"
        )
    found = []
    for number, row in enumerate(rows):
        document, summary = (row.get(column) for column in columns)
        if not isinstance(document, str | None) or not isinstance(summary, str | None):
            raise UserError(f"{source}: row {number} of {' and '.join(columns)} is not text")
        if document and summary:
            found.append(Summarized(document, summary))
    if not found:
        raise UserError(f"{source} has no row with both {columns[0]!r} and {columns[1]!r}")
    return found


def prompt_ids(document: list[int], length: int, *, encode: Encode, bos: int | None) -> list[int]:
    """The paper's prompt around a document's tokens, the document cut to fit ``length`` tokens in all.

    Raises ValueError when not one token of the document fits.
    """
    start = ([] if bos is None else [bos]) + encode(BEFORE)
    end = encode(AFTER)
    room = length - len(start) - len(end)
    if room < 1:
        raise ValueError(f"the prompt alone has {len(start) + len(end)} tokens, of {length}")
    return [*start, *document[:room], *end]
