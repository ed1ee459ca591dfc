"""Every model at a glance: the same figures as the verdict has of its one, for each model on the page."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fake_results as fake

from ropewalk.results.collection import collect
from ropewalk.results.overview import overview
from ropewalk.results.verdict import verdict


def gathered(results):
    return collect([(f"{i}.json", one) for i, one in enumerate(results)])


def test_every_model_has_its_figures_and_the_verdicts_model_the_verdicts():
    found = gathered(fake.everything())
    table = overview(found)
    judged = verdict(found)
    rows = {row[0]: dict(zip(table.columns, row)) for row in table.rows}
    assert set(rows) == {model.label for model in found.models}
    mine, base = rows[judged["subject"]], rows[judged["baseline"]]
    assert mine["usable"] == f"{judged['usable']['after']:,}"
    assert base["usable"] == f"{judged['usable']['before']:,}"
    assert mine["change at 512"] == "+13 %" and base["change at 512"] == "–"
    assert any(name.startswith("perplexity at 2,048") and mine[name].startswith("8.49") for name in mine)


def test_what_was_not_measured_is_a_dash_and_a_single_model_has_no_table():
    one = fake.passkey(fake.model("a", "original"), 512)
    assert overview(gathered([one])) is None
    table = overview(gathered([one, fake.training(fake.model("b", "tuned"), 3)]))
    row = dict(zip(table.columns, next(row for row in table.rows if row[0] == "b")))
    assert row["usable"] == row["k_max"] == row["passkeys"] == "–"


def test_the_texts_shown_are_those_that_say_most_not_those_first_in_the_alphabet():
    """Books and code were read at the old window only; both models were read on stdlib at the new one."""
    base, longer = fake.model("base", "original"), fake.model("longer", "tuned")
    found = [
        *(fake.perplexity(longer, {512: 9.0}, group) for group in ("books", "code", "prose")),
        fake.perplexity(longer, {512: 9.41, 2048: 8.49}, "stdlib"),
        fake.perplexity(longer, {2048: 7.0}, "wiki"),
        fake.perplexity(base, {512: 8.31, 2048: 245.0}, "stdlib"),
    ]
    table = overview(gathered(found))
    assert list(table.columns[2:4]) == ["stdlib at 2,048", "wiki at 2,048"]


def test_where_no_text_was_read_at_the_window_the_longest_context_of_most_models_stands_in():
    base, longer = fake.model("base", "original"), fake.model("longer", "tuned")
    found = [fake.perplexity(longer, {512: 9.0, 1024: 8.8}), fake.perplexity(base, {256: 9.3, 512: 8.31})]
    table = overview(gathered(found))
    assert table.columns[2] == "perplexity at 512"
    assert [row[2].split()[0] for row in table.rows] == ["8.31", "9.00"]
