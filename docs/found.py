"""Results files as the page of docs/results.py needs them: who was measured, and a figure as a cell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.metrics.intervals import wilson
from ropewalk.results.record import find_results, read_result

LEFT_OUT = ("reliability", "sampling", "plan", "faults", "speed", "memory", "averaging", "seeds")
"""Folders of docs/results that other pages tell about."""
EARLIER = "earlier/"
"""Trainings that today's recipe has replaced: a table of their own; on their way, in tables 3 and 4."""
METHODS = {"none": "direct", "linear": "PI", "yarn": "YaRN", "ntk": "NTK-aware", "dynamic": "dynamic NTK"}


@dataclass(frozen=True)
class Found:
    """A results file. folder: below docs/results.   on_the_way: of a model during its training."""

    folder: str
    on_the_way: bool
    result: dict[str, Any]

    @property
    def model(self) -> dict[str, Any]:
        return self.result["model"]

    @property
    def base(self) -> str:
        """Whose window was lengthened, as results call it."""
        return re.split(r"-(?:pi|direct|yarn|ntk|dynamic)\b|-step-\d", self.model["name"])[0]

    @property
    def steps(self) -> int:
        """Steps of the training that made it; 0 for none."""
        named = re.search(r"-step-(\d+)$", self.model["name"])
        return int(named[1]) if named else (self.model["trained"] or {}).get("steps", 0)

    @property
    def original(self) -> bool:
        """Is it the model as it was?"""
        return self.model["method"] == "none" and not self.model["trained"] and not self.on_the_way

    @property
    def story(self) -> str:
        """What was done to it, in a few words."""
        if self.original:
            return "as it was"
        method, k = self.model["method"], (self.model["factor"] or 1)
        to = self.model["window"] if method != "dynamic" else self.model["original_window"] * k
        k = to / self.model["original_window"]
        name = re.sub(rf"^{re.escape(self.base)}-(pi|direct|yarn|ntk|dynamic)", "", self.model["name"])
        more = re.sub(r"(-\d+)?(-step-\d+)?$", "", name).strip("-").replace("-", " ")
        return f"{METHODS.get(method, method)} ×{k:g}" + (f", {more}" if more else "")

    @property
    def training(self) -> str:
        """How long it was trained."""
        trained = self.model["trained"]
        if not trained:
            return "–"
        before = f" after {trained['steps_before']:,}" if trained.get("steps_before") else ""
        only = f", {', '.join(trained['only'])} alone" if trained.get("only") else ""
        return f"{trained['steps']:,} steps{before}, {trained['tokens'] / 1e6:.3g} M tokens{only}"

    @property
    def order(self) -> tuple[Any, ...]:
        m, methods = self.model, [*METHODS]
        place = methods.index(m["method"]) if m["method"] in METHODS else len(methods)
        place = -1 if self.original else place
        return (self.base, self.folder, m["window"] if not self.original else 0, place, self.steps, m["name"])


def gather(root: Path) -> list[Found]:
    """Every results file below ``root`` that belongs on the page, in its order."""
    found = []
    for path in find_results([root]):
        parts = path.relative_to(root).parts
        if parts[0] in LEFT_OUT:
            continue
        way = "by-steps" in parts
        folder = "/".join(part for part in parts[:-1] if part != "by-steps")
        found.append(Found(folder, way, read_result(path)))
    return sorted(found, key=lambda one: one.order)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; the first columns of words are left-aligned by the renderer."""
    head = list(head)
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def cell(row: dict[str, Any]) -> str:
    """A perplexity with its interval and n."""
    if row.get("low") is None:
        return f"{number(row['perplexity'])}, n {row['n']:,}"
    return f"{number(row['perplexity'])} ({row['low']:.3g}–{row['high']:.3g}), n {row['n']:,}"


def of(found: list[Found], evaluation: str, way: bool = False, earlier: bool = False) -> list[Found]:
    """Results of one kind: of finished models or those on their way, of today's recipes or earlier ones."""
    return [
        one
        for one in found
        if one.result["evaluation"] == evaluation
        and one.on_the_way == way
        and (way or one.folder.startswith(EARLIER) == earlier)
    ]


def group_of(one: Found) -> str:
    return one.result["rows"][0]["data"]


def span(numbers: list[int]) -> str:
    return f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"


def link(one: Found) -> str:
    return f"[{one.folder.removeprefix(EARLIER)}](results/{one.folder})"


def keys_cell(one: Found) -> str:
    """k_max, and how many keys were found; an interval where each place has keys of its own."""
    summary = one.result["summary"]
    text = f"{summary['k_max']:,} ({summary['right']} of {summary['n']}"
    cut = "" if "filler" in one.result["protocol"] else ", cut"
    if "same" in one.result["protocol"]["keys"]:
        return f"{text}, shared keys{cut})"
    low, high = wilson(summary["right"], summary["n"])
    return f"{text}, {low:.0%}–{high:.0%}{cut})"


def factor_of(one: Found) -> float:
    """L'/L, whichever way the config says it."""
    m = one.model
    return (m["factor"] or 1) if m["method"] == "dynamic" else m["window"] / m["original_window"]
