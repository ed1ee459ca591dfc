"""Exchanging the rotary modules of a loaded model is the same as loading an extended checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from ropewalk.errors import UserError
from ropewalk.model.scaling import extended_config
from ropewalk.model.swap import require_only_rotary, rotary_places, swapped

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 32,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}
IDS = torch.arange(96)[None] * 7 % 64


def config_of(family, **more):
    if family == "gemma3_text":
        more["layer_types"] = ["sliding_attention", "full_attention"]
    if family == "ministral3":  # its attention reads the rope parameters of the config at every call
        yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16}
        more["rope_parameters"] = {**yarn, "llama_4_scaling_beta": 0.1}
    if family == "gpt_neox":
        more["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    return CONFIG_MAPPING[family](**{**SIZES, **more}).to_dict()


def build(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[config["model_type"]].from_dict(copy.deepcopy(config))
    ).eval()


def logits(model):
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(("llama", method) for method in ("linear", "ntk", "dynamic", "yarn", "llama3")),
        ("qwen3", "yarn"),
        ("gemma3_text", "linear"),
        ("phi3", "linear"),
        ("gpt_neox", "dynamic"),
        ("ministral3", "linear"),
    ],
)
def test_a_swapped_model_gives_the_logits_of_a_model_built_from_the_extended_config(family, method):
    config = config_of(family)
    longer = extended_config(config, 128, method)
    model = build(config)
    plain, wanted = logits(model), logits(build(longer))
    assert not torch.equal(plain, wanted)
    with swapped(model, longer):
        assert torch.equal(logits(model), wanted)
    assert torch.equal(logits(model), plain)


def test_the_old_modules_return_after_an_error():
    model = build(config_of("llama"))
    before = [place.module for place in rotary_places(model)]
    with pytest.raises(ZeroDivisionError), swapped(model, extended_config(config_of("llama"), 64)):
        raise ZeroDivisionError
    assert [place.module for place in rotary_places(model)] == before


def test_dynamic_scaling_forgets_the_longest_call_between_two_swaps():
    config = config_of("llama")
    longer = extended_config(config, 128, "dynamic")
    model = build(config)
    with swapped(model, longer), torch.inference_mode():
        first = model(input_ids=IDS[:, :48], use_cache=False).logits
        model(input_ids=IDS, use_cache=False)
        assert not torch.equal(model(input_ids=IDS[:, :48], use_cache=False).logits, first)
    with swapped(model, longer), torch.inference_mode():
        assert torch.equal(model(input_ids=IDS[:, :48], use_cache=False).logits, first)


def test_a_family_without_rotary_modules_is_refused_by_name():
    gptj = CONFIG_MAPPING["gptj"](n_embd=16, n_head=2, n_layer=1, rotary_dim=4, vocab_size=64, n_positions=32)
    with pytest.raises(UserError, match="family gptj keeps its rotary tables elsewhere"):
        rotary_places(AutoModelForCausalLM.from_config(gptj))


def test_a_scaling_that_reaches_beyond_the_rotary_modules_is_refused_by_name():
    parameters = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    parameters["original_max_position_embeddings"] = 16
    sizes = {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
    }
    more = {
        "n_routed_experts": 2,
        "num_experts_per_tok": 1,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 2,
    }
    config = config_of("deepseek_v3", rope_parameters=parameters, **sizes, **more)
    with pytest.raises(UserError, match=r"family deepseek_v3: this scaling also changes .*Attention.scaling"):
        require_only_rotary(config, {**config, "rope_parameters": {**parameters, "factor": 4.0}})
    require_only_rotary(config_of("llama"), extended_config(config_of("llama"), 128, "yarn"))
