"""The plan beside what was measured: memory and time of the same trainings, into docs/plan.md.

    python benchmarks/plan.py            write the table
    python benchmarks/plan.py --check    exit 1 when the page is not in step (the test suite calls this)

Every docs/results/training/*.json is read. Two forms: `{"measured": "training", "card", "source", "runs"}`,
each run with its conditions, `tokens_a_second` and `peak_gb` (null where it was not measured); and the files
that `benchmarks/training.py` writes, `{"conditions", "rows"}`.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ropewalk.model.known import known_config
from ropewalk.model.shape import Shape, shape_of
from ropewalk.train.cards import CARDS, Card
from ropewalk.train.memory import GPU_TOKENS, Load, need
from ropewalk.train.pace import pace

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "plan.md"
RESULTS = ROOT / "docs" / "results" / "training"
BLOCK = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->)", re.S)
EARLIER = {"h100-cudnn.json": "--compile"}
"""Files, and what ways in them are called that take less memory since then: their time alone is compared."""
FEWEST = 16_384
"""Tokens in a window from which on a row is compared: the plan does not know what launching kernels takes."""
MEMORY, TIME = 0.15, 0.25
"""How far the plan may be from what was measured."""


@dataclass(frozen=True)
class Line:
    """One measured run beside its plan. peak: bytes, speed: tokens a second; None where not measured."""

    name: str
    window: int
    card: str
    peak: float | None
    speed: float | None
    planned_peak: float
    planned_speed: float

    @property
    def memory_off(self) -> float | None:
        """Planned over measured peak, less one."""
        return None if self.peak is None else self.planned_peak / self.peak - 1

    @property
    def time_off(self) -> float | None:
        """Planned over measured time, less one."""
        return None if self.speed is None else self.speed / self.planned_speed - 1


def lines(folder: Path = RESULTS) -> list[Line]:
    """All measured runs, in the order of the files' names."""
    found = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("measured") == "training":
            found += [_line(run, CARDS[content["card"]]) for run in content["runs"]]
        else:
            found += _benchmark(content, EARLIER.get(path.name))
    return found


def _benchmark(content: dict[str, Any], earlier: str | None = None) -> list[Line]:
    """The rows of a file of `benchmarks/training.py` that the plan speaks of.

    earlier: a word in the names of those whose memory is another by now.
    """
    device = content["conditions"]["device"].lower()
    card = next((card for name, card in CARDS.items() if name in device), None)
    if card is None or content["conditions"].get("toy"):
        return []
    found = []
    for row in content["rows"]:
        before = earlier is not None and earlier in row["way"]
        if row["way"].endswith("flash kernel") or (before and row.get("recompute")):
            continue  # the plan is of the fastest kernel; compiled layers kept no attention then
        if row["window"] < FEWEST:
            continue
        lora = "rank" in row
        run = {
            "name": row["way"] + (", earlier code" if before else ""),
            "model": "llama-2-7b" if lora else "smollm2-135m",
            "layers": row.get("layers"),
            "lora": lora,
            "trained": row.get("trained"),
            "recompute": True if lora else row.get("recompute", False),
            "attention_kept": row.get("attention_kept", False),
            "compiled": row.get("compiled", False),
            "window": row["window"],
            "micro_batch": row.get("micro_batch", 1),
            "tokens_a_step": row["window"] if lora else content["conditions"]["tokens_a_step"],
            "rows_of_logits": row.get("rows_of_logits"),
            "tile": row.get("tile", 0),
            "offload": row.get("offload", False),
            "tokens_a_second": row["tokens_a_second"],
            "peak_gb": None if before else row["peak_gb"],
        }
        found.append(_line(run, card))
    return found


def _line(run: dict[str, Any], card: Card) -> Line:
    config = known_config(run["model"])
    assert config is not None, run["model"]
    shape = shape_of({**config, "num_hidden_layers": run.get("layers") or config["num_hidden_layers"]})
    parameters = count(shape)
    load = Load(
        parameters=parameters,
        trained=(run.get("trained") or parameters // 100) if run["lora"] else parameters,
        length=run["window"],
        rows=run["micro_batch"] or max(1, GPU_TOKENS // run["window"]),
        recompute=run["recompute"],
        attention_kept=run.get("attention_kept") or False,
        compiled=run.get("compiled") or False,
        tile=run.get("tile") or 0,
        offload=run.get("offload") or False,
        logits=run["rows_of_logits"] or 0,
    )
    timed, work = shape, load
    if run.get("body_alone"):  # no head, no loss, no optimizer
        timed, work = replace(shape, vocab=1), replace(load, trained=parameters, shards=1 << 40)
    tokens = run["tokens_a_step"]
    return Line(
        name=f"{run['model']}{f' ({shape.layers} layers)' if run.get('layers') else ''}, {run['name']}",
        window=run["window"],
        card=card.name,
        peak=None if run["peak_gb"] is None else run["peak_gb"] * 1e9,
        speed=run["tokens_a_second"],
        planned_peak=need(shape, load),
        planned_speed=tokens / pace(timed, work, card, window=run["window"], tokens=tokens).total,
    )


def count(shape: Shape) -> int:
    """Parameters of a Llama of this shape."""
    layer = shape.attention_weights + shape.inner_weights + 2 * shape.hidden
    return shape.layers * layer + shape.hidden + shape.head_weights * (1 if shape.tied else 2)


def table(found: list[Line]) -> str:
    """As Markdown."""
    rows = [
        "| run | card | window | peak, GB | planned | off | tokens/s | planned | time off |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for one in found:
        memory, planned = ("not measured", "")
        if one.peak is not None:
            memory, planned = f"{one.peak / 1e9:.1f}", f"{one.planned_peak / 1e9:.1f}"
        speed = f"{one.speed:,.0f}" if one.speed is not None else "not measured"
        rows.append(
            f"| {one.name} | {one.card} | {one.window:,} | {memory} | {planned} | "
            f"{_off(one.memory_off)} | {speed} | {one.planned_speed:,.0f} | {_off(one.time_off)} |"
        )
    return "\n".join(rows)


def _off(share: float | None) -> str:
    return "" if share is None else f"{round(100 * share) + 0:+d} %"


def filled(text: str) -> str:
    """The page with its table made anew."""
    return BLOCK.sub(lambda m: f"{m[1]}{table(lines())}\n{m[2]}", text)


def main() -> int:
    old = PAGE.read_text(encoding="utf-8")
    new = filled(old)
    if "--check" in sys.argv[1:]:
        if new != old:
            print("docs/plan.md is not in step with docs/results/training; run python benchmarks/plan.py")
        return int(new != old)
    PAGE.write_text(new, encoding="utf-8")
    print(table(lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
