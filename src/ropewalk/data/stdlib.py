"""Long text that every machine with Python has: the standard library's own modules, found at run time.

The embedded model's test documents are the modules of `HELD_OUT`; it never saw them, in no version and
in no vendored copy (`recipes/embedded/corpus.py` drops by name and by content).
"""

from __future__ import annotations

import os
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

SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3"}
"""Directories that hold what was installed later, tests, or another Python's grammar."""

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
    found: list[Path] = []
    for place, below, names in os.walk(root):
        below[:] = sorted(set(below) - SKIPPED)  # never walks into what was installed
        files = (Path(place) / name for name in names if name.endswith(".py"))
        found += [p for p in files if p.stem not in HELD_OUT and p.stat().st_size >= SMALLEST]
    found.sort()
    if not found:
        raise UserError(f"no standard-library sources below {root}; install Python with them")
    return found
