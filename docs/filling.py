"""A page whose tables are made from files: written, or found out of step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path


def keep_in_step(page: Path, filled: Callable[[str], str], script: str) -> int:
    """Write the page with its tables made anew; with --check, only say whether that would change it.

    filled: the page's text with every table made anew.   Returns the exit code.
    """
    old = page.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv[1:]:
        if new != old:
            print(f"docs/{page.name} is not in step; run python docs/{script}")
        return int(new != old)
    page.write_text(new, encoding="utf-8")
    return 0
