"""Keys chosen among ten stand beside the keys that were said."""

from __future__ import annotations

import fake_results as fake

from ropewalk.results.choice_section import passkey_choice
from ropewalk.results.collection import collect
from ropewalk.results.style import Slots


def section(*results):
    found = collect([(f"{i}.json", one) for i, one in enumerate(results)])
    return passkey_choice(found, Slots({model.label: i for i, model in enumerate(found.models)}))


def test_a_row_has_what_was_chosen_with_its_interval_and_what_was_said():
    block = fake.model("pi", "tuned")
    (figure,), (table,) = (lambda s: (s.figures, s.tables))(
        section(fake.passkey_choice(block, 1536), fake.passkey(block, 512))
    )
    (row,) = table.rows
    assert table.columns == ["model", "window", "k_choice", "chosen", "rate", "k_max", "answered"]
    assert row[2:4] == ["1,536", "248 of 320"] and row[5] == "512"
    assert row[4].startswith("78 % (73–82 %")
    assert "passkeys chosen" in str(figure.spec) and "k_choice 1,536" in str(figure.spec)


def test_where_keys_are_shared_there_is_no_interval_and_without_the_test_no_k_max():
    block = fake.model("pi", "tuned")
    chosen = fake.passkey_choice(block, 2048)
    chosen["protocol"]["keys"] = "the same at every distance"
    ((row,),) = (table.rows for table in section(chosen).tables)
    assert row[4:] == ["100 %", "–", "–"]


def test_without_results_there_is_no_section():
    assert section(fake.passkey(fake.model("pi", "tuned"), 512)) is None
