"""The report's section on untrained methods: best first, one line a method, nothing invented."""

from __future__ import annotations

import fake_results as fake
import pytest

from ropewalk.results import collection, style
from ropewalk.results.sweep_section import sweep


def rows(method, factor, values):
    key = {"method": method, "factor": factor}
    places = [(0, 128), (128, 512), (512, 1024)]
    found = [
        {**key, "from": a, "to": b, "perplexity": v, "low": 0.9 * v, "high": 1.1 * v, "n": b - a}
        for (a, b), v in zip(places, values)
    ]
    return [*found, {**key, "length": 1024, "right": 7, "n": 10, "rate": 0.7, "low": 0.4, "high": 0.9}]


def result(ranking, name="small"):
    measured = [*rows("none", 1.0, (30, 25, 3469)), *rows("linear", 2.0, (177, 161, 178))]
    measured += rows("yarn", 2.0, (34, 28, 33))
    summary = {
        "window": 512,
        "target": 1024,
        "ranking": [
            {"method": m, "factor": f, "perplexity": p, "low": None, "high": None} for m, f, p in ranking
        ],
    }
    return fake.result("sweep", fake.model(name, "original"), measured, summary=summary)


RANKING = [("yarn", 2.0, 31.0), ("linear", 2.0, 170.0), ("none", 1.0, 1200.0)]


def section(monkeypatch, *results):
    monkeypatch.setitem(collection.FORMS, "sweep", ())
    found = collection.collect([(f"r{i}.json", one) for i, one in enumerate(results)])
    return sweep(found, style.choose(found))


def test_the_table_is_ranked_and_has_every_figure(monkeypatch):
    made = section(monkeypatch, result(RANKING))
    table = made.tables[0]
    assert table.columns[:2] == ["method", "perplexity"] and table.columns[-1] == "passkeys at 1,024"
    assert [row[0] for row in table.rows] == ["yarn ×2", "linear ×2", "none"]
    assert table.rows[0][1] == "31.0" and table.rows[2][4].startswith("3,469")
    assert [row[-1] for row in table.rows] == ["7 of 10"] * 3
    assert len(table.records) == 12


def test_the_figure_has_a_line_a_method_in_the_order_of_the_ranking(monkeypatch):
    figure = section(monkeypatch, result(RANKING)).figures[0]
    assert [entry["label"] for entry in figure.legend] == ["yarn ×2", "linear ×2", "none"]
    points = [p for values in figure.spec["datasets"].values() for p in values if p.get("model") == "none"]
    assert {(p["x"], p["y"]) for p in points} == {(128, 30), (512, 25), (1024, 3469)}


def test_two_models_have_a_figure_and_a_table_each_with_names_of_their_own(monkeypatch):
    made = section(monkeypatch, result(RANKING), result(RANKING, fake.HOSTILE))
    assert len({figure.name for figure in made.figures}) == len(made.tables) == 2


@pytest.mark.parametrize("ranking", [[], RANKING[:1]])
def test_a_ranking_that_lacks_methods_loses_none_of_them(monkeypatch, ranking):
    table = section(monkeypatch, result(ranking)).tables[0]
    assert {row[0] for row in table.rows} == {"yarn ×2", "linear ×2", "none"}


def test_no_sweep_no_section(monkeypatch):
    assert section(monkeypatch, fake.everything()[0]) is None
