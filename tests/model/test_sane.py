"""Configs and the files beside them that hold odd values: one line, or taken for absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.errors import UserError
from ropewalk.model.checkpoint import set_window, write_config
from ropewalk.model.config import read_state
from ropewalk.model.inspect import config_findings, gather
from ropewalk.model.notes import notes_about
from ropewalk.model.repair import repaired_config
from ropewalk.model.sane import LISTS, NUMBERS, check_parameters
from ropewalk.model.scaling import factor_of
from ropewalk.model.tables import compare_tables

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 64,
    "rope_theta": 1e4,
}
ODD: tuple[Any, ...] = (
    *(True, False, "4", "", [], [1.0], {}, -1, -0.5, 10**400, 1e308, 5e-324, float("nan"), float("inf")),
)


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_of_a_scaling_is_of_its_kind_and_size(name: str) -> None:
    low, high = NUMBERS[name]
    for good in (low, high, (low * high) ** 0.5):
        check_parameters({"": {name: good}})
    for bad in ODD if low > 0 else (value for value in ODD if value != 5e-324):
        with pytest.raises(UserError, match=name):
            check_parameters({"": {name: bad}})


@pytest.mark.parametrize("name", LISTS)
def test_every_divisor_of_a_list_is_of_its_kind_and_size(name: str) -> None:
    check_parameters({"": {name: [1, 2.5]}})
    for bad in (*ODD[:4], [], [0.0], ["1"], [[1.0]], [1.0, float("nan")], [1.0, 1e300], [True]):
        with pytest.raises(UserError, match=name):
            check_parameters({"": {name: bad}})


def test_a_scaling_that_leaves_no_window_before_it_is_refused() -> None:
    scaled = {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 1e6, "rope_theta": 1e4}}
    with pytest.raises(UserError, match="less than two tokens"):
        read_state(scaled)


def test_more_layers_than_can_be_laid_out_are_refused() -> None:
    with pytest.raises(UserError, match="num_hidden_layers 12157"):
        read_state({**LLAMA, "num_hidden_layers": 12157})
    assert read_state({**LLAMA, "hidden_size": 1 << 14, "num_hidden_layers": 200}).head_dim == 1 << 12


def test_a_model_that_cannot_be_laid_out_is_one_line() -> None:
    config = {**LLAMA, "model_type": "phi3", "pad_token_id": 100}  # torch asserts that it is below 99
    with pytest.raises(UserError, match="cannot lay out"):
        compare_tables(config, read_state(config))


def test_a_config_deeper_than_any_is_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]
    with pytest.raises(UserError, match="nests deeper than 40"):
        read_state({**LLAMA, "extra": deep})


def test_an_infinity_inside_a_scaling_is_refused() -> None:
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "more": [{"x": float("inf")}]}
    with pytest.raises(UserError, match=r"more .*finite"):
        read_state({**LLAMA, "rope_parameters": scaled})


def test_half_characters_and_infinities_elsewhere_are_written_as_they_stood(tmp_path: Path) -> None:
    config = json.loads('{"note": "\\ud800", "time_step_limit": [0.0, Infinity]}')
    write_config(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8")) == config
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "\\udfff"}')
    set_window(tmp_path, 64, 128)
    found = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert found == {"bos_token": "\udfff", "model_max_length": 128}


def test_a_factor_without_a_scaling_stretches_nothing() -> None:
    own = {"rope_type": "default", "factor": 4.0, "rope_theta": 1e4}
    assert factor_of(read_state(LLAMA), own) == 1.0


BESIDE = {
    "ropewalk.json": [
        *({"model": [1]}, {"model": {"window": "x", "factor": "y", "base": [], "method": {"a": 1}}}),
        {"model": {"window": -1, "factor": float("nan"), "base": 0, "method": "nonsense"}},
    ],
    "tokenizer_config.json": [
        *([1], {"model_max_length": "x"}, {"model_max_length": float("inf")}, {"model_max_length": True}),
        {"bos_token": {"content": 1}, "add_bos_token": "yes", "chat_template": [{}]},
    ],
    "tokenizer.json": [
        *([1], {"truncation": {"max_length": "x"}}, {"truncation": {"max_length": [1]}}, {"truncation": 5}),
        *({"post_processor": [1]}, {"post_processor": {"processors": [1]}}),
        {"post_processor": {"processors": 7}},
        {"post_processor": {"type": "TemplateProcessing", "single": 3}},
        {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": 3}]}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", BESIDE)
def test_odd_values_beside_a_config_count_as_absent(name: str, tmp_path: Path) -> None:
    for content in BESIDE[name]:
        (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
        (tmp_path / name).write_text(json.dumps(content))
        evidence, state = gather(tmp_path), read_state(LLAMA)
        assert (evidence.window, evidence.factor, evidence.base, evidence.method) == (None,) * 4, content
        assert (evidence.tokenizer, evidence.truncation, evidence.adds_bos in (None, False)) == (
            None,
            None,
            True,
        )
        assert config_findings(LLAMA, state, evidence) == []
        notes_about(tmp_path, LLAMA, state)
        if isinstance(content, dict):
            set_window(tmp_path, 64, 128)


def test_a_record_whose_factor_leaves_no_window_is_not_repaired_by(tmp_path: Path) -> None:
    block = {"window": 100, "factor": 1e6, "base": 1e4, "method": "linear"}
    (tmp_path / "ropewalk.json").write_text(json.dumps({"model": block}))
    evidence, state = gather(tmp_path), read_state(LLAMA)
    findings = config_findings(LLAMA, state, evidence)
    assert {one.code for one in findings} >= {"not-scaled"}
    with pytest.raises(UserError, match="leave no window"):
        repaired_config(LLAMA, evidence, findings)
