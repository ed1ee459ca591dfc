"""The results file: one JSON a (model, evaluation, setting), with everything needed to trace each number.

    {"schema": 1,
     "evaluation": "perplexity",
     "model": {"name", "hash", "window", "original_window", "factor", "method", "parameters", ...},
     "protocol": {"name": "sliding", "stride": 256, ...},
     "data": [{"name", "sha256", "documents", ...}, ...],
     "rows": [{...}, ...],                    one row a cell: its figures, n and interval
     "summary": {...},                        figures over all rows, such as k_max
     "provenance": {"ropewalk", "commit", "torch", "transformers", "python", "device", "dtype", "seed"}}

It holds no time of day and no duration: the same inputs give the same bytes.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import UserError
from ..files import RECORD, to_json, write_atomic

SCHEMA = 1
NUMBERS = {
    *("low", "high", "n", "right", "rate", "length", "depth", "distance", "context", "from", "to", "stride"),
    *("loss", "perplexity", "windows", "learning_rate", "step", "accuracy", "score", "stderr"),
    *("standard_error", "k_max", "k_choice", "target", "sample_low", "sample_high", "real_distance"),
}
"""Names that stand for a number, or null, wherever a row or a summary has them."""
LARGEST = 1e305
"""No count, loss or perplexity that we write comes near it; arithmetic with larger ones overflows."""
KEYS: dict[str, type] = {
    "evaluation": str,
    "model": dict,
    "protocol": dict,
    "data": list,
    "rows": list,
    "summary": dict,
    "provenance": dict,
}

HUGE = re.compile(r"(?<![\d.])\d{19}|[eE]\+?\d\d")
"""Without one of these in it, no number in a JSON text can be beyond 2^62, let alone infinite."""


def write_result(path: Path | str, result: dict[str, Any]) -> Path:
    """Write a complete result (without its ``schema``) at once. Raises AssertionError on a missing key."""
    assert set(result) == set(KEYS), f"a result holds {sorted(KEYS)}, not {sorted(result)}"
    return write_atomic(path, to_json({"schema": SCHEMA, **result}))


def read_result(path: Path | str) -> dict[str, Any]:
    """Read and check one results file. Raises UserError: not JSON, another schema, a part missing, a NaN."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text, parse_constant=_no_constant)
    except FileNotFoundError:
        raise UserError(f"no results file {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"results file {path} cannot be read ({error}); run the evaluation again") from None
    if not isinstance(found, dict) or "schema" not in found:
        raise UserError(f"{path} is not a ropewalk results file (no schema in it)")
    if found["schema"] != SCHEMA:
        raise UserError(
            f"results file {path} has schema {str(found['schema'])[:40]}; this version reads {SCHEMA}: "
            "run the evaluation again, or use the version that wrote it"
        )
    for key, kind in KEYS.items():
        if not isinstance(found.get(key), kind):
            raise UserError(f"results file {path} has no usable {key!r}; run the evaluation again")
    if not all(isinstance(row, dict) for row in found["rows"]):
        raise UserError(f"results file {path} has a row that is not a mapping; run the evaluation again")
    if HUGE.search(text):
        _require_finite(found, path)
    for number, row in enumerate(found["rows"], 1):
        _require_numbers(row, f"row {number}", path)
    _require_numbers(found["summary"], "summary", path)
    return found


def find_results(places: list[Path]) -> list[Path]:
    """Results files named or found below the directories named, in a fixed order.

    Raises UserError when a place does not exist or nothing is found.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(p for p in place.rglob("*.json") if _is_result(p, place))
            found.extend(inside)
        elif place.is_file():
            found.append(place)
        else:
            raise UserError(f"no results at {place}; name a results file or a directory of them")
    if not found:
        raise UserError(
            f"no results files below {', '.join(map(str, places))}; run `ropewalk evaluate` first"
        )
    return list(dict.fromkeys(found))


def provenance(*, device: str, dtype: str, seed: int, **more: Any) -> dict[str, Any]:
    """Versions, commit, device, precision and seed of the run that is going on."""
    return {
        "ropewalk": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "transformers": _version("transformers"),
        "device": device,
        "dtype": dtype,
        "seed": seed,
        **more,
    }


@cache
def _commit() -> str | None:
    """The commit of this source tree, with ``+`` when files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        top = subprocess.run(
            ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, timeout=10
        )
        if top.returncode != 0:
            return None
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10
        )
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "."],
            cwd=here,
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()[:12] + ("+" if dirty.stdout else "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_result(path: Path, below: Path) -> bool:
    """Whether a file looks like a results file: it names its evaluation, as no config or vocabulary does."""
    hidden = any(part.startswith(".") for part in path.relative_to(below).parts)
    if hidden or path.name == RECORD or not path.is_file():
        return False
    with open(path, "rb") as stream:
        head = stream.read(1 << 18)
    return re.search(rb'"evaluation"\s*:\s*"', head) is not None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _require_finite(value: Any, path: Path) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float) and not math.isfinite(item):
            raise UserError(
                f"results file {path} holds a number that is not finite; run the evaluation again"
            )
        if isinstance(item, int) and abs(item) > 1 << 64:
            raise UserError(f"results file {path} holds a number beyond 2^64; run the evaluation again")
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _require_numbers(row: dict[str, Any], where: str, path: Path) -> None:
    """Refuse a row in which a figure is a text, a list or a truth value, or larger than any figure is."""
    for name, value in row.items():
        if value is None or name not in NUMBERS:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
            shown = str(value)
            raise UserError(
                f"results file {path}: {name} of its {where} is {shown[:40]!r}, not a number up to "
                f"{LARGEST:g}; run the evaluation again"
            )
