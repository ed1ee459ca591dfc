"""Under which conditions a campaign's figures came about."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from typing import Any


def conditions() -> dict[str, Any]:
    """Versions, source and kind of machine; no names of machines or places."""
    from ropewalk.results.record import provenance

    known = provenance(device="cpu", dtype="float32", seed=0)
    return {
        "ropewalk": known["ropewalk"],
        "commit": known["commit"],
        "python": known["python"],
        "torch": known["torch"],
        "transformers": known["transformers"],
        "safetensors": version("safetensors"),
        "system": f"{platform.system()} {platform.machine()}",
        "threads": 1,
    }


def one_thread() -> None:
    """Before torch is imported: one thread, no threads of the tokenizers, no network."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
