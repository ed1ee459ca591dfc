"""ropewalk: lengthen the context window of a RoPE language model, and prove that it worked.

Every verb of the command line is a function here with the same settings:

    import ropewalk
    ropewalk.extend("path/to/model", "longer-model", to=32768)

Verbs are imported when first used, so that `import ropewalk` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


_MAKING = ("demo", "run", "plan", "extend", "finetune", "export")
_VERBS = (*_MAKING, "evaluate", "sweep", "doctor", "report", "ask")


def __getattr__(name: str) -> Any:
    if name in _VERBS:
        return getattr(importlib.import_module(f"ropewalk.verbs.{name}"), name)
    raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")
