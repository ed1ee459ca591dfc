"""Results in a model card: those of its very weights, once, before the words on serving."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fake_results as fake

from ropewalk.files import write_record
from ropewalk.results.card import add_results
from ropewalk.results.collection import collect

CARD = "---\nlicense: mit\n---\n\n# pi\n\n## What was done\n\n- It.\n\n## Serving it\n\n```sh\nserve\n```\n"


def checkpoint(place: Path, mark: str) -> Path:
    place.mkdir()
    (place / "README.md").write_text(CARD)
    write_record(place, {"verb": "finetune", "model": {"hash": mark}})
    return place


def gathered(k_max: int = 2048):
    block = fake.model("pi", "tuned")
    results = [fake.perplexity(block, {512: 9.0, 2048: 7.5}), fake.passkey(block, k_max)]
    return collect([(f"{i}.json", one) for i, one in enumerate(results)]), block["hash"]


def test_results_stand_once_before_serving_and_a_second_report_replaces_them(tmp_path):
    found, mark = gathered()
    place = checkpoint(tmp_path / "m", mark)
    assert add_results(place, found)
    first = (place / "README.md").read_text()
    assert "## Evaluation" in first and "| 9.00" in first and "7.50 (" in first
    assert "k_max 2,048 tokens" in first and "303 of 320 found" in first
    assert first.index("## What was done") < first.index("## Evaluation") < first.index("## Serving it")
    assert add_results(place, gathered(1024)[0])
    (place / ".README.md.abcdefgh.partial").write_text("# pi, cut off by a kill")
    assert add_results(place, gathered(1024)[0])  # the same figures: nothing to write, and all to clear
    assert sorted(one.name for one in place.iterdir()) == ["README.md", "ropewalk.json"]
    second = (place / "README.md").read_text()
    assert second.count("## Evaluation") == 1 and "k_max 1,024 tokens" in second


@pytest.mark.parametrize("change", ["other weights", "no record", "own card"])
def test_other_peoples_cards_and_other_weights_are_left_alone(tmp_path, change):
    found, mark = gathered()
    place = checkpoint(tmp_path / "m", "0" * 16 if change == "other weights" else mark)
    if change == "no record":
        (place / "ropewalk.json").unlink()
    if change == "own card":
        (place / "README.md").write_text("# mine\n")
    before = (place / "README.md").read_bytes()
    assert not add_results(place, found)
    assert (place / "README.md").read_bytes() == before
