"""Where text comes from: files, directories, named sets and Hub data sets, by one spelling everywhere.

book.txt  corpus.jsonl  books.parquet  sources/     files of a known kind, directories of them
stdlib  stdlib-heldout                              the Python standard library's own modules
hub:OWNER/NAME[@CONFIG][:SPLIT]                     a Hub data set, streamed
hub:OWNER/NAME/FILE                                 one file of a Hub data set, streamed
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from .. import console
from ..errors import UserError
from .formats import (
    KINDS,
    PACKED,
    Document,
    HubSplit,
    RowGroup,
    Shard,
    TextFile,
    kind_of,
    open_file,
    packed_kind,
    parquet_head,
)

__all__ = ["Document", "describe", "documents", "require_readable", "shards", "whole_documents"]

WHOLE = 1 << 30
"""Files up to this size (bytes) are hashed whole; of larger ones 64 blocks of 1 MiB, evenly spaced."""


def documents(sources: Sequence[str], column: str | None = None) -> Iterator[Document]:
    """Every document of ``sources`` in a fixed order, read as they are asked for; empty ones are skipped.

    column: the text column of JSON-lines and Parquet files, where it cannot be told.
    Raises UserError: a source is missing, empty, of an unknown kind, or has no text column.
    """
    for shard in shards(sources, column):
        for block in shard.blocks():
            yield from (document for document in block if document.text)


def whole_documents(found: Iterable[Document]) -> Iterator[tuple[str, Iterator[str]]]:
    """(name, its text in parts) of each document; the parts of a file that is cut are one document again.

    The parts are to be read before the next document is asked for; what is not read is passed over.
    """
    number = 0

    def counted(document: Document) -> int:
        nonlocal number
        number += not document.part
        return number

    for _, parts in itertools.groupby(found, counted):
        first = next(parts)
        name = first.name if first.part is None else first.name.rpartition("#")[0]
        yield name, (one.text for one in itertools.chain([first], parts))


def shards(sources: Sequence[str], column: str | None = None) -> list[Shard]:
    """The parts of ``sources`` that can be opened on their own, in a fixed order (see formats.py)."""
    if not sources:
        raise UserError(f"no data: name files ({', '.join(KINDS)}), directories, 'stdlib' or hub:OWNER/NAME")
    found: list[Shard] = []
    for source in sources:
        if source.startswith("hub:"):
            found.append(_hub(source, column))
            continue
        for path, name in _files(source):
            found.extend(open_file(path, name, column))
    return found


def require_readable(sources: Sequence[str], column: str | None = None) -> None:
    """Open the first document of each source that is on this machine.

    Hashing and counting, as `describe` does, open no text column: a file without one, or a file that is
    broken, would be found by whoever reads it, hours later. Raises UserError as `documents` does.
    """
    for source in sources:
        if not source.startswith("hub:") and next(documents((source,), column), None) is None:
            raise UserError(f"{source} holds no text; name another, or leave it out")


def describe(sources: Sequence[str]) -> list[dict[str, Any]]:
    """One block a source for a results file: ``{"name", "sha256", "documents"}``, and what limits them.

    "documents" is None where only reading it all would tell. A file above 1 GiB has ``"sampled": true``:
    its hash covers its size and 64 evenly spaced blocks of 1 MiB.
    """
    names = [_short(source) for source in sources]
    return [
        _describe(source, name if names.count(name) == 1 else source) for source, name in zip(sources, names)
    ]


def _describe(source: str, name: str) -> dict[str, Any]:
    if source.startswith("hub:"):
        from huggingface_hub import HfApi

        split = _hub(source, None)
        try:
            revision = HfApi().dataset_info(split.repository).sha
        except Exception:  # offline, gated, absent: reading it will say so; the record holds no revision
            revision = None
        digest = hashlib.sha256(f"{source}@{revision}".encode()).hexdigest()
        return {"name": name, "sha256": digest, "documents": None, "revision": revision}
    files = _files(source)
    hashes = [_hash(path) for path, _ in files]
    if len(files) == 1 and Path(source).is_file():
        digest = hashes[0][0]
    else:
        total = hashlib.sha256()
        for (_, inner), (one, _) in zip(files, hashes):
            total.update(f"{inner}\0{one}\n".encode())
        digest = total.hexdigest()
    block: dict[str, Any] = {"name": name, "sha256": digest, "documents": _count(files)}
    if any(sampled for _, sampled in hashes):
        block["sampled"] = True
    return block


def _count(files: list[tuple[Path, str]]) -> int | None:
    total = 0
    for path, name in files:
        if kind_of(path) in PACKED or (path.suffix.lower() != ".parquet" and path.stat().st_size > WHOLE):
            return None
        for shard in _open_for_count(path, name):
            total += 1 if isinstance(shard, TextFile) else shard.count() or 0
    return total


def _open_for_count(path: Path, name: str) -> list[Shard]:
    if path.suffix.lower() != ".parquet":
        return open_file(path, name, None)
    schema, meta = parquet_head(path)
    first = schema.names[0]  # the column does not matter here
    groups = range(meta.num_row_groups)
    return [RowGroup(path, name, g, meta.row_group(g).num_rows, 0, first) for g in groups]


def _files(source: str) -> list[tuple[Path, str]]:
    """The files of a source with the names of their documents. Raises UserError when there are none."""
    if source in ("stdlib", "stdlib-heldout"):
        from .stdlib import heldout_modules, training_modules

        modules = training_modules() if source == "stdlib" else heldout_modules()
        return [(path, path.name) for path in modules]
    path = Path(source)
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"no data file {path} (nor is it 'stdlib', 'stdlib-heldout' or hub:OWNER/NAME)")
        return [(path, path.name)]
    there = sorted(p for p in path.rglob("*") if not _hidden(p, path) and p.is_file() and p.stat().st_size)
    inside = [p for p in there if kind_of(p)]
    if not inside:
        raise UserError(f"no text in directory {path}: no file of kind {', '.join(KINDS)} that is not empty")
    others = Counter(p.suffix.lower() or "(none)" for p in there if not kind_of(p))
    if others:
        _say_left_out(path, ", ".join(f"{count} {kind}" for kind, count in sorted(others.items())))
    return [(p, p.relative_to(path).as_posix()) for p in inside]


@lru_cache(maxsize=1024)
def _say_left_out(path: Path, others: str) -> None:
    """Once a directory: whoever meant those files reads it before the training, not behind it."""
    console.say(f"note: data {path}: files of other kinds are left out ({others}); known: {', '.join(KINDS)}")


def _hub(source: str, column: str | None) -> HubSplit:
    rest = source.removeprefix("hub:")
    owner, _, more = rest.partition("/")
    name, _, file = more.partition("/")
    if file and name:
        if packed_kind(file) is None:
            raise UserError(
                f"{source!r}: {Path(file).name} is of unknown kind; known: .jsonl .parquet .txt, or .gz"
            )
        return HubSplit(source, f"{owner}/{name}", None, "train", column, file)
    rest, _, split = rest.partition(":")
    repository, _, configuration = rest.partition("@")
    if repository.count("/") > 1 or not repository.strip("/"):
        raise UserError(
            f"{source!r} names no Hub data set; write hub:OWNER/NAME[@CONFIG][:SPLIT] or hub:OWNER/NAME/FILE"
        )
    return HubSplit(source, repository, configuration or None, split or "train", column)


def _hidden(path: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def _short(source: str) -> str:
    if source.startswith("hub:") or source in ("stdlib", "stdlib-heldout"):
        return source
    path = Path(source)
    return path.name + ("/" if path.is_dir() else "")


def _hash(path: Path) -> tuple[str, bool]:
    size = path.stat().st_size
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        if size <= WHOLE:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
            return digest.hexdigest(), False
        digest.update(str(size).encode())
        for number in range(64):
            stream.seek(number * (size - (1 << 20)) // 63)
            digest.update(stream.read(1 << 20))
    return digest.hexdigest(), True
