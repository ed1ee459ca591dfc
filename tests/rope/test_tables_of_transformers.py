"""The tables that transformers builds from a config, compared whole and bit for bit with ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from ropewalk.rope.rotate import rotary_table, rotate_half_split
from ropewalk.rope.scaling import LENGTH_DEPENDENT, ntk_base, scaled

L = 256
D = 32
LENGTHS = (1, L // 2, L, L + 1, 4 * L)
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # method, transformers' rope_parameters beside theta, our settings
    ("none", {"rope_type": "default"}, {}),
    ("linear", {"rope_type": "linear", "factor": 4.0}, {"factor": 4.0}),
    ("linear", {"rope_type": "linear", "factor": 3.0}, {"factor": 3.0}),
    ("linear", {"rope_type": "linear", "factor": 1.7}, {"factor": 1.7}),
    ("dynamic", {"rope_type": "dynamic", "factor": 4.0}, {"factor": 4.0}),
    ("dynamic", {"rope_type": "dynamic", "factor": 1.7}, {"factor": 1.7}),
    ("yarn", {"rope_type": "yarn", "factor": 4.0}, {"factor": 4.0}),
    (
        "yarn",
        {"rope_type": "yarn", "factor": 2.5, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
        {"factor": 2.5, "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False},
    ),
    (
        "yarn",
        {"rope_type": "yarn", "factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0},
        {"factor": 40.0, "mscale": 0.707, "mscale_all_dim": 1.0},
    ),
    (
        "yarn",
        {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.5},
        {"factor": 4.0, "attention_factor": 1.5},
    ),
    (
        "llama3",
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        {"factor": 8.0},
    ),
    (
        "llama3",
        {"rope_type": "llama3", "factor": 3.0, "low_freq_factor": 0.5, "high_freq_factor": 6.0},
        {"factor": 3.0, "low_freq_factor": 0.5, "high_freq_factor": 6.0},
    ),
    (
        "longrope",
        {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.1] * 16, "long_factor": [3.3] * 16},
        {"factor": 4.0, "short_factor": [1.1] * 16, "long_factor": [3.3] * 16},
    ),
    ("proportional", {"rope_type": "proportional", "factor": 2.0}, {"factor": 2.0}),
]
WITH_ORIGINAL = {"yarn", "llama3", "longrope"}


def built(theta: float, rope: dict[str, Any]) -> LlamaRotaryEmbedding:
    """The rotary module of a tiny Llama of window L with these rope_parameters."""
    parameters = {"rope_theta": theta, **rope}
    if rope["rope_type"] in WITH_ORIGINAL:
        parameters["original_max_position_embeddings"] = L
    config = LlamaConfig(
        hidden_size=2 * D,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=16,
        max_position_embeddings=L,
        rope_parameters=parameters,
    )
    return LlamaRotaryEmbedding(config)


def table(module: LlamaRotaryEmbedding, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = module(torch.zeros(1), torch.arange(length)[None])
    return cos[0], sin[0]


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize(("method", "rope", "ours"), CASES)
def test_the_whole_table_equals_that_of_transformers_bit_for_bit_at_every_length(theta, method, rope, ours):
    for length in LENGTHS:
        cos, sin = table(built(theta, rope), length)
        mine = scaled(method, D, theta, L, 64 * L, length=length, **ours)
        my_cos, my_sin = rotary_table(torch.arange(length), mine.inv_freq, mine.attention_factor)
        assert cos.shape == my_cos.shape == (length, D)
        assert torch.equal(cos, my_cos) and torch.equal(sin, my_sin), (method, length)


def test_ntk_aware_scaling_is_a_plain_config_with_the_base_that_ntk_base_returns():
    cos, _ = table(built(ntk_base(D, 10000.0, 4.0), {"rope_type": "default"}), 4 * L)
    mine = scaled("ntk", D, 10000.0, L, 4 * L)
    assert torch.equal(cos, rotary_table(torch.arange(4 * L), mine.inv_freq)[0])


def test_every_length_dependent_type_of_transformers_changes_its_table_past_the_window():
    """Guards the cases above: were the length ignored on both sides, they would still agree."""
    for method, rope, _ in CASES:
        module = built(10000.0, rope)
        before = table(module, L)[0]
        after = table(module, 4 * L)[0][:L]
        assert torch.equal(before, after) == (method not in LENGTH_DEPENDENT), method


def test_the_rotation_is_that_of_transformers_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 2, L, D, generator=generator)
    cos, sin = table(built(10000.0, {"rope_type": "linear", "factor": 4.0}), L)
    theirs = apply_rotary_pos_emb(query, key, cos[None], sin[None])
    mine = scaled("linear", D, 10000.0, L, 4 * L)
    my_cos, my_sin = rotary_table(torch.arange(L), mine.inv_freq)
    for x, expected in zip((query, key), theirs):
        assert torch.equal(rotate_half_split(x, my_cos, my_sin), expected)
