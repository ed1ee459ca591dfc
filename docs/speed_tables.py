"""Fill the tables of docs/speed.md from what the benchmarks wrote.

    python docs/speed_tables.py            write them
    python docs/speed_tables.py --check    exit 1 when the page is not in step

A page says `<!-- speed: NAME -->` … `<!-- end -->`; the names are those of `TABLES`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from filling import keep_in_step

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "docs" / "results"
BLOCK = re.compile(r"(<!-- speed: (\S+) -->\n).*?(<!-- end -->)", re.S)


def read(name: str) -> dict[str, Any]:
    """A results file by its name below docs/results."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text."""
    lines = ["| " + " | ".join(titles) + " |", "| --- |" + " ---: |" * (len(titles) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def conditions(content: dict[str, Any], what: str, weights: str = "random weights") -> str:
    """One line below a table. what: was measured how often."""
    c = content["conditions"]
    rates = (
        f"{c['measured_tflops']:.0f} TFLOP/s and {c['measured_gigabytes_a_second'] / 1e3:.1f} TB/s measured"
    )
    versions = f"torch {c['torch']}, transformers {c['transformers']}"
    return f"\n\n{c['device']}, {versions}; {rates}; {weights}; {what}."


def perplexity(file: str = "speed/perplexity-h100.json", weights: str = "random weights") -> str:
    """Milliseconds a window, by way, beside the ordinary one."""
    content = read(file)
    rows = [
        [
            f"{r['window']:,}, {NAMES.get(r['way'], r['way'])}",
            f"{r['ms_a_window']:.1f}",
            f"{r['times_as_fast']:.2f}",
            f"{r['of_floor']:.2f}",
            f"{r['memory_gb']:.1f}",
            f"{r['difference']:+.0e}",
            f"{r['windows']}",
        ]
        for r in sorted(content["rows"], key=lambda r: (r["window"], -r["ms_a_window"]))
        if r["way"] in NAMES
    ]
    titles = ["window, way", "ms a window", "times as fast", "× floor", "GB", "perplexity off by", "windows"]
    return markdown(titles, rows) + conditions(content, "the time of all windows over their number", weights)


def smollm2() -> str:
    """The same with a real model's weights on a book."""
    return perplexity("speed/perplexity-smollm2-h100.json", "SmolLM2-135M-Instruct on a book")


NAMES = {
    "ordinary": "ordinary: a window at a time, all logits in float32",
    "compiled": "transformers' layers compiled",
    "parts": "ropewalk",
    "parts, gate by itself": "ropewalk, product and gate in two kernels",
    "parts, whole last layer": "ropewalk, every row of the last layer",
}


def training(file: str = "training/h100.json") -> str:
    """Tokens a second and memory, by way, beside the ordinary one."""
    content = read(file)
    rows = [
        [
            f"{r['window']:,}, {r['way']}",
            f"{r['tokens_a_second']:,.0f}",
            f"{r['times_as_fast']:.2f}",
            f"{r['of_floor']:.2f}",
            f"{r['peak_gb']:.1f}",
            f"{r['memory_ratio']:.2f}",
            " / ".join(f"{r['ms'][part]:,.0f}" for part in ("attention", "products", "other")),
            f"{r['loss_difference']:+.0e}",
        ]
        for r in content["rows"]
    ]
    titles = ["window, way", "tokens/s", "times as fast", "× floor", "GB", "of the memory",
              "ms: attention / products / other", "loss off by"]  # fmt: skip
    steps = content["conditions"]["timed_steps"]
    return markdown(titles, rows) + conditions(content, f"the median of {steps} steps")


def cudnn() -> str:
    """The same on an earlier day: cuDNN's attention, and compiled layers that kept more."""
    return training("training/h100-cudnn.json")


def fifty() -> str:
    """The losses of a training's beginning, ours beside the ordinary way's."""
    content = read("speed/fifty-steps-h100.json")
    first, ours = (row["losses"] for row in content["rows"])
    apart = [abs(one - other) for one, other in zip(first, ours, strict=True)]
    rows = [
        [f"{step}", f"{first[step]:.4f}", f"{ours[step]:.4f}", f"{max(apart[: step + 1]):.4f}"]
        for step in range(0, len(first), 10)
    ]
    titles = ["step", "loss, ordinary", "ropewalk --compile", "most apart so far, nats"]
    what = f"steps of {content['conditions']['tokens_a_step']:,} tokens, windows of 16,384"
    return markdown(titles, rows) + conditions(content, what)


def lora() -> str:
    """One optimizer step of LoRA on a 7B shape, and on two of its layers at a longer window."""
    files = [read(f"training/h100-lora-7b{more}.json") for more in ("", "-524288")]
    rows = []
    for r in (row for content in files for row in content["rows"] if row["window"] >= 16_384):
        parts = "; ".join(f"{name} {size:.1f}" for name, size in r["parts_gb"].items())
        where = f"{r['window']:,}, {r['layers']} layers" + ", inputs on the host" * r["offload"]
        rows.append([where, f"{r['step_s']:.1f}", f"{r['tflops']:.0f}", f"{r['of_floor']:.2f}", parts])
    titles = ["window", "s a step", "TFLOP/s", "× floor", "GB"]
    second = files[1]["conditions"]["measured_tflops"]
    return markdown(titles, rows) + conditions(
        files[0], f"one step; the second row in a run with {second:.0f} TFLOP/s"
    )


def gated() -> str:
    """Gate and product in one kernel or two; the last rows' attention with a mask and without."""
    content = read("speed/gated-h100.json")
    rows = []
    for r in content["rows"]:
        if "rows" in r:
            what, speed = f"{r['rows']:,} tokens, {r['way']}", f"{r['tflops']:.0f}"
        else:
            what, speed = f"last 256 rows of {r['windows']} × {r['length']:,}, {r['way']}", ""
        rows.append([what, f"{r['ms']:.3f}", speed, f"{r['error']:.0e}"])
    titles = ["what", "ms", "TFLOP/s", "off by"]
    where = f"{content['device']}, torch {content['torch']}"
    return markdown(titles, rows) + f"\n\n{where}; the median of 30 runs."


def gpus() -> str:
    """One GPU against two."""
    content = read("speed/many-gpus-h200.json")
    rows = []
    for r in content["rows"]:
        beside = (
            [f"{r['times_as_fast']:.2f}", f"{r['loss_difference']:.0e}"] if "times_as_fast" in r else ["", ""]
        )
        speed, peak = f"{r['tokens_per_second']:,}", f"{r['peak_bytes'] / 1e9:.1f}"
        rows.append([f"{r['gpus']} × H200, {r['name']}", speed, beside[0], peak, beside[1]])
    one = content["rows"][0]["provenance"]
    where = f"{one['device']}, torch {one['torch']}, transformers {one['transformers']}"
    rest = (
        f"{content['batch']} windows of {content['window']:,} tokens, the median of {content['steps']} steps"
    )
    titles = ["GPUs, `--parallel`", "tokens/s", "times as fast", "GB on the fullest", "loss off by at most"]
    return markdown(titles, rows) + f"\n\n{where}; {rest}; random weights in the shape of SmolLM2-135M."


TABLES = {
    "perplexity": perplexity,
    "smollm2": smollm2,
    "training": training,
    "cudnn": cudnn,
    "fifty": fifty,
    "lora": lora,
    "gated": gated,
    "gpus": gpus,
}


def filled(text: str) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


if __name__ == "__main__":
    sys.exit(keep_in_step(PAGE, filled, "speed_tables.py"))
