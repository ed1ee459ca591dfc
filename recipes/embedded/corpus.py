"""The embedded model's training text: Python sources of this machine, without the held-out modules.

Dropped: files named like a held-out module anywhere, files that share more than a tenth of their longer
lines with one (vendored and renamed copies), duplicates, generated files over 400 kB.
"""

from __future__ import annotations

import hashlib
import random
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from ropewalk.data.stdlib import HELD_OUT, heldout_modules

LARGEST = 400_000
SMALLEST = 1_500


def lines_of(text: str) -> list[str]:
    """The lines that identify a text: longer than 25 characters, stripped."""
    return [line.strip() for line in text.splitlines() if len(line.strip()) > 25]


def collect(places: Iterable[Path], most: int, seed: int = 0) -> tuple[list[str], dict[str, int]]:
    """Texts of about ``most`` characters in all, in an order given by ``seed``, and what was dropped."""
    secret = {line for path in heldout_modules() for line in lines_of(path.read_text("utf-8", "replace"))}
    files = sorted({path for place in places for path in place.rglob("*.py")})
    random.Random(seed).shuffle(files)
    seen: set[str] = set()
    texts: list[str] = []
    dropped = {"by name": 0, "by content": 0, "duplicate": 0, "by size": 0}
    total = 0
    for path in files:
        if total >= most:
            break
        if not SMALLEST <= path.stat().st_size <= LARGEST:
            dropped["by size"] += 1
            continue
        if set(HELD_OUT) & {path.stem, path.stem.lstrip("_"), path.parent.name}:
            dropped["by name"] += 1
            continue
        text = path.read_text("utf-8", "replace")
        digest = hashlib.sha256(text.encode()).hexdigest()
        lines = lines_of(text)
        if digest in seen:
            dropped["duplicate"] += 1
        elif lines and sum(line in secret for line in lines) > len(lines) / 10:
            dropped["by content"] += 1
        else:
            seen.add(digest)
            texts.append(text)
            total += len(text)
    return texts, dropped


def places() -> list[Path]:
    """Where Python sources lie on this machine: the standard library and the installed packages."""
    return [Path(p) for p in {sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}]
