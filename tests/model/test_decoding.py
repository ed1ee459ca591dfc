"""How answers are chosen: nucleus sampling by inversion, against transformers' own processors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, LlamaConfig, TemperatureLogitsWarper, TopPLogitsWarper

from ropewalk.model.cache import branched, make_cache
from ropewalk.model.decoding import Decoding, pick, shared_start

GRID = 4000


def drawn(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """How much of [0, 1) leads to each token: u runs over an even grid."""
    u = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    tokens = pick(logits.expand(GRID, -1), u, temperature, top_p)
    return torch.bincount(tokens, minlength=logits.shape[-1]) / GRID


def expected(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """What transformers would draw from."""
    warped = TemperatureLogitsWarper(temperature)(None, logits[None].clone())
    return TopPLogitsWarper(top_p)(None, warped).softmax(-1)[0] if top_p < 1 else warped.softmax(-1)[0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.6, 0.05])
def test_tokens_are_drawn_with_the_probabilities_of_transformers_temperature_and_top_p(temperature, top_p):
    logits = torch.randn(37, generator=torch.Generator().manual_seed(3)) * 2
    found, wanted = drawn(logits, temperature, top_p), expected(logits, temperature, top_p)
    assert float((found - wanted).abs().max()) <= 1.01 / GRID
    assert set(found.nonzero()[:, 0].tolist()) <= set(wanted.nonzero()[:, 0].tolist())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 3), st.floats(0.01, 1), st.floats(0, 1, exclude_max=True))
def test_a_drawn_token_is_always_among_those_that_are_kept(seed, temperature, top_p, u):
    logits = torch.randn(11, generator=torch.Generator().manual_seed(seed)) * 5
    token = pick(logits[None], torch.tensor([u], dtype=torch.float64), temperature, top_p)
    assert expected(logits, temperature, top_p)[token] > 0


def test_a_prompts_random_numbers_follow_from_its_seed_alone():
    one, two = Decoding(0.5, seeds=(7, 8, 9)), Decoding(0.5, seeds=(9, 7))
    assert torch.equal(one.uniforms(3, 5)[[2, 0]], two.uniforms(2, 5))
    assert one.uniforms(3, 5)[0, 0] != one.uniforms(3, 5)[1, 0]
    assert one.uniforms(3, 5).dtype == torch.float64
    with pytest.raises(AssertionError, match="2 seeds for 3"):
        two.uniforms(3, 5)


@pytest.mark.parametrize(
    ("rows", "same"), [("abcd abce", 3), ("abcd abcd", 4), ("abc abcd", 3), ("x abc", 0), ("abc", 3)]
)
def test_the_shared_start_ends_at_the_first_difference(rows, same):
    assert shared_start([torch.tensor(list(row.encode())) for row in rows.split()]) == same


def states(rows: int, tokens: int) -> torch.Tensor:
    return torch.randn(rows, 2, tokens, 4, generator=torch.Generator().manual_seed(tokens))


def test_rows_taken_out_of_a_cache_with_room_leave_what_a_growing_one_has():
    config = LlamaConfig(hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=1)
    caches = [make_cache(config, 20), DynamicCache(config=config)]
    for cache in caches:
        cache.update(states(4, 5), -states(4, 5), 0)
        cache.batch_select_indices(torch.tensor([1, 3]))
    more = states(2, 3)
    found, wanted = (cache.update(more, -more, 0) for cache in caches)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted)) and found[0].shape == (2, 2, 8, 4)


def test_a_branch_begins_as_its_trunk_and_leaves_it_alone():
    trunk = make_cache(LlamaConfig(num_hidden_layers=1), 6)
    keys, _ = trunk.update(states(1, 6), states(1, 6), 0)
    before = keys.clone()
    branch = branched(trunk, 3, 10)
    found, _ = branch.update(states(3, 4), states(3, 4), 0)
    assert torch.equal(found[:, :, :6], before.expand(3, -1, -1, -1))
    assert torch.equal(found[:, :, 6:], states(3, 4))
    assert torch.equal(trunk.layers[0].keys, before) and branch.get_seq_length() == 10
