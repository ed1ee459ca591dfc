"""Fill tables and figures of the pages from committed results files, and write docs/results.md whole.

    python docs/tables.py            write them, and draw docs/figures that show results
    python docs/tables.py --check    exit 1 when a page is not in step (the test suite calls this)

A page says `<!-- table: FOLDER -->` … `<!-- end -->`; what stands between is ours. One figure in a sentence
is `<!-- f: FOLDER/FILE PLACE -->9.76<!-- /f -->`, where PLACE is a path into the file: `summary.k_max`, or
`rows[context=2048].perplexity` for the row that has this. docs/results.md is made by results.py.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import results
from ropewalk.results.record import find_results, read_result

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "README.zh-CN.md", "docs/findings.md", "docs/tutorial.md")
WHOLE = "docs/results.md"
FIGURES = {
    "smollm2-16k-perplexity": ("smollm2-135m-16k", "perplexity-books"),
    "smollm2-16k-passkey": ("smollm2-135m-16k", "passkey"),
    "smollm2-32k-passkey": ("smollm2-135m-32k", "passkey"),
    "smollm2-attention": ("smollm2-135m-16k", "attention"),
}
"""Files in docs/figures: the folder of results whose report has the figure, and its name there."""
CHINESE = {
    "model": "模型",
    "text": "文本",
    "perplexity at": "困惑度 @",
    "not run": "未运行",
    " or ": " 或 ",
    "conditions": "括号内：按文档重抽样的 95 % 区间（{documents} 篇文档，每格 {least} 至 {most} 个计分词元，"
    "滑动窗口步长 {stride}）。k_max：32 个距离 × 10 个密码。{device}，{dtype}，torch {torch}，"
    "transformers {transformers}。",
}
ENGLISH = {
    **{word: word for word in CHINESE},
    "conditions": "In brackets: 95 % interval over documents ({documents} documents, {least} to {most} "
    "scored tokens a cell, sliding windows of stride {stride}). k_max: 32 distances × 10 keys. {device}, "
    "{dtype}, torch {torch}, transformers {transformers}.",
}
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.S)
FIGURE = re.compile(r"(<!-- f: (\S+) (\S+) -->).*?(<!-- /f -->)", re.S)


def table(folder: Path, words: dict[str, str]) -> str:
    """Perplexity by context size with its interval, k_max and the conditions, one row a model and text."""
    results = [read_result(path) for path in finished(folder)]
    contexts = sorted(
        {row["context"] for r in results if r["evaluation"] == "perplexity" for row in r["rows"]}
    )
    lines = [
        f"| {words['model']} | {words['text']} | "
        + " | ".join(f"{words['perplexity at']} {c:,}" for c in contexts)
        + " | k_max |",
        "| --- | --- |" + " ---: |" * (len(contexts) + 1),
    ]
    k_max = {r["model"]["name"]: r["summary"]["k_max"] for r in results if r["evaluation"] == "passkey"}
    models = sorted({r["model"]["name"]: r["model"] for r in results}.values(), key=lambda m: m["window"])
    for model in models:
        for r in results:
            if r["evaluation"] == "perplexity" and r["model"]["name"] == model["name"]:
                lines.append(_row(r, contexts, k_max.get(model["name"]), words))
    return "\n".join([*lines, "", _conditions(results, words)])


def finished(folder: Path) -> list[Path]:
    """Results files of finished models: those of models on their way are in a folder of their own."""
    return [path for path in find_results([folder]) if path.parent.name != "by-steps"]


def _row(result: dict, contexts: list[int], k_max: int | None, words: dict[str, str]) -> str:
    rows = {row["context"]: row for row in result["rows"]}
    cells = [_cell(rows[c]) if c in rows else words["not run"] for c in contexts]
    found = f"{k_max:,}" if k_max is not None else words["not run"]
    return (
        f"| {result['model']['name']} | {result['rows'][0]['data']} | " + " | ".join(cells) + f" | {found} |"
    )


def _cell(row: dict) -> str:
    text = f"{row['perplexity']:.4g}"
    return text if row.get("low") is None else f"{text} ({row['low']:.3g}–{row['high']:.3g})"


def _conditions(results: list[dict], words: dict[str, str]) -> str:
    one = next(r for r in results if r["evaluation"] == "perplexity")
    scored = [row["n"] for r in results if r["evaluation"] == "perplexity" for row in r["rows"]]
    documents = sorted(
        {row["documents"] for r in results if r["evaluation"] == "perplexity" for row in r["rows"]}
    )
    made = one["provenance"]
    return words["conditions"].format(
        documents=words[" or "].join(map(str, documents)),
        least=f"{min(scored):,}",
        most=f"{max(scored):,}",
        stride=one["protocol"]["stride"],
        **{key: made[key] for key in ("device", "dtype", "torch", "transformers")},
    )


def filled(text: str, words: dict[str, str]) -> str:
    """The page with every table and every figure made anew."""
    text = BLOCK.sub(lambda m: f"{m[1]}{table(ROOT / 'docs' / 'results' / m[2], words)}\n{m[3]}", text)
    return FIGURE.sub(lambda m: f"{m[1]}{figure(ROOT / 'docs' / 'results' / m[2], m[3])}{m[4]}", text)


def figure(path: Path, place: str) -> str:
    """One figure of a results file, as text. Raises KeyError or StopIteration when it is not there."""
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    for name, key, wanted in re.findall(r"(\w+)(?:\[(\w+)=([^\]]+)\])?", place):
        value = value[int(name)] if isinstance(value, list) else value[name]
        if key:
            value = next(row for row in value if str(row[key]) == wanted)
    return results.number(value) if isinstance(value, float) else f"{value:,}"


def draw() -> None:
    """Draw docs/figures anew from the results that they show, as the report draws them."""
    from ropewalk.results.collection import collect
    from ropewalk.results.page import write_report

    for folder in sorted({folder for folder, _ in FIGURES.values()}):
        found = collect((p, read_result(p)) for p in finished(ROOT / "docs" / "results" / folder))
        with tempfile.TemporaryDirectory() as place:
            write_report(found, Path(place) / "report")
            for name, (of, figure_name) in FIGURES.items():
                if of == folder:
                    drawn = Path(place) / "report" / "figures" / f"{figure_name}.svg"
                    shutil.copyfile(drawn, ROOT / "docs" / "figures" / f"{name}.svg")


def main() -> int:
    stale = []
    for name in (*PAGES, WHOLE):
        path = ROOT / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        words = CHINESE if name.endswith(".zh-CN.md") else ENGLISH
        new = results.page() if name == WHOLE else filled(old, words)
        if new != old:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(new, encoding="utf-8")
    if "--check" not in sys.argv[1:]:
        draw()
    elif stale:
        print(f"not in step with docs/results: {', '.join(stale)}; run python docs/tables.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
