"""Long text that every machine with Python has: the standard library's own modules, found at run time.

The embedded model's test documents are the modules of `HELD_OUT`; it never saw them, in no version and
in no vendored copy (`recipes/embedded/corpus.py` drops by name and by content).
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from ..errors import UserError

HELD_OUT = (
    "argparse",
    "difflib",
    "doctest",
    "imaplib",
    "ipaddress",
    "mailbox",
    "optparse",
    "pickletools",
    "statistics",
    "tarfile",
)
"""Modules for tests: long, present in every supported Python version, one file each."""

SMALLEST = 6_000
"""Bytes; a shorter module holds less than one long window and is no use for training on long text."""


def standard_library() -> Path:
    """Directory of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def heldout_modules() -> list[Path]:
    """Source files of the held-out modules, by name. Raises UserError where they are not installed."""
    found = [standard_library() / f"{name}.py" for name in HELD_OUT]
    present = [path for path in found if path.is_file()]
    if not present:
        raise UserError(f"no standard-library sources below {standard_library()}; install Python with them")
    return present


def training_modules() -> list[Path]:
    """Source files for training: every module and package of the library but the held-out ones, its
    tests and what was installed into it; sorted by path, so that a seed gives the same order."""
    root = standard_library()
    skip = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
    found = [
        path
        for path in sorted(root.rglob("*.py"))
        if not skip.intersection(path.relative_to(root).parts)
        and path.stem not in HELD_OUT
        and path.stat().st_size >= SMALLEST
    ]
    if not found:
        raise UserError(f"no standard-library sources below {root}; install Python with them")
    return found
