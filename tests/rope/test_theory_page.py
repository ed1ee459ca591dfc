"""docs/theory.md says what the code computes, and its figures are there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "theory.md"
SCRIPT = ROOT / "recipes" / "theory" / "figures.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("theory_figures", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["constants", "sums"])
def test_the_tables_of_the_page_are_those_of_the_script(script, name):
    """Not the table of the fit: its digits hang on the linear algebra library."""
    page = PAGE.read_text(encoding="utf-8")
    assert script.fill(page, name, script.TABLES[name]()) == page, (
        "run recipes/theory/figures.py and look at what changed"
    )


def test_every_figure_of_the_page_exists_and_every_figure_is_shown():
    shown = set(re.findall(r"\]\(figures/([^)]+)\)", PAGE.read_text(encoding="utf-8")))
    drawn = {path.name for path in (ROOT / "docs" / "figures").glob("theory-*.svg")}
    measured = {"smollm2-attention.svg"}  # drawn by `ropewalk report` from a committed results file
    assert shown == drawn | measured and len(drawn) == 6
    assert all((ROOT / "docs" / "figures" / name).is_file() for name in shown)
