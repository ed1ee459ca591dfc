"""Our own way through plain layers gives transformers' values, and knows which layers are not plain."""

from __future__ import annotations

import pytest
import torch
import transformers

from ropewalk.model.plain import plain_decoder

SHAPE = {
    "vocab_size": 300, "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 12, "max_position_embeddings": 512,
    "initializer_range": 0.3,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "rope_theta": 1e4}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}


def build(family: str, **changes):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **changes})
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for name, one in model.named_parameters():
        if "bias" in name or "norm" in name:  # transformers begins with zeros and ones
            one.data.normal_(1.0, 0.3)
    return model


def difference(model, decoder, scored: int, length: int = 200) -> float:
    """Of the hidden states, as a share of their norm."""
    ids = torch.randint(0, 300, (3, length), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -scored - 1 : -1]
        found = decoder(ids, scored).view(expected.shape)
        return float((found.double() - expected).norm() / expected.double().norm())


@pytest.mark.parametrize(
    "family, changes",
    [
        ("Llama", {}),
        ("Llama", {"rope_parameters": YARN}),
        ("Llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": 64}),
        ("Llama", {"num_key_value_heads": 6, "hidden_act": "gelu", "tie_word_embeddings": True}),
        ("Mistral", {"sliding_window": None}),
        ("Qwen2", {}),
        ("Qwen3", {}),
    ],
)
def test_hidden_states_of_plain_layers_are_those_of_transformers(family, changes):
    """Bound: float32 sums in another order, 1e-6 of the norm; also with a whole last layer."""
    model = build(family, **changes)
    decoder = plain_decoder(model, compiled=False)
    assert decoder is not None
    for scored in (1, 7, 50, 199):
        assert difference(model, decoder, scored) < 1e-6
    decoder.trim = False
    assert difference(model, decoder, 7) < 1e-6


def test_in_sixteen_bits_they_differ_by_rounding_alone():
    """Against float32 they are no further off than transformers' own bfloat16, give or take a quarter."""
    exact, model = build("Llama"), build("Llama")
    for one in exact.parameters():
        one.data = one.data.bfloat16().float()
    decoder = plain_decoder(model.bfloat16(), compiled=False)
    theirs = difference(exact, lambda ids, n: model.base_model(ids).last_hidden_state[:, -n - 1 : -1], 50)
    assert 0.001 < difference(exact, decoder, 50) < 1.25 * theirs


@pytest.mark.parametrize(
    "family, changes",
    [
        ("Mistral", {"sliding_window": 128}),
        ("Qwen2", {"use_sliding_window": True, "sliding_window": 128, "max_window_layers": 0}),
        ("Llama", {"attention_bias": True}),
        ("Llama", {"mlp_bias": True}),
        ("Gemma", {}),
        ("Gemma2", {}),
        ("Granite", {"residual_multiplier": 0.5}),
    ],
)
def test_other_layers_are_left_to_transformers(family, changes):
    assert plain_decoder(build(family, **changes), compiled=False) is None


def test_a_family_whose_layers_compute_something_else_is_found_out(monkeypatch):
    """As if a later transformers did: every layer adds half of what it should."""
    model = build("Llama")
    for layer in model.base_model.layers:
        layer.self_attn.o_proj.register_forward_hook(lambda module, args, out: out / 2)
    assert plain_decoder(model, compiled=False) is None


def test_packing_adds_no_memory_and_leaves_the_model_as_it_was():
    model = build("Qwen2")
    ids = torch.arange(40)[None]
    before = model(ids).logits
    decoder = plain_decoder(model, compiled=False)
    assert torch.equal(model(ids).logits, before)
    packed = {one.untyped_storage().data_ptr() for x in decoder._layers for one in (x.qkv, x.gate_up)}
    attention, mlp = model.base_model.layers[0].self_attn, model.base_model.layers[0].mlp
    for one in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
        assert one.weight.untyped_storage().data_ptr() in packed


def test_only_the_scored_rows_go_through_the_last_layer(monkeypatch):
    model = build("Llama")
    decoder = plain_decoder(model, compiled=False)
    rows = []
    gated = decoder._gated
    monkeypatch.setattr(decoder, "_gated", lambda both, act: rows.append(len(both)) or gated(both, act))
    with torch.inference_mode():
        decoder(torch.zeros(2, 100, dtype=torch.long), 10)
    assert rows == [200, 200]  # the third layer has its 20 rows elsewhere
