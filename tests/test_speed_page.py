"""docs/speed.md says what the benchmarks wrote, and its prose the same figures."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ropewalk.model.known import known_config
from ropewalk.model.shape import shape_of
from ropewalk.train.memory import SAVINGS, Load, need

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "docs" / "speed_tables.py"
PAGE = " ".join((ROOT / "docs" / "speed.md").read_text(encoding="utf-8").split())


def rows(name: str) -> list[dict]:
    return json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))["rows"]


def test_the_page_is_in_step_with_the_committed_figures():
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_prose_says_what_the_files_say():
    now = {(r["window"], r["way"]): r for r in rows("training/h100.json")}
    ratio = now[32768, "ropewalk --compile"]["times_as_fast"]
    assert f"({ratio:.3f} at 32,768)" in PAGE and ratio > 1.49
    spent = [now[32768, way]["ms"]["attention"] for way in ("ropewalk --compile", "ordinary")]
    assert "with {:,.0f} ms a step in attention where cuDNN's takes {:,.0f}".format(*spent) in PAGE
    assert now[32768, "ropewalk --compile"]["kernel"] == "flash4"
    training = {(r["window"], r["way"]): r for r in rows("training/h100-cudnn.json")}
    first = training[32768, "ordinary"]
    left = 1000 * first["step_s"] / 1.5
    rest = left - first["ms"]["attention"] - first["ms"]["products"]
    assert f"leave {rest:.0f} ms of the {left:,.0f} a step" in PAGE
    flash = training[32768, "ordinary, flash kernel"]["step_s"]
    assert f"it is {flash / training[32768, 'ropewalk --compile']['step_s']:.2f} times" in PAGE
    scored = {(r["window"], r["way"]): r for r in rows("speed/perplexity-h100.json")}
    assert scored[8192, "parts"]["times_as_fast"] >= 3 and scored[32768, "parts"]["times_as_fast"] >= 1.6
    assert all(abs(r["difference"]) < 1e-3 for r in scored.values())
    before = {
        way: {(r["window"], r["way"]): r for r in rows(f"speed/perplexity-h100-{way}.json")}
        for way in ("cudnn", "flash4")
    }
    real = {(r["window"], r["way"]): r for r in rows("speed/perplexity-smollm2-h100.json")}
    waits = [one[8192, "ordinary"]["ms_a_window"] for one in (scored, real, *before.values())]
    assert f"between {min(waits):.1f} and {max(waits):.1f} ms a window" in PAGE
    assert f"ours is {min(waits) / scored[8192, 'parts']['ms_a_window']:.2f} times as fast" in PAGE
    assert f"it was {before['cudnn'][32768, 'parts']['ms_a_window']:.1f} ms" in PAGE
    for window, words in (
        (32768, "without them {:.1f} and {:.3f} times"),
        (8192, "at 8,192 {:.1f} and {:.2f}"),
    ):
        old = before["flash4"][window, "parts"]
        assert words.format(old["ms_a_window"], old["times_as_fast"]) in PAGE, window
    row, parts = scored[32768, "parts"], [0.0, 0.0]
    for name, ms in row["kernels_ms_a_window"].items():
        parts[0] += ms if "FlashAttention" in name else 0.0
        parts[1] += ms if name.startswith(("nvjet", "gated_tiles")) else 0.0
    said = (
        "Of the {:.0f} ms attention has {:.0f} ({:.0f} TFLOP/s, near what kernels reach with heads of 64), "
    )
    said += "products {:.0f}, all else {:.0f}."
    speed = 29 / 30 * row["floor_tflop"] * row["floor_attention_share"] / parts[0] * 1e3
    rest = row["ms_a_window"] - sum(parts)
    assert said.format(row["ms_a_window"], parts[0], speed, parts[1], rest) in PAGE, (parts, speed, rest)
    few = rows("training/h100-lora-7b-524288.json")[1]
    assert (few["window"], few["layers"]) == (524288, 2)
    shape = replace(shape_of(known_config("llama-2-7b")), layers=2)
    whole = 2 * (shape.attention_weights + shape.inner_weights) + 2 * shape.head_weights
    planned = need(shape, Load(whole, few["trained"], 524288, recompute=True, **SAVINGS[3])) / 1e9
    more = few["peak_gb"] - planned
    assert f"at 524,288 took {more:.1f} GB more than their sum of {planned:.1f}" in PAGE, (more, planned)


def test_the_sums_for_lora_are_the_plan_s():
    """Adapters of rank 8 on q, k, v and o: 8,388,608 and 6,815,744 parameters."""
    said = []
    for name, trained, cases in (
        ("llama-2-7b", 8_388_608, [(131072, 2), (131072, 3), (524288, 3)]),
        ("llama-3-8b", 6_815_744, [(524288, 3)]),
    ):
        config = known_config(name)
        assert config is not None
        shape = shape_of(config)
        parameters = shape.layers * (shape.attention_weights + shape.inner_weights) + 2 * shape.head_weights
        for length, form in cases:
            load = Load(parameters, trained, length, recompute=True, **SAVINGS[form])
            said.append(f"{need(shape, load) / 1e9:.1f}")
    words = (
        "takes {} GB at 131,072 tokens, or {} with the layers' inputs on the host, and 524,288 tokens {} GB; "
    )
    assert (words + "Llama-3-8B {} GB").format(*said) in PAGE, said
