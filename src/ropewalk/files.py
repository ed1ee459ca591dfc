"""Files that are whole or absent: written beside, flushed, renamed into place; and what identifies them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import UserError

LONGEST_YAML, MOST_VALUES, DEEPEST = 1_000_000, 100_000, 20
"""Characters, values (anchors expanded) and levels of a recipe; the largest of ours has a hundred values."""

RECORD = "ropewalk.json"
"""In every directory that ropewalk makes: what was done, from what, with which settings."""

PARTIAL, OLD = ".partial", ".old"
"""What is being written and what is being replaced: `.NAME.xxxxxxxx.partial`, `.NAME.xxxxxxxx.old`."""

_held: set[Path] = set()
"""Names that this process has locked."""


def write_atomic(path: Path | str, content: bytes | str) -> Path:
    """Write ``content`` so that a reader, or a crash, sees the old file or the new one, nothing between.

    Halves of characters, which JSON can hold and UTF-8 cannot, are written as JSON has them (``\\ud800``).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
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
def new_directory(path: Path | str, verb: str) -> Iterator[Path]:
    """Fill a directory beside ``path``; on success it is flushed and renamed to ``path``, else removed.

    An existing ``path`` must be empty or made by ``verb`` (see `require_ours`); it is replaced only at the
    end. The name is `locked` meanwhile, so that two processes never fill the same output.
    """
    path = Path(path)
    require_ours(path, verb)
    with _locked_once(path), beside_directory(path) as place:
        yield place
        os.chmod(place, 0o777 & ~_umask())
        for file in place.rglob("*"):
            if file.is_file():
                sync_file(file)
        replace_directory(place, path)


@contextlib.contextmanager
def beside_directory(path: Path) -> Iterator[Path]:
    """A working directory beside ``path`` that is removed at the end, by the next `locked` at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def remove_directory(path: Path, beside: Path) -> None:
    """Remove a directory that belongs to ``beside``; its name goes first, so that no half of it has it."""
    if path.exists():
        with beside_directory(beside) as place:
            os.rename(path, place / "directory")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """The name of a file beside ``path`` to be written; on success it is flushed and renamed to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked_once(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=PARTIAL, dir=path.parent)
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o666 & ~_umask())
            sync_file(Path(name))
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        sync_directory(path.parent)


def replace_directory(new: Path, path: Path) -> None:
    """Put the finished directory ``new`` in the place of ``path``; the old one goes last.

    Where the system can exchange two names at once (Linux), ``path`` is at every moment the old or the new
    one; elsewhere it is absent for an instant, and `clear_leftovers` puts the old one back after a kill.
    """
    old: Path | None = None
    if not path.exists():
        os.rename(new, path)
    elif _exchange(new, path):
        old = new
    else:
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=OLD, dir=path.parent))
        os.rename(path, old / "directory")
        os.rename(new, path)
    sync_directory(path.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, by Linux's renameat2; False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def clear_leftovers(path: Path) -> None:
    """Remove what a killed process left beside ``path``; only for who holds its lock.

    An old directory that had lost its name when the kill came gets it back.
    """
    try:
        names = [entry.name for entry in os.scandir(path.parent) if entry.name.startswith(f".{path.name}.")]
    except OSError:
        return
    for name in names:
        left = path.parent / name
        if not _left(name, path.name):
            continue
        if name.endswith(OLD) and not path.exists() and (left / "directory").is_dir():
            os.rename(left / "directory", path)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _left(name: str, of: str) -> bool:
    """Is ``name`` what a killed writer of ``of`` leaves? `.a.b.x.partial` belongs to `a.b`, not to `a`."""
    return re.fullmatch(rf"\.{re.escape(of)}\.[a-z0-9_]{{8}}(\.partial|\.old)", name) is not None


def require_ours(path: Path | str, *verbs: str) -> None:
    """Refuse to write into a directory that holds something which none of ``verbs`` made.

    A directory is replaced whole, and what another verb left there, such as hours of training, is no
    earlier form of what comes now.
    """
    path = Path(path)
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"output {path} is a file; name a directory that is new, empty or made by ropewalk")
    if not (path / RECORD).is_file() and any(not _left(entry.name, RECORD) for entry in path.iterdir()):
        raise UserError(
            f"output directory {path} is not empty and was not made by ropewalk (no {RECORD} in it); "
            "name another, or empty it first"
        )
    if not (path / RECORD).is_file():
        return
    record = read_record(path)
    if record is None:
        raise UserError(
            f"output directory {path} holds a {RECORD} that cannot be read: nothing says what made it; "
            "name another output, restore that file, or remove the directory first"
        )
    if record.get("verb") not in verbs:
        raise UserError(
            f"{path} holds what `ropewalk {record.get('verb')}` made; name another output, or remove it first"
        )


def write_record(directory: Path | str, record: dict[str, Any]) -> None:
    """Leave the record of a finished step in its directory; the caller holds the directory."""
    clear_leftovers(Path(directory) / RECORD)
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
    """Hold ``directory`` (or a file's name) for this process; a second one is refused at once.

    What a killed process left beside it is cleared. The lock is a file beside the directory, so that the
    directory itself can be replaced, and the operating system releases it however the process ends.
    On a file system without locks nothing is held.
    """
    directory = Path(directory)
    made = [place for place in directory.parents if not place.exists()]
    directory.parent.mkdir(parents=True, exist_ok=True)
    name = directory.parent / f".{directory.name}.lock"
    handle, alone = _lock(name, directory)
    if alone:
        clear_leftovers(directory)
    _held.add(_place(directory))
    try:
        yield
    finally:
        _held.discard(_place(directory))
        with contextlib.suppress(OSError):
            name.unlink()  # while it is held; who waits for the same file sees that it is gone
        os.close(handle)
        with contextlib.suppress(OSError):
            for place in made:  # nothing was written: what was made for it goes too
                place.rmdir()


def _locked_once(path: Path) -> contextlib.AbstractContextManager[None]:
    """`locked`, or nothing where this process holds ``path`` already."""
    return contextlib.nullcontext() if _place(path) in _held else locked(path)


def _place(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _lock(name: Path, directory: Path) -> tuple[int, bool]:
    """(the lock file's descriptor, whether it could be locked). Raises UserError when another has it."""
    while True:
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                return handle, False
            os.close(handle)
            raise UserError(
                f"another ropewalk process{_holder(name)} is writing to {directory}; wait for it, or name "
                "another output"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(name), os.fstat(handle)):
                with contextlib.suppress(OSError):  # a full disk: it only says less to others
                    os.ftruncate(handle, 0)
                    os.write(handle, f"{os.getpid()} on {socket.gethostname()}".encode(errors="replace"))
                return handle, True
        os.close(handle)  # its holder removed it between our opening and our locking


def _holder(name: Path) -> str:
    """Who has a lock file, as it says, in brackets; nothing where it says nothing."""
    with contextlib.suppress(OSError, ValueError):
        found = re.fullmatch(r"(\d+) on (\S+)", name.read_text()[:300])
        if found is not None:
            here = found[2] == socket.gethostname()
            return f" (pid {found[1]}{'' if here else f' on {found[2]}'})"
    return ""


def to_json(value: Any, *, allow_nan: bool = False) -> str:
    """The one form in which we write JSON: sorted keys, two spaces, a final newline, whole characters.

    allow_nan: other people's configs may hold ``Infinity``; our own files hold no such number.
    """
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=allow_nan, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace").decode()


def from_yaml(text: str) -> Any:
    """Settings from YAML: plain values only, no tag runs anything. Raises ValueError with one line.

    What anchors would expand into more than MOST_VALUES values, or nests deeper than DEEPEST, is refused.
    """
    import yaml

    if len(text) > LONGEST_YAML:
        raise ValueError(f"it has {len(text):,} characters, more than {LONGEST_YAML:,}")
    try:
        found = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(f"it nests deeper than {DEEPEST} levels") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # impossible dates are ValueErrors
        raise ValueError(" ".join(str(error).split())[:300]) from None
    stack, count = [(found, 0)], 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MOST_VALUES or depth > DEEPEST:
            limit = f"{DEEPEST} levels" if depth > DEEPEST else f"{MOST_VALUES:,} values"
            raise ValueError(f"it holds more than {limit}, its anchors expanded")
        inside = [*value, *value.values()] if isinstance(value, dict) else value
        if isinstance(inside, list | tuple | set | frozenset):
            stack.extend((one, depth + 1) for one in inside)
    return found


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
