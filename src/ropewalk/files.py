"""Files that are whole or absent: written beside, flushed, renamed into place; and what identifies them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import UserError

RECORD = "ropewalk.json"
"""In every directory that ropewalk makes: what was done, from what, with which settings."""


def write_atomic(path: Path | str, content: bytes | str) -> Path:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one, nothing between."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync_directory(path.parent)
    return path


@contextlib.contextmanager
def new_directory(path: Path | str) -> Iterator[Path]:
    """Fill a directory beside ``path``; on success it is flushed and renamed to ``path``, else removed.

    An existing ``path`` must be empty or ours (see `require_ours`); it is replaced only at the end.
    """
    path = Path(path)
    require_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield beside
        os.chmod(beside, 0o777 & ~_umask())
        for file in beside.rglob("*"):
            if file.is_file():
                sync_file(file)
        replace_directory(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def replace_directory(new: Path, path: Path) -> None:
    """Put the finished directory ``new`` in the place of ``path``; the old one goes last."""
    old: Path | None = None
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        os.rename(path, old / "directory")
    os.rename(new, path)
    sync_directory(path.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def require_ours(path: Path | str) -> None:
    """Refuse to write into a directory that holds something which ropewalk did not make."""
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"output {path} is a file; name a directory that is new, empty or made by ropewalk")
    if any(path.iterdir()) and not (path / RECORD).is_file():
        raise UserError(
            f"output directory {path} is not empty and was not made by ropewalk (no {RECORD} in it); "
            "name another, or empty it first"
        )


def write_record(directory: Path | str, record: dict[str, Any]) -> None:
    """Leave the record of a finished step in its directory."""
    write_atomic(Path(directory) / RECORD, to_json(record))


def read_record(directory: Path | str) -> dict[str, Any] | None:
    """The record that a finished step left, or None when there is none (or it is not readable as one)."""
    try:
        record = json.loads((Path(directory) / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


@contextlib.contextmanager
def locked(directory: Path | str) -> Iterator[None]:
    """Hold ``directory`` for this process; a second one on the same directory is refused at once.

    The lock file stands beside the directory, so that the directory itself can be replaced, and is
    released by the operating system however the process ends.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    name = directory.parent / f".{directory.name}.lock"
    with open(name, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another ropewalk process is writing to {directory}; wait for it, or name another output"
            ) from None
        yield


def to_json(value: Any) -> str:
    """The one form in which we write JSON: sorted keys, two spaces, no NaN, a final newline."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that identify a JSON value: equal values, equal digits."""
    text = json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, read in blocks, as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link ``source`` to ``target`` where the file system can, else copy: same bytes either way."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def sync_file(path: Path) -> None:
    """Flush one file to the disk."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Flush a directory's entries, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
