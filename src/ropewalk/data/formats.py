"""Files of text, opened piece by piece: each kind is a list of shards, each shard a stream of blocks.

A *shard* is what can be opened on its own (a text file, a stretch of a JSON-lines file, a packed one, a row
group of a Parquet file, a Hub split); a *block* is a list of documents of at most about 16 MB. Nothing is
read before it is asked for, and nothing larger than a block is in memory: only a text file up to 64 MB, a
line of JSON and a row of Parquet are read whole.
"""

from __future__ import annotations

import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError

TEXT_KINDS = (".txt", ".md", ".tex", ".py", ".rst")
LINE_KINDS = (".jsonl", ".json", ".ndjson")
PACKED = (".gz", ".zst", ".xz", ".bz2")
"""Of JSON-lines files behind their kind's own ending; on the Hub of texts too."""
KINDS = (*TEXT_KINDS, *LINE_KINDS, ".parquet", *(f".jsonl{packed}" for packed in PACKED))
COLUMNS = ("text", "content")
"""Column names taken without asking; else the only column that holds text; else ``column`` must say."""

BLOCK = 16 << 20
"""Bytes (characters, for rows) of text in one block."""

PART = 4 << 20
"""Bytes of a part of a text file above four blocks; as many lie in memory as there are lanes."""


@dataclass(frozen=True)
class Document:
    """One text: a file, a line, a row. ``name`` says where it came from.

    part: of a file that is cut, the number of this part, from 0; None for a whole text.
    """

    name: str
    text: str
    part: int | None = None


class Shard(Protocol):
    """A part of a source that can be opened without the others."""

    @property
    def path(self) -> Path | None: ...

    def count(self) -> int | None:
        """Documents in it, or None when only reading it all would tell."""

    def size(self) -> int | None:
        """About how many bytes of text it holds, without reading it; None when that cannot be told."""

    def blocks(self) -> Iterator[list[Document]]:
        """Its documents in their own order, about 16 MB at a time."""


@dataclass(frozen=True)
class TextFile:
    """A whole file as one document; beyond 64 MB it is cut into parts of 4 MB, at line ends where there are.

    Bytes that are not UTF-8 become U+FFFD, so that one bad byte does not end a night's run.
    """

    path: Path
    name: str

    def count(self) -> int:
        size = self.path.stat().st_size
        return 1 if size <= 4 * BLOCK else -(-size // PART)

    def size(self) -> int:
        return self.path.stat().st_size

    def blocks(self) -> Iterator[list[Document]]:
        with open(self.path, "rb") as stream:
            if self.path.stat().st_size <= 4 * BLOCK:
                if b"\0" in stream.read(4096):
                    raise UserError(f"{self.path} is binary, not text; give one of {', '.join(KINDS)}")
                stream.seek(0)
                yield [
                    Document(self.name, _decode(stream.read()))
                ]  # the bytes are let go before the text is used
                return
            part = 0
            while data := stream.read(PART):
                cut = _cut(data) if len(data) == PART else len(data)
                stream.seek(cut - len(data), 1)
                yield [Document(f"{self.name}#{part}", _decode(data[:cut]), part)]
                part += 1


@dataclass(frozen=True)
class Lines:
    """The JSON lines that begin in the bytes [start, stop) of a file; each is an object with a text."""

    path: Path
    name: str
    start: int
    stop: int
    column: str | None

    def count(self) -> int | None:
        return sum(bool(line.strip()) for _, line in self._lines())

    def size(self) -> int:
        return self.stop - self.start

    def blocks(self) -> Iterator[list[Document]]:
        found: list[Document] = []
        for offset, line in self._lines():
            if text := _line_text(line, self.path, f"the line at byte {offset}", self.column):
                found.append(Document(f"{self.name}#{offset}", text))
        yield found

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.path, "rb") as stream:
            if self.start:
                stream.seek(self.start - 1)
                stream.readline()  # the line that began before; if none did, this reads its newline
            while (offset := stream.tell()) < self.stop:
                line = stream.readline()
                if not line:
                    return
                yield offset, line


@dataclass(frozen=True)
class PackedLines:
    """A packed file of JSON lines (`PACKED`), read as one stream: it cannot be opened in its middle."""

    path: Path
    name: str
    column: str | None

    def count(self) -> None:
        return None

    def size(self) -> None:
        return None

    def blocks(self) -> Iterator[list[Document]]:
        return _in_blocks(
            Document(f"{self.name}#{number}", _line_text(line, self.path, f"line {number:,}", self.column))
            for number, line in enumerate(unpacked_lines(self.path), 1)
        )


@dataclass(frozen=True)
class RowGroup:
    """One row group of a Parquet file: one document a row of its text column."""

    path: Path
    name: str
    group: int
    rows: int
    bytes: int
    column: str

    def count(self) -> int:
        return self.rows

    def size(self) -> int:
        return self.bytes

    def blocks(self) -> Iterator[list[Document]]:
        import pyarrow.parquet as pq

        size = max(1, min(self.rows, BLOCK * self.rows // max(1, self.bytes)))
        row = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=size, row_groups=[self.group], columns=[self.column]):
                found = []
                for value in batch.column(0).to_pylist():
                    if value:
                        found.append(Document(f"{self.name}#{self.group}.{row}", str(value)))
                    row += 1
                yield found


@dataclass(frozen=True)
class HubSplit:
    """A Hub data set, streamed: ``hub:OWNER/NAME[@CONFIG][:SPLIT]`` (split: train), or one of its files.

    file: of ``hub:OWNER/NAME/FILE``, .jsonl, .parquet or .txt, or compressed as .gz, .zst, .xz or .bz2; for
    data sets that come with a loading script, which is code and never run.
    """

    name: str
    repository: str
    configuration: str | None
    split: str
    column: str | None
    file: str | None = None
    path: None = None

    def count(self) -> None:
        return None

    def size(self) -> None:
        return None

    def blocks(self) -> Iterator[list[Document]]:
        return _in_blocks(
            Document(f"{self.name}#{number}", self._text(row)) for number, row in enumerate(self._open())
        )

    def _text(self, row: dict[str, Any]) -> str:
        column = self.column or _row_column(row, self.name)
        return _row_text(row.get(column), self.name, column, list(row), column in row)

    def _open(self) -> Any:
        from datasets import load_dataset

        try:
            if self.file is not None:
                place = f"{self.repository}/{self.file}"
                where = place if Path(place).is_file() else f"hf://datasets/{place}"
                return load_dataset(packed_kind(self.file), data_files=where, split="train", streaming=True)
            return load_dataset(self.repository, self.configuration, split=self.split, streaming=True)
        except Exception as error:  # the library raises many kinds: offline, absent, gated, no such split
            reason = str(error).split("\n")[0][:200]
            raise UserError(f"Hub data set {self.name} cannot be opened: {reason}") from None


def packed_kind(file: str) -> str | None:
    """The `datasets` builder of a file, compressed or not: "json", "parquet" or "text"; None if unknown.

    >>> packed_kind("test/a.jsonl.gz"), packed_kind("a.csv")
    ('json', None)
    """
    inner = re.sub(r"\.(gz|zst|xz|bz2)$", "", file.lower())
    known = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".txt": "text", ".md": "text"}
    return known.get(Path(inner).suffix)


def kind_of(path: Path) -> str | None:
    """The ending that says how a file is read, of JSON lines that are packed the last one; None: unknown.

    >>> kind_of(Path("a.JSONL")), kind_of(Path("a.jsonl.zst")), kind_of(Path("a.txt.gz")), kind_of(Path("gz"))
    ('.jsonl', '.zst', None, None)
    """
    *_, inner, ending = "", "", *(one.lower() for one in path.suffixes)
    if ending in PACKED:
        return ending if inner in LINE_KINDS else None
    return ending if ending in KINDS else None


def unpacked_lines(path: Path) -> Iterator[bytes]:
    """The lines of a packed file. Raises UserError: damaged or cut off."""
    import pyarrow as pa

    try:
        packing = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}.get(path.suffix.lower())
        if packing is None:  # .xz, which pyarrow does not have
            with lzma.open(path) as stream:
                yield from stream
        else:
            with pa.input_stream(str(path), compression=packing) as stream:
                yield from io.BufferedReader(stream, 1 << 20)
    except (OSError, EOFError, lzma.LZMAError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(f"data file {path} is damaged, or not what its name says ({reason})") from None


def open_file(path: Path, name: str, column: str | None) -> list[Shard]:
    """The shards of one file. Raises UserError: missing, empty, unknown kind, no text column."""
    if not path.exists():
        raise UserError(f"no data file {path}")
    kind = kind_of(path)
    if kind is None:
        ending = path.suffix.lower()
        cure = "unpack it first; " if ending in PACKED else ""
        raise UserError(
            f"data file {path} is of unknown kind {ending or '(none)'}; {cure}known: {', '.join(KINDS)}"
        )
    size = path.stat().st_size
    if size == 0:
        raise UserError(f"data file {path} is empty")
    if kind in TEXT_KINDS:
        return [TextFile(path, name)]
    if kind == ".parquet":
        return _open_parquet(path, name, column)
    if kind in PACKED:
        return [PackedLines(path, name, column)]
    lines: list[Shard] = []
    for start in range(0, size, BLOCK):
        lines.append(Lines(path, name, start, min(size, start + BLOCK), column))
    return lines


def choose_column(where: str, texts: list[str], columns: list[str]) -> str:
    """The column that holds the text: 'text', 'content', or the only one of texts. Raises UserError."""
    for name in COLUMNS:
        if name in texts:
            return name
    if len(texts) == 1:
        return texts[0]
    if texts:
        raise UserError(f"{where} has several columns of text ({', '.join(texts)}); name one with --column")
    raise UserError(f"{where} has no column of text; columns: {', '.join(columns) or 'none'}")


def parquet_head(path: Path) -> tuple[Any, Any]:
    """(schema, metadata) of a Parquet file. Raises UserError for one that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"data file {path} is not a readable Parquet file ({error})") from None


def _is_text(kind: Any) -> bool:
    """Is this Arrow type text, also where each text is stored once and rows hold its number?"""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _open_parquet(path: Path, name: str, column: str | None) -> list[Shard]:
    schema, meta = parquet_head(path)
    texts = [field.name for field in schema if _is_text(field.type)]
    if column is not None and column not in texts:
        raise UserError(
            f"{path} has no text column {column!r}; columns: {', '.join(schema.names)} "
            f"(text: {', '.join(texts) or 'none'})"
        )
    column = column or choose_column(str(path), texts, list(schema.names))
    if meta.num_rows == 0:
        raise UserError(f"data file {path} is empty (no rows)")
    index = schema.names.index(column)
    flat = len(schema.names) == meta.num_columns
    shards: list[Shard] = []
    for group in range(meta.num_row_groups):
        part = meta.row_group(group)
        size = part.column(index).total_uncompressed_size if flat else part.total_byte_size
        if part.num_rows:
            shards.append(RowGroup(path, name, group, part.num_rows, size, column))
    return shards


def _in_blocks(stream: Iterable[Document]) -> Iterator[list[Document]]:
    """A stream of documents in blocks; empty ones are skipped."""
    found: list[Document] = []
    size = 0
    for document in stream:
        if document.text:
            found.append(document)
            size += len(document.text)
        if size >= BLOCK:
            yield found
            found, size = [], 0
    yield found


def _line_text(line: bytes, path: Path, place: str, column: str | None) -> str:
    """The text of one JSON line; of an empty one the empty text. Raises UserError, naming the place."""
    if not line.strip():
        return ""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise UserError(
            f'{path}: {place} is not a JSON object; JSON-lines files hold one {{"text": ...}} a line'
        )
    where = f"{path}, {place}"
    column = column or _row_column(row, where)
    return _row_text(row.get(column), where, column, list(row), column in row)


def _row_column(row: dict[str, Any], where: str) -> str:
    """The text column by one row, whose text may be null."""
    texts = [name for name, value in row.items() if isinstance(value, str)]
    known = [name for name in COLUMNS if name in row and (row[name] is None or name in texts)]
    odd = [name for name in COLUMNS if name in row]  # such as a number for a text: said of that column
    return (known or ([] if texts else odd) or [choose_column(where, texts, list(row))])[0]


def _row_text(value: Any, where: Path | str, column: str, columns: list[str], present: bool) -> str:
    """A row's text; an absent value (null) is the empty text."""
    if isinstance(value, str):
        return value
    if value is None and present:
        return ""
    problem = f"is {type(value).__name__}, not text" if present else "is missing"
    raise UserError(f"{where}: column {column!r} {problem}; columns: {', '.join(columns)}")


def _cut(data: bytes) -> int:
    """Where to cut: behind the last line end, else the last space, else the last whole UTF-8 character."""
    for end in (b"\n", b" "):
        if (found := data.rfind(end)) >= 0:
            return found + 1
    last = next((i for i in range(1, 5) if data[-i] & 0xC0 != 0x80), 0)  # its first byte, from behind
    return len(data) - last if last < len(data) else len(data)


def _decode(data: bytes) -> str:
    return data.decode("utf-8", errors="replace").replace("\r\n", "\n")
