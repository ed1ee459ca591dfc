"""What the system refuses (space, memory, open files, permission), found in whatever error says so."""

from __future__ import annotations

import errno
import os
import re
import resource
from pathlib import Path

from .errors import UserError

CURES = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some of the quota, then run the same command again",
    errno.EFBIG: "raise the limit on a file's size, then run the same command again",
    errno.EROFS: "name an output on a file system that can be written",
    errno.EACCES: "change the permission, or name another place",
    errno.EPERM: "change the permission, or name another place",
    errno.EMFILE: "raise the limit on open files (ulimit -n), then run the same command again",
    errno.ENFILE: "let other programs close files, then run the same command again",
    errno.ENOMEM: "free memory or raise its limit (ulimit -v), then run the same command again",
    errno.EAGAIN: "raise the limits on memory and processes (ulimit), then run the same command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "a directory is in the way; name another place",
    errno.EEXIST: "a file is in the way; name another place",
    errno.ENOTDIR: "a part of the path is a file; name another place",
}
"""Refusals that are a user's to lift, and how; any other error of the system is ours."""

SHORTAGES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Those that libraries tell in words of their own."""

MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "failed to allocate", "unable to mmap")
THREADS = ("can't start new thread",)
"""What Python and torch say of memory and threads that they did not get."""


def refusal(error: BaseException) -> tuple[int, str] | None:
    """(errno, the file's name or '') of what the system refused; None where it refused nothing.

    Looks at the error, then at those that led to it: libraries wrap what the system said, or say it in words.
    """
    seen: BaseException | None = error
    for _ in range(20):
        if seen is None:
            return None
        number = _number(seen)
        if number is not None and (seen is error or number in SHORTAGES):
            name = getattr(seen, "filename", None)
            if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # of a copy, what was written to
                name = getattr(seen, "filename2", None) or name
            return number, name if isinstance(name, str) else os.fsdecode(name) if name else ""
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def told(error: BaseException) -> str | None:
    """``File too large (FILE): raise the limit …``, what was refused with its cure; None as `refusal`."""
    refused = refusal(error)
    if refused is None:
        return None
    number, name = refused
    where = f" ({name if len(name) <= 300 else name[:300] + '…'})" if name else ""
    return f"{os.strerror(number)}{where}: {CURES[number]}"


def cured(text: str) -> str:
    """A line of ours with the cure of the shortage behind it, where it tells one and no cure.

    >>> cured("m is not written (Read-only file system)")
    'm is not written (Read-only file system); name an output on a file system that can be written'
    """
    for number in SHORTAGES:
        if os.strerror(number) in text and CURES[number].partition(",")[0] not in text:
            return f"{text}; {CURES[number]}"
    return text


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in CURES else None
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error)
    found = re.search(r"\(os error (\d+)\)", text)  # as Rust writes it
    if found and int(found[1]) in SHORTAGES:
        return int(found[1])
    for number in SHORTAGES:
        if os.strerror(number) in text:
            return number
    if any(words in text for words in MEMORY):
        return errno.ENOMEM
    if any(words in text for words in THREADS):
        return errno.EAGAIN
    return None


def require_room(what: str, files: int, space: int) -> None:
    """Refuse a work that dies without a word when a limit is too low for it.

    files: that it holds open at once.   space: bytes of address space that it reserves (not memory it uses).
    Raises UserError naming the limit. Where the system does not tell what is in use, nothing is asked.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    try:
        used = len(os.listdir("/proc/self/fd"))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except FileNotFoundError:
        return
    if limit != resource.RLIM_INFINITY and limit - used < files:
        raise UserError(
            f"{what} needs {files} more open files; the limit is {limit}, {used} are in use: "
            "raise it (ulimit -n), then run the same command again"
        )
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit - pages * resource.getpagesize() < space:
        raise UserError(
            f"{what} reserves {space >> 30} GiB of address space (not memory); the limit is "
            f"{limit >> 20:,} MiB: raise it (ulimit -v unlimited), then run the same command again"
        )
