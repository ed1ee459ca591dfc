"""read_state: the positions of a config.json, whatever its style; laws of extending it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.errors import UserError
from ropewalk.model.config import read_state
from ropewalk.model.engines import views
from ropewalk.model.scaling import extended_config, frequencies_of

LLAMA = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 4096}


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}}, "rope_parameters"),
        ({"rope_theta": 5e5, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, "rope_parameters"),
    ],
)
def test_old_and_new_styles_are_the_same_positions(keys: dict, where: str) -> None:
    state = read_state({**LLAMA, **keys})
    assert (state.window, state.original_window, state.factor, state.base) == (4096, 2048, 2.0, 5e5)
    assert (state.method, state.where, state.head_dim, state.rotary_dim) == ("linear", where, 16, 16)


@pytest.mark.parametrize(
    ("parameters", "window", "original"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, 16384, 4096),
        ({"rope_type": "dynamic", "factor": 2.0}, 8192, 4096),
        (
            {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 1024,
            },
            4096,
            1024,
        ),
    ],
)
def test_the_window_is_what_the_scaling_reads(parameters: dict, window: int, original: int) -> None:
    state = read_state({**LLAMA, "rope_parameters": {**parameters, "rope_theta": 1e4}})
    assert (state.window, state.original_window) == (window, original)


@settings(max_examples=25, deadline=None)
@given(first=st.integers(4097, 60_000), more=st.integers(1, 60_000))
def test_two_extensions_are_one(first: int, more: int) -> None:
    """Frequencies divided by k1 and then by k2 are frequencies divided by k1·k2, whole factors or not."""
    import torch

    config = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    once, twice = (
        read_state(extended_config(c, first + more)) for c in (config, extended_config(config, first))
    )
    assert once.window == twice.window == first + more
    assert twice.original_window == once.original_window == 4096
    one, other = (frequencies_of(s, s.parameters, dtype=torch.float64).inv_freq for s in (once, twice))
    torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


@given(k=st.sampled_from([2, 4, 8]))
@settings(max_examples=3, deadline=None)
def test_vllm_and_sglang_multiply_the_stated_window_and_llama_cpp_does_not(k: int) -> None:
    config = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    seen = {view.engine: view for view in views(extended_config(config, 4096 * k))}
    assert seen["vLLM"].window == seen["SGLang"].window == 4096 * k * k
    assert seen["llama.cpp"].window == seen["transformers"].window == 4096 * k
    assert [seen[name].right for name in ("transformers", "vLLM", "SGLang", "llama.cpp")] == [1, 0, 0, 1]


def test_yarn_needs_no_flag_anywhere() -> None:
    config = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    assert all(view.right for view in views(extended_config(config, 16384, "yarn")))


def test_a_config_that_repeats_its_window_states_the_new_one_everywhere() -> None:
    """Servers take the smallest length they find."""
    config = extended_config({**LLAMA, "max_sequence_length": 4096, "seq_length": 77}, 8192)
    assert (config["max_sequence_length"], config["seq_length"]) == (8192, 77)


def test_a_multimodal_config_is_extended_where_its_language_model_is() -> None:
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING["gemma3"]().to_dict()
    after = extended_config(config, 2 * read_state(config).window)
    assert after["text_config"]["rope_parameters"]["full_attention"]["factor"] == 2.0
    assert "rope_parameters" not in after
    assert read_state(after).window == 2 * read_state(config).window


@pytest.mark.parametrize("factor", [0.5, "4", True, float("nan")])
def test_a_factor_that_is_none_is_refused(factor: object) -> None:
    with pytest.raises(UserError, match="factor"):
        read_state({**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": factor, "rope_theta": 1e4}})
