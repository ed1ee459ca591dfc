"""Under which conditions a campaign's figures came about, and where they go."""

from __future__ import annotations

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
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


def tell(found: dict[str, Any], out: Path | None) -> None:
    """Print a campaign's figures, and write them to ``out`` where that is given."""
    text = json.dumps(found, indent=2, sort_keys=True) + "\n"
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    print(text)
