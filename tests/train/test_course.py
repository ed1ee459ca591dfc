"""What a small model reads in which order where nobody says so, and that one word of it is enough."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import write_tiny_model

import ropewalk
import ropewalk.model.weights
from ropewalk.files import read_record
from ropewalk.model.load import original_window
from ropewalk.train.course import RISING, WHOLE
from ropewalk.verbs.finetune import Finetune, with_course


@pytest.fixture
def longer(tmp_path):
    """A tiny model extended to 256 tokens."""
    write_tiny_model(tmp_path / "tiny")
    ropewalk.extend(str(tmp_path / "tiny"), str(tmp_path / "longer"), to=256)
    return tmp_path / "longer"


def course_of(settings):
    return {name: getattr(settings, name) for name in WHOLE}


def decided(path, window=256, **said):
    return course_of(with_course(Finetune(model=str(path), out="out", data=("x",), **said), path, window)[0])


def test_a_small_model_begins_with_short_windows_where_nothing_is_said(longer):
    assert decided(longer) == RISING


@pytest.mark.parametrize(
    "said",
    [
        {"short_share": 0.0},
        {"repeats": 1.0},
        {"average": 0.25},
        {"repeats_end": 2.0},
        {"short_share": 0.3, "average": 0.5},
    ],
    ids=str,
)
def test_one_word_of_it_and_the_rest_is_the_papers(longer, said):
    assert decided(longer, **said) == {**WHOLE, **said}


@pytest.mark.parametrize(
    "said",
    [{"schedule": "linear"}, {"packing": "apart"}, {"lora": True}, {"skip_positions": 64}],
    ids=str,
)
def test_trainings_it_was_not_tried_with_are_the_papers(longer, said):
    assert decided(longer, **said) == WHOLE


def test_windows_no_longer_than_the_old_one_are_the_papers(longer):
    original = original_window(longer)
    assert decided(longer, window=original) == WHOLE
    assert decided(longer, window=original + 1) == RISING


def test_a_large_model_is_the_papers(longer, monkeypatch):
    for parameters, expected in ((999_999_999, RISING), (1_000_000_000, WHOLE)):
        monkeypatch.setattr(ropewalk.model.weights, "count_parameters", lambda path, n=parameters: n)
        assert decided(longer) == expected


def test_it_trains_as_if_it_had_been_said_and_is_told(longer, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"line {n} of a text that is long enough" for n in range(3000)))
    common = {"data": [str(text)], "steps": 4, "rate": 1e-2, "batch": 2, "warmup": 1, "device": "cpu"}
    ropewalk.finetune(str(longer), str(tmp_path / "left-open"), **common)
    said = capsys.readouterr().out
    ropewalk.finetune(str(longer), str(tmp_path / "said"), **common, **RISING)
    ropewalk.finetune(str(longer), str(tmp_path / "whole"), **common, short_share=0)
    open_, same, whole = (
        load_file(tmp_path / name / "model.safetensors") for name in ("left-open", "said", "whole")
    )
    assert all(torch.equal(open_[name], same[name]) for name in open_)
    assert any(not torch.equal(open_[name], whole[name]) for name in open_)
    assert "100% (at the end 0%) of the steps with short windows" in said
    assert "--short-share 0 for whole windows of plain text, as in the paper" in said
    record = read_record(tmp_path / "left-open")
    assert {name: record["settings"][name] for name in RISING} == RISING
    assert (
        "100% (at the end 0%) of its windows had the old length"
        in (tmp_path / "left-open" / "README.md").read_text()
    )
