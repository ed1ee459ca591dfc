"""Results are gathered in one order, under unique names, and marked where they cannot be compared."""

from __future__ import annotations

import copy
import random

import fake_results as fake
import pytest

from ropewalk.errors import UserError
from ropewalk.results.collection import MARK, collect, difference
from ropewalk.results.style import DRAWN, choose


def gathered(results):
    return collect([(f"{i}.json", one) for i, one in enumerate(results)])


def test_models_stand_as_original_direct_interpolated_whatever_the_files_order():
    found = fake.everything()
    for seed in range(5):
        random.Random(seed).shuffle(found)
        models = gathered(found).models
        assert [m.label for m in models] == ["base-512", "direct-2048", "pi-2048"]
        assert [m.role for m in models] == ["original", "direct", "tuned"]


def test_a_models_colour_does_not_depend_on_what_else_was_measured():
    everything = fake.everything()
    alone = [one for one in everything if one["model"]["name"] == "pi-2048"]
    assert choose(gathered(everything)).by_label["pi-2048"] == choose(gathered(alone)).by_label["pi-2048"]


def test_no_two_drawn_models_share_a_colour():
    blocks = [fake.model(f"pi-{i}", "tuned", steps=i + 1) for i in range(20)]
    slots = choose(gathered([fake.perplexity(block, {512: 9.0}) for block in blocks])).by_label
    assert len(slots) == DRAWN == len(set(slots.values()))


def test_two_checkpoints_of_one_name_stay_apart():
    one, two = fake.model("same", "tuned"), fake.model("same", "tuned")
    two["hash"] = "ffff" * 4
    labels = [m.label for m in gathered([fake.perplexity(b, {512: 9.0}) for b in (one, two)]).models]
    assert len(set(labels)) == 2
    assert all(label.startswith("same (") for label in labels)


def test_a_block_without_hash_is_the_only_model_of_its_name():
    whole, bare = fake.model("m", "tuned"), fake.model("m", "tuned")
    bare["hash"] = None
    found = gathered([fake.perplexity(whole, {512: 9.0}), fake.training(bare)])
    assert len(found.models) == 1
    assert {s.model.key for s in found.series} == {found.models[0].key}


def change(result, what):
    result = copy.deepcopy(result)
    if what == "protocol":
        result["protocol"]["stride"] = 512
    if what == "data":
        result["data"][0]["sha256"] = "00" * 32
    if what == "documents":
        result["summary"]["documents"] = ["other.txt"]
    return result


@pytest.mark.parametrize("what", ["protocol", "data", "documents"])
def test_what_was_measured_otherwise_is_marked_and_explained(what):
    found = fake.everything()
    at = next(
        i for i, r in enumerate(found) if r["evaluation"] == "perplexity" and r["model"]["name"] == "base-512"
    )
    found[at] = change(found[at], what)
    series = gathered(found).of("perplexity")["stdlib"]
    marks = {s.model.label: s.mark for s in series}
    assert marks == {"base-512": MARK, "direct-2048": "", "pi-2048": ""}
    words = difference(series[0], series[2])
    assert {"protocol": "stride 512 instead of 256", "data": "other data", "documents": "other documents"}[
        what
    ] in words


def test_which_contexts_were_asked_for_is_no_difference():
    blocks = [fake.model("a", "original"), fake.model("b", "tuned")]
    found = gathered([fake.perplexity(b, {512: 9.0, 512 * (i + 2): 8.0}) for i, b in enumerate(blocks)])
    assert not any(s.mark for s in found.series)


@pytest.mark.parametrize("corrected", [False, True])
def test_a_correction_that_no_row_had_is_no_difference_and_one_that_a_row_had_is(corrected):
    """Results of before the correction existed say nothing of it; later ones how it would be done."""
    blocks = [fake.model("a", "original"), fake.model("b", "tuned")]
    before = fake.perplexity(blocks[0], {512: 9.0, 1024: 8.0})
    later = fake.perplexity(blocks[1], {512: 9.0, 1024: 8.0}, control="by regression", sample=None)
    later["rows"][1]["control"] = 1024 if corrected else None
    assert any(s.mark for s in gathered([before, later]).series) == corrected


def test_a_grid_of_lengths_and_depths_is_a_map_and_distances_are_not():
    block = fake.model("m", "tuned")
    found = gathered([fake.passkey(block, 2048), fake.passkey_map(block, 2048)])
    assert {s.evaluation for s in found.series} == {"passkey", "passkey-map"}


def test_a_row_without_its_figure_is_refused_by_file_row_and_name():
    result = fake.perplexity(fake.model("m", "tuned"), {512: 9.0})
    result["rows"][0]["perplexity"] = "lots"
    with pytest.raises(UserError, match=r"0\.json: row 1 of perplexity has no number 'perplexity' \(lots\)"):
        gathered([result])
