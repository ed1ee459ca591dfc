"""Scores of real heads: what is caught is what the model computes with, before and after interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fakes import TEXT, tiny_checkpoint
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import ropewalk
from ropewalk.errors import UserError
from ropewalk.evals.attention import AttentionSettings, Head, choose, geometry, layer_scores, leap, run
from ropewalk.model.heads import Heads, attention_weights, caught, rotary_of
from ropewalk.model.lm import TransformersLM
from ropewalk.model.load import model_block
from ropewalk.results.cells import Cells
from ropewalk.rope.frequencies import inverse_frequencies
from ropewalk.rope.rotate import rotary_table, rotate_half_split
from ropewalk.rope.scores import HeadScores

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.5,
}
IDS = torch.arange(64)[None] * 7 % 64


def tiny(family, **more):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**{**SIZES, **more})).eval()


@pytest.mark.parametrize(
    ("family", "more"),
    [
        ("llama", {}),
        ("qwen3", {"head_dim": 16}),
        ("stablelm", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
        ("granite", {"attention_multiplier": 0.4}),
    ],
)
def test_attention_weights_follow_from_what_is_caught(family, more):
    model = tiny(family, **more)
    found = caught(model, IDS)
    assert sorted(found) == [0, 1] and found[0].q.shape[:2] == (64, 4) and found[0].k.shape[1] == 2
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        given = model.base_model(input_ids=IDS, output_attentions=True).attentions
    for layer in found:
        weights = attention_weights(found[layer], rotary_of(model))
        torch.testing.assert_close(weights, given[layer][0], rtol=0, atol=1e-5)


def test_families_that_rotate_otherwise_or_hide_their_heads_are_refused_by_name():
    with pytest.raises(UserError, match="family cohere: its attention weights do not follow"):
        caught(tiny("cohere"), IDS)
    with pytest.raises(UserError, match="family gpt_neox has no q_proj"):
        caught(tiny("gpt_neox"), IDS)
    with pytest.raises(UserError, match="family gemma3_text: its layers do not share one"):
        caught(tiny("gemma3_text"), IDS)


def test_layers_without_positions_are_left_out():
    model = tiny("smollm3", no_rope_layers=[1, 0], use_sliding_window=False)
    assert sorted(caught(model, IDS)) == [0]


def test_the_score_of_one_content_is_its_rotated_product_at_every_distance():
    """Equal contents at all tokens: the mean content is the content, and a(s) is the model's own score."""
    torch.manual_seed(0)
    theta = inverse_frequencies(16, 1e4, dtype=torch.float64)
    q, k = torch.randn(2, 16, dtype=torch.float64)
    heads = Heads(q.expand(8, 2, 16), k.expand(8, 1, 16), scale=0.3)
    distances = np.array([0.0, 3.0, 17.0, 200.0])
    found = layer_scores(0, heads, theta.numpy(), 4.0, distances, 32)
    assert [one.head for one in found] == [0, 1]
    for squeeze, scores in ((1.0, found[1].scores.before), (4.0, found[1].scores.after)):
        table = rotary_table(torch.from_numpy(distances) / squeeze, theta, dtype=torch.float64)
        wanted = (rotate_half_split(q.expand(4, 16), *table) @ k) * 0.3
        np.testing.assert_allclose(scores, wanted, atol=1e-12)


def test_query_heads_share_keys_in_the_order_of_the_model():
    """Query heads 0, 1 read key head 0 and 2, 3 read key head 1: only key head 1 is not zero."""
    keys = torch.stack([torch.zeros(8, 16), torch.ones(8, 16)], dim=1)
    theta = inverse_frequencies(16, 1e4).numpy()
    found = layer_scores(0, Heads(torch.ones(8, 4, 16), keys, 1.0), theta, 4.0, np.array([0.0, 40.0]), 32)
    assert [bool(one.scores.before[0]) for one in found] == [False, False, True, True]


def scores(before):
    s = np.arange(len(before), dtype=float)
    zero = np.zeros(len(before))
    return HeadScores(s, np.array(before, dtype=float), zero, zero, zero, zero)


def test_a_leap_is_how_far_scores_leave_the_band_of_the_window_either_way():
    assert leap(scores([1, 2, 1, 1.5]), 2) == 0.0
    assert leap(scores([1, 2, 7, 0]), 2) == 5.0
    assert leap(scores([1, 2, 3, -8]), 2) == 9.0


def test_the_heads_shown_are_those_of_the_largest_leaps_and_the_one_of_the_smallest():
    found = [Head(0, i, scores([0, 0]), leap) for i, leap in enumerate([3.0, 9.0, 1.0, 5.0])]
    assert [one.head for one in choose(found, 3)] == [1, 3, 2]
    assert [one.head for one in choose(found, 1)] == [1]
    assert [one.head for one in choose(found, 9)] == [1, 3, 0, 2]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("attention")
    tiny_checkpoint(top / "model", window=128)
    ropewalk.extend(str(top / "model"), str(top / "longer"), to=512)
    ropewalk.extend(str(top / "model"), str(top / "yarn"), to=512, method="yarn")
    ropewalk.extend(str(top / "model"), str(top / "raised"), to=256, method="none")
    (top / "a.txt").write_text(" ".join(f"{i} {TEXT}" for i in range(20)))
    return top


def of(place, name, **more):
    settings = AttentionSettings(512, (str(place / "a.txt"),), **{"heads": 8, "points": 64, **more})
    return run(TransformersLM(place / name), settings, Cells(None, {}))


def test_original_and_extended_checkpoint_show_the_same_two_curves_of_the_first_layer(place):
    """Before the first rotation nothing depends on the scaling, so the contents there are the same."""
    found = [of(place, name) for name in ("model", "longer")]
    assert [one["summary"]["factor"] for one in found] == [4.0, 4.0]
    first, second = (
        {(r["series"], r["distance"]): r["score"] for r in one["rows"] if r["layer"] == 0} for one in found
    )
    assert first.keys() == second.keys() and len({series for series, _ in first}) == 8
    assert all(first[key] == pytest.approx(second[key], abs=1e-5) for key in first)


def test_rows_lie_within_their_bounds_and_reach_past_the_window(place):
    found = of(place, "model", heads=3)
    assert all(row["low"] - 1e-9 <= row["score"] <= row["high"] + 1e-9 for row in found["rows"])
    assert {row["distance"] for row in found["rows"]} >= {0, 511}
    assert len({row["series"] for row in found["rows"]}) == 6
    assert len(found["summary"]["leaps"]) == 8 and len(found["summary"]["heads"]) == 3


def test_other_methods_and_targets_inside_the_window_are_refused(place):
    with pytest.raises(UserError, match="not for yarn"):
        geometry(model_block(place / "yarn"), 512)
    with pytest.raises(UserError, match="inside the trained window of 128"):
        geometry(model_block(place / "model"), 128)
    assert geometry(model_block(place / "raised"), 512) == (128, 4.0)
