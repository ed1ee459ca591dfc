"""docs/reliability.md says what the campaigns last wrote, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "reliability_tables.py"


@pytest.fixture()
def tables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import reliability_tables

    return reliability_tables


def test_the_page_is_in_step_with_the_committed_figures() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_campaign_with_figures_is_on_the_page(tables) -> None:
    shown = {name for _, name, _ in tables.BLOCK.findall(tables.PAGE.read_text(encoding="utf-8"))}
    assert {path.stem for path in tables.FIGURES.glob("*.json")} <= shown
    assert shown == {"kills", "starvation", "load", "lies", "fuzzing", "mutations"}


def test_a_campaign_that_has_not_run_is_said_to_have_not(tables, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "FIGURES", tmp_path)
    assert tables.table("kills") == "*Not run yet.*"
    (tmp_path / "kills.json").write_text('{"a_b": {"c": 12000, "d": []}, "conditions": {"python": "3"}}')
    text = tables.table("kills")
    assert "| a b: c | 12,000 |" in text and "| a b: d | none |" in text and text.endswith("python 3.")


def test_a_survivor_would_be_seen_on_the_page(tables, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "FIGURES", tmp_path)
    (tmp_path / "mutations.json").write_text('{"rows": [{"subject": "s", "what": "w", "caught": null}]}')
    assert "| s | w | **survived** |" in tables.table("mutations")


def test_a_problem_or_a_shortage_not_tried_would_be_seen_on_the_page(tables, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "FIGURES", tmp_path)
    cell = {"commands": 4, "felt": 3}
    found = {
        "tried": {"full disk": {"extend": cell, "run": cell}},
        "lines": {"full disk": ["longer", "b: c"]},
    }
    found |= {"problems": ["run: lost"], "skipped": {"read-only": "no mount"}, "conditions": {"python": "3"}}
    (tmp_path / "starvation.json").write_text(json.dumps(found))
    text = tables.table("starvation")
    assert "| full disk | 8 | 6 | 2 | `b: c` |" in text
    assert "Problems: run: lost." in text and "read-only was skipped: no mount" in text
