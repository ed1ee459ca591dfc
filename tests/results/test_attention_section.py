"""The attention section: a figure a head, and words that say how far its scores leave the trained range."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_results as fake

from ropewalk.results.attention_section import attention
from ropewalk.results.collection import collect
from ropewalk.results.style import choose


def scores(name: str, window: int, heads: int, bound: float | None = None):
    """Raw scores of 1 inside the window and 5 past it; interpolated ones of 0.5 at every distance."""
    block = {**fake.model(name, "original"), "window": window, "original_window": window}
    rows = []
    for head in range(heads):
        for what, past in (("as trained", 5.0), ("interpolated ×4", 0.5)):
            for distance in range(0, 4 * window, 16):
                row = {"series": f"layer 3 head {head}, {what}", "layer": 3, "head": head}
                score = (distance % 32) / 16 if distance < window else past
                row |= {"distance": distance, "score": score}
                rows.append(row | ({} if bound is None else {"low": score - bound, "high": score + bound}))
    return fake.result("attention", block, rows)


def section(*results):
    found = collect([(f"{i}.json", one) for i, one in enumerate(results)])
    return attention(found, choose(found))


def test_every_head_has_a_figure_with_both_curves_and_only_the_first_the_table():
    made = section(scores("base", 512, 3, bound=2.0))
    assert [f.title for f in made.figures] == ["Layer 3 head 0", "Layer 3 head 1", "Layer 3 head 2"]
    assert all(
        [entry["label"] for entry in f.legend] == ["as trained", "interpolated ×4"] for f in made.figures
    )
    assert [f.table is not None for f in made.figures] == [True, False, False]
    assert made.tables[0].rows[0] == [
        "layer 3 head 0, as trained",
        "512",
        "0 to 1.00",
        "5.00 to 5.00",
        "± 2.00",
    ]
    assert len(made.tables[0].rows) == 6


def test_the_caption_says_how_far_and_how_often_the_scores_leave_the_trained_range():
    words = section(scores("base", 512, 1)).figures[0].caption
    assert "between 0 and 1.00, the shaded range" in words
    assert "as trained, they run from 5.00 to 5.00, 100 % of them outside it by up to 4.00" in words
    assert "Interpolated ×4, from 0.500 to 0.500, all within it" in words


def test_of_several_models_the_first_one_has_most_figures_and_names_are_said():
    made = section(scores("base", 512, 5), scores("longer", 1024, 2))
    assert [f.title for f in made.figures] == [
        "Layer 3 head 0: base",
        "Layer 3 head 1: base",
        "Layer 3 head 2: base",
        "Layer 3 head 0: longer",
    ]
    assert len({f.name for f in made.figures}) == 4


@pytest.mark.parametrize("rows", [[("0", 1.0)], [("0", 1.0), ("600", 2.0)]])
def test_few_rows_without_heads_or_bounds_are_shown_too(rows):
    block = {**fake.model("m", "original"), "window": 512, "original_window": 512}
    one = fake.result("attention", block, [{"distance": int(d), "score": s} for d, s in rows])
    made = section(one)
    assert len(made.figures) == 1 and made.tables[0].rows[0][-1] == "–"
