"""Fill tables and figures of the pages from committed results files, and write docs/results.md whole.

    python docs/tables.py            write them
    python docs/tables.py --check    exit 1 when a page is not in step (the test suite calls this)

A page says `<!-- table: FOLDER -->` … `<!-- end -->`; what stands between is ours. One figure in a sentence
is `<!-- f: FOLDER/FILE PLACE -->9.76<!-- /f -->`, where PLACE is a path into the file: `summary.k_max`, or
`rows[context=2048].perplexity` for the row that has this. docs/results.md is made by results.py.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import results
from ropewalk.results.record import find_results, read_result

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/findings.md")
WHOLE = "docs/results.md"
BLOCK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.S)
FIGURE = re.compile(r"(<!-- f: (\S+) (\S+) -->).*?(<!-- /f -->)", re.S)


def table(folder: Path) -> str:
    """Perplexity by context size with its interval, k_max and the conditions, one row a model and text."""
    results = [read_result(path) for path in find_results([folder])]
    contexts = sorted(
        {row["context"] for r in results if r["evaluation"] == "perplexity" for row in r["rows"]}
    )
    lines = [
        "| model | text | " + " | ".join(f"perplexity at {c:,}" for c in contexts) + " | k_max |",
        "| --- | --- |" + " ---: |" * (len(contexts) + 1),
    ]
    k_max = {r["model"]["name"]: r["summary"]["k_max"] for r in results if r["evaluation"] == "passkey"}
    models = sorted({r["model"]["name"]: r["model"] for r in results}.values(), key=lambda m: m["window"])
    for model in models:
        for r in results:
            if r["evaluation"] == "perplexity" and r["model"]["name"] == model["name"]:
                lines.append(_row(r, contexts, k_max.get(model["name"])))
    return "\n".join([*lines, "", _conditions(results)])


def _row(result: dict, contexts: list[int], k_max: int | None) -> str:
    rows = {row["context"]: row for row in result["rows"]}
    cells = [_cell(rows[c]) if c in rows else "not run" for c in contexts]
    found = f"{k_max:,}" if k_max is not None else "not run"
    return (
        f"| {result['model']['name']} | {result['rows'][0]['data']} | " + " | ".join(cells) + f" | {found} |"
    )


def _cell(row: dict) -> str:
    text = f"{row['perplexity']:.4g}"
    return text if row.get("low") is None else f"{text} ({row['low']:.3g}–{row['high']:.3g})"


def _conditions(results: list[dict]) -> str:
    one = next(r for r in results if r["evaluation"] == "perplexity")
    scored = [row["n"] for r in results if r["evaluation"] == "perplexity" for row in r["rows"]]
    documents = sorted(
        {row["documents"] for r in results if r["evaluation"] == "perplexity" for row in r["rows"]}
    )
    made = one["provenance"]
    return (
        f"In brackets: 95 % interval over documents ({' or '.join(map(str, documents))} documents, "
        f"{min(scored):,} to {max(scored):,} scored tokens a cell, sliding windows of stride "
        f"{one['protocol']['stride']}). k_max: 32 distances × 10 keys. {made['device']}, {made['dtype']}, "
        f"torch {made['torch']}, transformers {made['transformers']}."
    )


def filled(text: str) -> str:
    """The page with every table and every figure made anew."""
    text = BLOCK.sub(lambda m: f"{m[1]}{table(ROOT / 'docs' / 'results' / m[2])}\n{m[3]}", text)
    return FIGURE.sub(lambda m: f"{m[1]}{figure(ROOT / 'docs' / 'results' / m[2], m[3])}{m[4]}", text)


def figure(path: Path, place: str) -> str:
    """One figure of a results file, as text. Raises KeyError or StopIteration when it is not there."""
    value: Any = json.loads(path.read_text(encoding="utf-8"))
    for name, key, wanted in re.findall(r"(\w+)(?:\[(\w+)=([^\]]+)\])?", place):
        value = value[int(name)] if isinstance(value, list) else value[name]
        if key:
            value = next(row for row in value if str(row[key]) == wanted)
    return results.number(value) if isinstance(value, float) else f"{value:,}"


def main() -> int:
    stale = []
    for name in (*PAGES, WHOLE):
        path = ROOT / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = results.page() if name == WHOLE else filled(old)
        if new != old:
            stale.append(name)
            if "--check" not in sys.argv[1:]:
                path.write_text(new, encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        print(f"not in step with docs/results: {', '.join(stale)}; run python docs/tables.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
