"""docs/results.md: a figure stands where its model, method and steps belong; the rest is said as not run."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture(scope="module")
def page():
    sys.path.insert(0, str(DOCS))
    import results

    yield results.page
    sys.path.remove(str(DOCS))


def put(root: Path, folder: str, name: str, kind: str, like: str, **changes) -> None:
    """A results file made from a committed one; ``changes`` are of its model and its last row."""
    result = json.loads((DOCS / "results" / like).read_text())
    assert result["evaluation"] == kind.split(".")[0]
    result["model"].update({k: v for k, v in changes.items() if k in result["model"]}, name=name)
    result["rows"][-1].update({k: v for k, v in changes.items() if k in result["rows"][-1]})
    result["summary"].update({k: v for k, v in changes.items() if k in result["summary"]})
    path = root / folder / f"{name}.{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))


PI = "embedded-2048/embedded-pi-2048.perplexity.modules.json"
KEYS = "embedded-2048/embedded-pi-2048.passkey.json"


def section(text: str, title: str) -> str:
    return re.search(rf"^## {title}.*?(?=^## |\Z)", text, re.S | re.M)[0]


def test_models_on_their_way_stand_in_the_order_of_their_steps(page, tmp_path):
    for step, perplexity in ((100, 12.5), (0, 77.5), (20, 30.5)):
        name = f"embedded-pi-2048-step-{step}"
        trained = {"steps": step, "tokens": step * 2048} if step else None
        put(tmp_path, "a/by-steps", name, "perplexity.modules", PI, perplexity=perplexity, trained=trained)
        put(tmp_path, "a/by-steps", name, "passkey", KEYS, k_max=64 * step, trained=trained)
    text = page(tmp_path)
    table = section(text, "Table 3")
    assert [table.index(f"{x} (") for x in (77.5, 30.5, 12.5)] == sorted(
        table.index(f"{x} (") for x in (77.5, 30.5, 12.5)
    )
    assert "×4: 16.10 at 0, 7.12 at 200" in table and table.count("×4: 16.10") == 1
    assert re.findall(r"\| (\d+) \| ([\d,]+) \(", section(text, "Table 4")) == [
        ("0", "0"), ("20", "1,280"), ("100", "6,400"),
    ]  # fmt: skip
    assert "not run" in section(text, "Table 1")


def test_a_direct_fine_tuning_stands_beside_the_papers_and_is_no_longer_missing(page, tmp_path):
    shutil.copytree(DOCS / "results" / "embedded-2048", tmp_path / "a")
    before = page(tmp_path)
    assert "embedded direct ×4" in re.search(r"^- Tables 1 and 2: .*$", before, re.M)[0]
    put(tmp_path, "a", "embedded-direct-2048", "perplexity.modules", PI, method="none", factor=1.0)
    after = page(tmp_path)
    assert "embedded direct ×4" not in re.search(r"^- Tables 1 and 2: .*$", after, re.M)[0]
    row = next(line for line in section(after, "Table 1").splitlines() if line.startswith("| direct ×4"))
    assert "×4: 7.21 at 2,048, 7.34 at 4,096, 7.69 at 8,192" in row


def test_a_figure_in_a_sentence_is_the_files():
    sys.path.insert(0, str(DOCS))
    try:
        import tables
    finally:
        sys.path.remove(str(DOCS))
    root = DOCS / "results" / "embedded-2048"
    assert tables.figure(root / "embedded.passkey.json", "summary.k_max") == "448"
    assert tables.figure(root / "embedded.sweep.2048.json", "summary.ranking[method=yarn].right") == "21"
    assert tables.figure(root / "embedded.perplexity.modules.json", "rows[context=512].perplexity") == "9.722"
    with pytest.raises(StopIteration):
        tables.figure(root / "embedded.perplexity.modules.json", "rows[context=513].perplexity")
