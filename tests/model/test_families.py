"""Families: extending by config is Position Interpolation, exactly; docs/families.md is what was measured."""

from __future__ import annotations

import json

import family_walk
import pytest
import torch

from ropewalk.errors import UserError
from ropewalk.model.config import as_read, read_state
from ropewalk.model.scaling import extended_config, frequencies_of
from ropewalk.model.tables import compare_tables


def raw(family: str) -> dict:
    return json.loads(json.dumps(family_walk.tiny_config(family).to_dict()))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "phi3", "gpt_neox"])
def test_an_extended_model_at_m_is_the_original_at_m_over_k(family: str) -> None:
    """Chen et al. 2023, Eq. 4, on the logits of a reloaded checkpoint; ×4 is exact in float32."""
    row = family_walk.examine(family)
    assert row["error"] == 0.0
    assert family_walk.supported(row)


def test_the_page_is_what_the_walk_measured() -> None:
    found = json.loads(family_walk.TABLE.read_text())
    assert family_walk.PAGE.read_text() == family_walk.page(found)
    assert sum(family_walk.supported(row) for row in found["rows"]) >= 35


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_walk_over_all_families_still_gives_the_committed_table() -> None:
    import transformers

    found = json.loads(family_walk.TABLE.read_text())
    if found["transformers"] != transformers.__version__:
        pytest.skip(
            f"the table is of transformers {found['transformers']}, this is {transformers.__version__}"
        )
    committed = {row["family"]: family_walk.supported(row) for row in found["rows"]}
    now = {row["family"]: family_walk.supported(row) for row in family_walk.walk()["rows"]}
    assert now == committed


@pytest.mark.parametrize("family", ["gemma3_text", "olmo3", "mellum"])
def test_layers_with_a_small_window_are_left_alone_unless_asked(family: str) -> None:
    config = raw(family)
    before = read_state(config)
    some = read_state(extended_config(config, 4 * before.window))
    every = read_state(extended_config(config, 4 * before.window, all_layers=True))
    assert some.layers["sliding_attention"] == before.layers["sliding_attention"]
    for state, layer in ((some, "full_attention"), (every, "full_attention"), (every, "sliding_attention")):
        own = state.layers[layer]
        old = frequencies_of(before, before.layers[layer], layer=layer).inv_freq
        assert torch.equal(frequencies_of(state, own, layer=layer).inv_freq, old / 4)
        assert own["rope_theta"] == before.layers[layer]["rope_theta"]


@pytest.mark.parametrize(
    "family", ["llama", "gemma3_text", "gpt_neox", "gpt_oss", "apertus", "phi3", "cohere"]
)
def test_transformers_builds_the_tables_that_rope_computes(family: str) -> None:
    config = raw(family)
    for each in (config, extended_config(config, 4 * read_state(config).window)):
        rows = compare_tables(each, read_state(each))
        assert rows and all(row.right and row.error is not None for row in rows)


def test_partial_rotation_survives_the_extension() -> None:
    config = raw("gpt_neox")
    after = read_state(extended_config(config, 256))
    assert (after.head_dim, after.rotary_dim) == (16, 4)
    assert after.parameters["partial_rotary_factor"] == 0.25


def test_phi3_carries_interpolation_in_its_longrope_field_without_an_attention_factor() -> None:
    after = as_read(extended_config(raw("phi3"), 256))
    own = after["rope_parameters"]
    assert own["rope_type"] == "longrope" and own["attention_factor"] == 1.0
    assert own["short_factor"] == own["long_factor"] == [4.0] * 8
    assert after["max_position_embeddings"] == after["original_max_position_embeddings"] == 256
    state = read_state(after)
    assert (state.window, state.original_window, state.factor) == (256, 64, 4.0)


def test_a_longrope_checkpoint_composes_on_its_own_factors() -> None:
    config = raw("phi3")
    once = extended_config(config, 128)
    twice = extended_config(once, 256)
    assert read_state(twice).parameters["long_factor"] == [4.0] * 8
    assert read_state(twice).original_window == 64


def test_layers_without_rope_do_not_stand_in_the_way() -> None:
    for family in ("smollm3", "llama4_text"):
        assert read_state(extended_config(raw(family), 256)).factor == 4.0


def test_the_same_method_multiplies_its_factors_on_the_window_it_started_from() -> None:
    config = raw("llama")
    once = extended_config(config, 128, "yarn", settings={"beta_fast": 4.0, "beta_slow": 0.5})
    own = read_state(extended_config(once, 256, "yarn")).parameters
    assert (own["factor"], own["original_max_position_embeddings"]) == (4.0, 64)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt2", "no rotary positions"),
        ("gptj", "its own sinusoids"),
        ("bloom", "no rotary positions"),
        ("beam", "only its layers with a small window"),
        ("deepseek_v4", "compressed blocks"),
    ],
)
def test_a_family_that_is_not_supported_is_named_with_the_reason(family: str, reason: str) -> None:
    from transformers import CONFIG_MAPPING

    with pytest.raises(UserError, match=f"family {family}.*{reason}"):
        extended_config(CONFIG_MAPPING[family]().to_dict(), 10_000_000)


def test_a_family_that_can_go_without_rope_is_refused_when_it_does() -> None:
    from transformers import CONFIG_MAPPING

    with pytest.raises(UserError, match="ALiBi"):
        read_state({**CONFIG_MAPPING["falcon"]().to_dict(), "alibi": True})


@pytest.mark.parametrize("method", ["dynamic", "yarn", "llama3", "ntk"])
def test_methods_that_cannot_be_composed_are_refused_by_name(method: str) -> None:
    config = extended_config(raw("llama"), 128)
    with pytest.raises(UserError, match=f"method {method} needs .* this one has linear already"):
        extended_config(config, 256, method)
