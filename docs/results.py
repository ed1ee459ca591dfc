"""docs/results.md from the results files below docs/results: the paper's tables, ours beside the paper's.

`python docs/tables.py` writes it. Nothing in it is chosen by hand: every results file below docs/results is
shown where its evaluation, model and steps belong, and what no file tells stands under "not run".

    docs/results/FOLDER/*.json              finished models, of one run of a recipe: any name
    docs/results/FOLDER/by-steps/*.json     models on their way (tables 3 and 4), named …-step-N
    docs/results/cheaper/*.cost.json        what a way of training cost, beside its results files
"""

from __future__ import annotations

import json
import math
import re
from itertools import groupby
from pathlib import Path
from typing import Any

from found import METHODS, Found, cell, factor_of, gather, group_of, keys_cell, link, number, of, span, table

from ropewalk.metrics.accuracy import paired_difference
from ropewalk.metrics.intervals import document_interval

HERE = Path(__file__).resolve().parent
BOOKS, LATEX = ("books", "pg19", "modules"), ("math", "proof-pile")
PAPER = json.loads((HERE / "paper.json").read_text(encoding="utf-8"))
NONE = "not run"


def page(root: Path = HERE / "results") -> str:
    """The whole page, Markdown."""
    found = gather(root)
    costs = {path: json.loads(path.read_text()) for path in sorted(root.glob("*/*.cost.json"))}
    parts = [
        INTRODUCTION,
        _perplexity_section("Table 1: perplexity on books", found, BOOKS, "table 1"),
        _perplexity_section("Table 2: perplexity on LaTeX sources", found, LATEX, "table 2"),
        _by_steps(found),
        _passkeys(found),
        _benchmarks(found),
        _summaries(found),
        _attention(found),
        _others(found),
        _cheaper(found, costs),
        _earlier(found),
        _not_run(found),
        _sources(found),
        _papers(),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


INTRODUCTION = """# The paper, re-measured

Made by `python docs/tables.py` from the results files in [docs/results](results); not written by hand. What
these figures mean, and where they do not agree with the paper, is in the [findings](findings.md).

The paper is Chen, Wong, Chen and Tian 2023, [arXiv 2306.15595](https://arxiv.org/abs/2306.15595): LLaMA 7B to
65B, window 2,048, 1,000 steps. Ours are small models: the embedded one (2.6 million parameters, window 512,
source code) and SmolLM2-135M-Instruct (135 million, window 8,192), trained for far fewer steps. **What can be
compared is which way a figure moves, not its size.** The paper's are LLaMA-7B's, at the same factor or the
next one it has, and have no intervals.

In brackets: 95 % intervals. n: scored tokens, questions, prompts or documents. *PI*: Position Interpolation;
*direct*: fine-tuned at the longer window with nothing changed. Recipes: [recipes/paper](../recipes/paper)."""


def paper_row(name: str, one: Found) -> str:
    """What the paper has for LLaMA-7B by the same method at the next larger factor, as text."""
    method = "None" if one.original else {"none": "FT", "linear": "PI"}.get(one.model["method"])
    factor = one.model["window"] / one.model["original_window"]
    rows = [row for row in PAPER[name] if row["size"] == "7B" and row["method"] == method]
    fitting = [row for row in rows if int(row["window"]) >= 2048 * factor] or rows[-1:]
    if not fitting:
        return "–"
    cells = {k: v for k, v in fitting[0].items() if k.isdigit()}
    scale = "" if method == "None" else f"×{int(fitting[0]['window']) // 2048}: "
    return scale + ", ".join(f"{v} at {int(k):,}" for k, v in cells.items())


def _perplexity_section(title: str, found: list[Found], groups: tuple[str, ...], name: str) -> str:
    mine = [
        one
        for one in of(found, "perplexity")
        if group_of(one) in groups and one.model["method"] in ("none", "linear")
    ]
    lines = [f"## {title}", ""]
    for base, some in groupby(mine, key=lambda one: one.base):
        part = list(some)
        contexts = sorted({row["context"] for one in part for row in one.result["rows"]})
        rows = []
        for one in part:
            by = {row["context"]: row for row in one.result["rows"]}
            cells = [cell(by[c]) if c in by else NONE for c in contexts]
            rows.append([one.story, one.training, group_of(one), *cells, paper_row(name, one), link(one)])
        head = ["", "trained", "text", *(f"at {c:,}" for c in contexts), "the paper, LLaMA-7B", "files"]
        lines += [f"### {base}, window {part[0].model['original_window']:,}", "", table(head, rows), ""]
        lines += [_reading(part), ""]
    return "\n".join(lines if mine else [*lines, NONE])


def _reading(part: list[Found]) -> str:
    """Under which conditions these perplexities were measured."""
    rows = [row for one in part for row in one.result["rows"]]
    documents = sorted({row["documents"] for row in rows})
    stride = sorted({one.result["protocol"]["stride"] for one in part})
    return (
        f"Sliding windows of stride {', '.join(map(str, stride))}, every token scored once: the paper's "
        f"protocol, but its documents are PG-19's and the proof-pile's; {span(documents)} documents, "
        f"{'a sample of their windows' if any(row['sampled'] for row in rows) else 'read whole'}; the "
        "interval is over documents."
    )


def _ways(found: list[Found], evaluation: str) -> list[tuple[Found, list[Found]]]:
    """Models on their way, one list a training, in the order of their steps."""

    def key(one: Found) -> tuple[Any, ...]:
        name = re.sub(r"-step-\d+$", "", one.model["name"])
        return (one.base, one.folder, one.model["window"], one.model["method"] != "linear", name)

    ordered = sorted(of(found, evaluation, way=True), key=lambda one: (*key(one), one.steps))
    lists = [list(part) for _, part in groupby(ordered, key=key)]
    return [(part[0], part) for part in lists]


def _by_steps(found: list[Found]) -> str:
    rows = []
    for first, part in _ways(found, "perplexity"):
        for one in part:
            row = one.result["rows"][-1]
            story = [first.base, f"{one.story}"] if one is first else ["", ""]
            paper = paper_steps("table 3", first) if one is first else ""
            rows.append([*story, f"{one.steps:,}", f"at {row['context']:,}: {cell(row)}", paper, link(one)])
    lines = ["## Table 3: perplexity by steps of fine-tuning", ""]
    if not rows:
        return "\n".join([*lines, NONE])
    head = ["model", "", "step", "perplexity on books or modules", "the paper, LLaMA-7B", "files"]
    return "\n".join([*lines, table(head, rows), "", ON_THE_WAY])


ON_THE_WAY = (
    "All steps of one model are of one training; where its rate falls towards its end, or its end is the "
    "mean of many steps, a model on its way is not one whose training ends there. Step 0 is the config "
    "alone, untrained."
)


def paper_steps(name: str, one: Found) -> str:
    method = {"none": "FT", "linear": "PI"}.get(one.model["method"])
    if method is None or (name == "table 3" and method == "FT"):
        return "–"
    factor = one.model["window"] / one.model["original_window"]
    rows = [r for r in PAPER[name] if r["size"] == "7B" and r.get("method", "PI") == method]
    fitting = [r for r in rows if int(r["window"]) >= 2048 * factor] or rows[-1:]
    cells = {k: v for k, v in fitting[0].items() if k.isdigit()}
    return f"×{int(fitting[0]['window']) // 2048}: " + ", ".join(f"{v} at {k}" for k, v in cells.items())


def _passkeys(found: list[Found]) -> str:
    lines = ["## Table 4: effective window k_max, by passkeys", ""]
    rows = []
    for first, part in _ways(found, "passkey"):
        for one in part:
            story = [first.base, one.story] if one is first else ["", ""]
            paper = paper_steps("table 4", first) if one is first else ""
            rows.append([*story, f"{one.steps:,}", keys_cell(one), paper, link(one)])
    for one in of(found, "passkey"):
        if one.model["method"] in ("none", "linear") and one.folder not in CHEAPER_OF:
            steps = "–" if one.original else f"{one.steps:,}, the last"
            rows.append([one.base, one.story, steps, keys_cell(one), "–", link(one)])
    if not rows:
        return "\n".join([*lines, NONE])
    head = ["model", "", "step", "k_max (found of all prompts)", "the paper, LLaMA-7B", "files"]
    return "\n".join([*lines, table(head, rows), "", KEYS])


KEYS = (
    "32 distances × 10 keys, greedy; k_max is the largest distance up to which at least 20 % are found at "
    "every distance. The interval is of the rate over all prompts. *Shared keys*: the same ten at every "
    "distance, which reads ten times less; no interval, since their errors go together. *Cut*: prompts whose "
    "filler was cut in mid-sentence, before it came in whole sentences ([findings](findings.md))."
)
TASKS = {"boolq": "BoolQ", "piqa": "PIQA", "race-middle": "Race-M", "race-high": "Race-H"} | {
    "winogrande": "WinoGrande"
}


def _benchmarks(found: list[Found]) -> str:
    lines = ["## Table 5: benchmarks within the old window", ""]
    rows = []
    mine = of(found, "benchmark")
    for one in mine:
        before = next((b for b in mine if b.original and b.base == one.base), None)
        by = {row["task"]: row for row in one.result["rows"]}
        cells = [_task(by.get(task), before, task, one) for task in TASKS]
        rows.append([one.base, one.story, one.training, *cells, link(one)])
    for row in PAPER["table 5"]:
        if row["size"] == "7B":
            made = "as it was" if row["fine-tuned on"] == "None" else f"PI ×{int(row['window']) // 2048}"
            data = "–" if row["fine-tuned on"] == "None" else f"1,000 steps, {row['fine-tuned on']}"
            rows.append(["LLaMA-7B (paper)", made, data, *(row[name] for name in TASKS.values()), "–"])
    note = (
        "Zero-shot accuracy, %, by log-likelihood with lm-eval's prompts. Behind it: the change against the "
        "model as it was, paired question by question, in points."
    )
    ours = [] if mine else [f"Ours: {NONE}.", ""]
    return "\n".join(
        [*lines, *ours, table(["model", "", "trained", *TASKS.values(), "files"], rows), "", note]
    )


def _task(row: dict[str, Any] | None, before: Found | None, task: str, one: Found) -> str:
    if row is None:
        return NONE
    text = f"{100 * row['accuracy']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f}), n {row['n']:,}"
    old = {r["task"]: r for r in before.result["rows"]}.get(task) if before and not one.original else None
    if old is None or len(old["items"]) != len(row["items"]):
        return text
    change, low, high = paired_difference(old["items"], row["items"])
    return f"{text}; {100 * change:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _summaries(found: list[Found]) -> str:
    lines = ["## Table 6: summaries of long documents (GovReport)", ""]
    rows = []
    mine = of(found, "summarization")
    for one in mine:
        for window, some in groupby(one.result["rows"], key=lambda row: row["window"]):
            by = {row["metric"]: row for row in some}
            cells = [_rouge(by[metric]) for metric in ("rouge1", "rouge2", "rougeL")]
            rows.append([one.base, one.story, f"{window:,}", *cells, link(one)])
        for gain in one.result["summary"]["gains"]:
            if gain["metric"] == "rouge1" and gain["low"] is not None:
                change = f"{100 * gain['gain']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
                reading = f"{gain['window']:,} over {gain['over']:,}"
                rows.append(["", "the gain, paired", reading, change + f", n {gain['n']}", "", "", ""])
    for row in PAPER["table 6"]:
        rows.append([f"{row['model']} (paper)", "–", row["window"], row["R-1"], row["R-2"], row["R-L"], "–"])
    ours = [] if mine else [f"Ours: {NONE}.", ""]
    note = (
        "ROUGE F-measure × 100. The paper fine-tuned for summaries (10 epochs); ours are asked as they are."
    )
    head = ["model", "", "tokens read and written", "R-1", "R-2", "R-L", "files"]
    return "\n".join([*lines, *ours, table(head, rows), "", note])


def _rouge(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"{100 * row['score']:.1f}, n {row['n']}"
    return f"{100 * row['score']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f}), n {row['n']}"


def _attention(found: list[Found]) -> str:
    rows = []
    for one in of(found, "attention"):
        summary = one.result["summary"]
        for head in summary["heads"]:
            bands = [
                f"{low:.1f} to {high:.1f}"
                for low, high in (head[k] for k in ("inside", "past", "past_interpolated"))
            ]
            place = f"layer {head['layer']} head {head['head']}"
            beyond = f"{summary['window']:,} to {summary['target']:,}"
            rows.append([one.base, one.story, place, beyond, *bands, f"{head['leap']:.1f}", link(one)])
    lines = [
        "## Figure 2: attention scores past the window",
        "",
        "The paper fits curves to random scores; [theory](theory.md) draws its figure anew and says where "
        "its bound is wrong. Here real heads: the range of the mean score by distance inside the trained "
        "window, past it, and past it with positions interpolated. The two heads that leave their range "
        "farthest, and the one that does least. *Leap*: how far above that range the scores rise.",
        "",
    ]
    if not rows:
        return "\n".join([*lines, NONE])
    head = ["model", "", "head", "distances", "inside", "past", "past, interpolated", "leap", "files"]
    scores = "Scores before the softmax, as the model scales them; one document, no interval."
    picture = "![Scores of SmolLM2's heads by distance](figures/smollm2-attention.svg)"
    return "\n".join([*lines, table(head, rows), "", scores, "", picture])


def _others(found: list[Found]) -> str:
    lines = ["## Other methods beside it", "", "What the paper could not yet compare. Untrained:", ""]
    rows = []
    for one in of(found, "sweep"):
        for place in one.result["summary"]["ranking"]:
            ppl = f"{number(place['perplexity'])} ({place['low']:.3g}–{place['high']:.3g}), n {place['n']:,}"
            keys = f"{place['right']} of {place['keys']}" if place.get("keys") else NONE
            to = f"{one.result['summary']['target']:,}"
            rows.append([one.base, place["label"], to, ppl, keys, link(one)])
    head = ["model", "method", "to", "perplexity over whole windows", "passkeys", "files"]
    lines += [table(head, rows) if rows else NONE, ""]
    lines += ["Trained, the same steps on the same text:", ""]
    rows = []
    trained = [one for one in of(found, "perplexity") if not one.original and one.folder not in CHEAPER_OF]
    folders = {one.folder for one in trained if one.model["method"] not in ("none", "linear")}
    for one in trained:
        if one.folder not in folders or group_of(one) not in BOOKS:
            continue
        keys = [k for k in of(found, "passkey") if k.model["hash"] == one.model["hash"]]
        zero = [
            z
            for z in of(found, "perplexity", way=True)
            if z.steps == 0
            and (z.folder, z.base, z.model["method"]) == (one.folder, one.base, one.model["method"])
        ]
        last = one.result["rows"][-1]
        before = cell(zero[0].result["rows"][-1]) if zero and "mixed" not in one.story else NONE
        found_keys = keys_cell(keys[0]) if keys else NONE
        at = f"at {last['context']:,}: {cell(last)}"
        rows.append([one.base, one.story, one.training, at, before, found_keys, link(one)])
    head = ["model", "method", "trained", "perplexity", "untrained", "k_max", "files"]
    return "\n".join([*lines, table(head, rows) if rows else NONE])


def _cheaper(found: list[Found], costs: dict[Path, dict[str, Any]]) -> str:
    lines = ["## Cheaper than full length", "", CHEAPER]
    for folder, about in CHEAPER_OF.items():
        by = {
            path.name.removesuffix(".cost.json"): cost
            for path, cost in costs.items()
            if path.parent.name == folder
        }
        rows = _ways_compared(found, by, folder)
        lines += ["", f"{about}:", "", table(WAYS_HEAD, rows) if rows else NONE]
    return "\n".join(lines)


def _earlier(found: list[Found]) -> str:
    """One line for each finished training that another has replaced."""
    rows = []
    for keys in of(found, "passkey", earlier=True):
        if keys.original:
            continue
        cells = []
        for groups, context in ((BOOKS, 2048), (BOOKS, keys.model["window"]), (LATEX, keys.model["window"])):
            mine = [one for one in of(found, "perplexity", earlier=True) if group_of(one) in groups]
            same = [one for one in mine if one.model["hash"] == keys.model["hash"]]
            rows_of = {row["context"]: row for one in same for row in one.result["rows"]}
            cells.append(number(rows_of[context]["perplexity"]) if context in rows_of else NONE)
        asked = [
            row
            for one in of(found, "benchmark", earlier=True)
            if one.model["hash"] == keys.model["hash"]
            for row in one.result["rows"]
            if row["task"] == "piqa"
        ]
        piqa = f"{100 * asked[0]['accuracy']:.1f}" if asked else NONE
        rows.append([keys.story, keys.training, *cells, piqa, keys_cell(keys), link(keys)])
    head = ["", "trained", "books at 2,048", "at L'", "LaTeX at L'", "PIQA", "k_max", "files"]
    return "\n".join(["## Other trainings of SmolLM2", "", EARLIER_ONES, "", table(head, rows)])


EARLIER_ONES = (
    "What was tried before and beside the recipes of today, failures included, to L' = 16,384 (×2) and "
    "32,768 (×4); what each was is in the "
    "[log](../dev/LOG.md) and the [findings](findings.md). Intervals are in the files."
)
WAYS_HEAD = ["way", "training", "tokens", "perplexity by position", "k_max", "device"]


def _ways_compared(found: list[Found], costs: dict[str, dict[str, Any]], folder: str) -> list[list[str]]:
    """One way of training a row."""
    mine = {
        kind: {one.result["model"]["name"]: one for one in of(found, kind) if one.folder == folder}
        for kind in ("passkey", "position-loss")
    }
    rows = []
    for name in sorted({*mine["passkey"], *mine["position-loss"]}, key=lambda n: (n != "original", n)):
        cost = costs.get(name)
        spent = f"{cost['seconds']:,.0f} s, {cost['steps']:,} steps" if cost else "–"
        tokens = f"{cost['tokens'] / 1e6:.3g} M" if cost else "–"
        curve = mine["position-loss"].get(name)
        keys = mine["passkey"].get(name)
        shown = positions(curve) if curve else NONE
        device = (keys or curve).result["provenance"]["device"]  # type: ignore[union-attr]
        rows.append([name, spent, tokens, shown, keys_cell(keys) if keys else NONE, device])
    return rows


CHEAPER = (
    "The same time of training for each way, at its own measured speed, positions interpolated in all "
    "([compare.py](../recipes/cheaper/compare.py) says what each way is)."
)
CHEAPER_OF = {
    "cheaper": "SmolLM2-135M, 8,192 → 32,768, on a GPU",
    "cheaper-first": "Two of them earlier, from other shares of the text, asked with cut filler",
    "cheaper-embedded": "The embedded model, 512 → 2,048, one core of a CPU, queries, keys and norms alone",
    "cheaper-embedded-second": "Four of them again, on another day, the machine faster",
}
"""Folders of docs/results, and what was compared there."""


def positions(one: Found, parts: int = 4) -> str:
    """Perplexity in quarters of the window, intervals over documents."""
    rows, buckets = one.result["rows"], one.result["summary"]["by_bucket"]
    size = -(-len(rows) // parts)
    shown = []
    for at in range(0, len(rows), size):
        some, mine = rows[at : at + size], buckets[at : at + size]
        sums = [math.fsum(values) for values in zip(*(bucket["loss"] for bucket in mine))]
        ns = [sum(values) for values in zip(*(bucket["n"] for bucket in mine))]
        interval = document_interval(sums, ns, 0)
        loss = math.fsum(sums) / sum(ns)
        low_high = f" ({math.exp(interval[0]):.3g}–{math.exp(interval[1]):.3g})" if interval else ""
        where = f"{some[0]['from']:,}–{some[-1]['to']:,}"
        shown.append(f"{where}: {number(math.exp(loss))}{low_high}, n {sum(ns):,}")
    return "; ".join(shown)


def _not_run(found: list[Found]) -> str:
    """What the page has room for and no file tells, a line a table."""
    missing: dict[str, list[str]] = {}
    wanted = [("Tables 1 and 2", "perplexity", False), ("Table 3", "perplexity", True)]
    wanted += [
        ("Table 4, by steps", "passkey", True),
        ("Table 5", "benchmark", False),
        ("Table 6", "summarization", False),
    ]
    for base in ("embedded", "smollm2-135m"):
        for k in (2, 4):
            for title, evaluation, way in wanted:
                if base == "embedded" and title in ("Table 5", "Table 6"):
                    continue  # too small to be asked
                for method in ("linear", "none"):
                    if not _there(found, evaluation, way, base, method, k):
                        missing.setdefault(title, []).append(f"{base} {METHODS[method]} ×{k}")
            for method in ("yarn", "ntk", "dynamic"):
                if not _there(found, "perplexity", False, base, method, k):
                    title = "Other methods, trained"
                    missing.setdefault(title, []).append(f"{base} {METHODS[method]} ×{k}")
    lines = [f"{title}: {', '.join(what)}" for title, what in sorted(missing.items())]
    return "\n".join(["## Not run", "", *(f"- {one}" for one in [*lines, *NEVER])])


NEVER = (
    "Table 5, Race-M and Race-H for any of our models: no data at hand",
    "PG-19 and proof-pile themselves: [llama.yaml](../recipes/paper/llama.yaml) says where they are",
    "The paper's own models, LLaMA 7B to 65B: recipes in [recipes/paper](../recipes/paper)",
    "Several seeds of one training, but for the demo's ([seeds](results/seeds)): every row is one, seed 0",
)


def _there(found: list[Found], evaluation: str, way: bool, base: str, method: str, k: int) -> bool:
    return any(
        (one.base, one.model["method"], factor_of(one)) == (base, method, k)
        and (one.steps > 0)
        and one.folder not in CHEAPER_OF
        for one in of(found, evaluation, way)
    )


def _sources(found: list[Found]) -> str:
    rows = []
    for _, some in groupby(sorted(found, key=lambda one: one.folder), key=lambda one: one.folder):
        part = list(some)
        made = [one.result["provenance"] for one in part]
        kinds = sorted({one.result["evaluation"] for one in part})
        seeds = sorted({str(one["seed"]) for one in made})
        versions = sorted({f"torch {one['torch']}, transformers {one['transformers']}" for one in made})
        devices = sorted({f"{one['device']}, {one['dtype']}" for one in made})
        commits = sorted({one["commit"] or "not told" for one in made})
        cells = [str(len(part)), ", ".join(kinds), "; ".join(devices), "; ".join(versions)]
        rows.append([link(part[0]), *cells, ", ".join(seeds), ", ".join(commits)])
    head = ["folder", "files", "evaluations", "device", "versions", "seeds", "commits"]
    return "\n".join(["## Conditions of every folder", "", table(head, rows)])


def _papers() -> str:
    """The paper's tables 1 to 6, whole, as they are in paper.json."""
    lines = ["## The paper's own figures", "", PAPERS]
    for name in sorted(key for key in PAPER if key.startswith("table")):
        head = list(dict.fromkeys(key for row in PAPER[name] for key in row))
        words = [key for key in head if not key.isdigit()]
        head = [*words, *sorted((key for key in head if key.isdigit()), key=int)]
        rows = [[row.get(key, "–") for key in head] for row in PAPER[name]]
        lines += ["", f"### {name.capitalize()} of the paper", "", table(head, rows)]
    return "\n".join(lines)


PAPERS = (
    "LLaMA, from arXiv 2306.15595v2; every cell was compared in three independent transcriptions. – is not "
    "reported. FT: direct fine-tuning; None: the original. Table 3's window of evaluation is not stated."
)
