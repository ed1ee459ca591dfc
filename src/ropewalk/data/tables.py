"""Rows of named columns: Parquet, JSON (an array), JSON lines and Hub data sets, in their own order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import sha256

KINDS = (".parquet", ".json", ".jsonl", ".ndjson")

Row = dict[str, Any]


def read_rows(source: str, columns: Sequence[str] = (), limit: int | None = None) -> list[Row]:
    """The rows of ``source`` (the first ``limit``); each has the ``columns`` asked for.

    source: a file of a known kind, or ``hub:OWNER/NAME[@CONFIG][:SPLIT]`` (split: train).
    Raises UserError: missing, unreadable, of another kind, empty, or without one of the columns.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; at least 1 row has to be read")
    rows = list(itertools.islice(_rows(source), limit))
    if not rows:
        raise UserError(f"{source} holds no rows")
    for column in columns:
        if column not in rows[0]:
            raise UserError(f"{source} has no column {column!r}; columns: {', '.join(rows[0])}")
    return rows


def describe_table(source: str) -> dict[str, Any]:
    """The "data" block of a table: ``{"name", "sha256"}``; a Hub set's stands for its name and revision."""
    if source.startswith("hub:"):
        from .text import describe

        return describe([source])[0]
    path = _path(source)
    return {"name": path.name, "sha256": sha256(path)}


def _rows(source: str) -> Iterator[Row]:
    if source.startswith("hub:"):
        return _hub_rows(source)
    path = _path(source)
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    return _json_rows(path)


def _path(source: str) -> Path:
    path = Path(source)
    if not path.is_file():
        raise UserError(f"no file {path} (a Hub data set is written hub:OWNER/NAME[@CONFIG][:SPLIT])")
    if path.suffix.lower() not in KINDS:
        raise UserError(f"{path} is of unknown kind {path.suffix or '(none)'}; known: {', '.join(KINDS)}")
    return path


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({' '.join(str(error).split())})") from None


def _json_rows(path: Path) -> Iterator[Row]:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if text.lstrip().startswith("["):
        try:
            found: Iterable[Any] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not readable JSON ({error})") from None
    else:
        found = _json_lines(path, text)
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number} is {type(row).__name__}, not an object of named columns")
        yield row


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}: line {number} is not JSON ({error})") from None


def _hub_rows(source: str) -> Iterator[Row]:
    from datasets import load_dataset

    rest, _, split = source.removeprefix("hub:").partition(":")
    name, _, configuration = rest.partition("@")
    try:
        yield from load_dataset(name, configuration or None, split=split or "train", streaming=True)
    except Exception as error:  # the library raises many kinds: offline, absent, gated, no such split
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"Hub data set {source} cannot be read ({reason}); name a local file instead"
        ) from None
