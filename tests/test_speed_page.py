"""docs/speed.md says what the benchmarks wrote, and its prose the same figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs" / "speed_tables.py"
PAGE = " ".join((ROOT / "docs" / "speed.md").read_text(encoding="utf-8").split())


def rows(name: str) -> list[dict]:
    return json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))["rows"]


def test_the_page_is_in_step_with_the_committed_figures():
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_prose_says_what_the_files_say():
    training = {(r["window"], r["way"]): r for r in rows("training/h100.json")}
    first = training[32768, "ordinary"]
    left = 1000 * first["step_s"] / 1.5
    rest = left - first["ms"]["attention"] - first["ms"]["products"]
    assert f"leave {rest:.0f} ms of the {left:,.0f} a step" in PAGE
    flash = training[32768, "ordinary, flash kernel"]["step_s"]
    assert f"it is {flash / training[32768, 'ropewalk --compile']['step_s']:.2f} times" in PAGE
    scored = next(
        r for r in rows("speed/perplexity-h100.json") if (r["window"], r["way"]) == (32768, "parts")
    )
    parts = [0.0, 0.0]
    for name, ms in scored["kernels_ms_a_window"].items():
        parts[0] += ms if "sdpa" in name else 0.0
        parts[1] += ms if name.startswith("nvjet") else 0.0
    rest = scored["ms_a_window"] - sum(parts)
    said = (
        "attention takes {:.0f}, by the fastest kernel that torch has for it (453 TFLOP/s), products {:.0f}"
    )
    assert said.format(*parts) + f", all else {rest:.0f};" in PAGE
