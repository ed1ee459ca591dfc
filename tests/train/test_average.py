"""What comes out is the mean of the weights over the last steps, whatever happens on the way."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from steps import after_step

import ropewalk
from ropewalk.files import read_record
from ropewalk.train.average import MOST, Average


def train(model, out, texts, **more):
    settings = {"steps": 8, "rate": 1e-2, "batch": 2, "warmup": 2, "save_every": 3, "device": "cpu"}
    return ropewalk.finetune(str(model), str(out), data=[str(texts)], **{**settings, **more})


def weights(path):
    return load_file(path / "model.safetensors")


@given(st.integers(1, 5000), st.floats(0.001, 1))
def test_few_points_evenly_over_the_share_the_last_one_among_them(steps, share):
    average = Average(None, steps=steps, share=share, keep=True)
    taken = [step for step in range(1, steps + 1) if average.takes(step)]
    assert taken[-1] == steps and len(taken) <= MOST
    assert len({after - before for before, after in itertools.pairwise(taken)}) <= 1
    assert taken[0] > steps - max(1, round(share * steps))
    assert len(taken) >= min(MOST // 2, max(1, round(share * steps)))


def test_what_comes_out_is_the_mean_and_the_training_is_not_changed(tiny_model, texts, tmp_path):
    train(tiny_model, tmp_path / "plain", texts, average=0, keep_at=[5, 6, 7])
    train(tiny_model, tmp_path / "mean", texts, average=0.5, keep_at=[6])
    points = [weights(tmp_path / name) for name in ("plain-step-5", "plain-step-6", "plain-step-7", "plain")]
    found = weights(tmp_path / "mean")
    for name in found:
        expected = torch.stack([point[name].double() for point in points]).mean(0)
        assert torch.allclose(found[name].double(), expected, rtol=0, atol=1e-6)
    assert any(not torch.allclose(found[name], points[-1][name], atol=1e-4) for name in found)
    record = read_record(tmp_path / "mean")
    assert record["model"]["trained"]["average"] == 0.5
    card = (tmp_path / "mean" / "README.md").read_text()
    assert "The weights are the mean over the last 50% of the steps" in card
    on_the_way = tmp_path / "mean-step-6"  # the weights themselves
    assert all(torch.equal(weights(on_the_way)[name], points[1][name]) for name in found)
    assert "average" not in read_record(on_the_way)["model"]["trained"]
    assert not list(tmp_path.glob(".*training"))


@pytest.mark.parametrize("step", [5, 7])
def test_killed_and_started_again_it_is_bitwise_the_same_mean(tiny_model, texts, tmp_path, monkeypatch, step):
    """Killed before the first of the points, and between two."""

    def die():
        raise RuntimeError("the process dies here")

    train(tiny_model, tmp_path / "whole", texts, average=0.4)
    with monkeypatch.context() as patch:
        after_step(patch, step, die)
        with pytest.raises(RuntimeError):
            train(tiny_model, tmp_path / "out", texts, average=0.4)
    train(tiny_model, tmp_path / "out", texts, average=0.4)
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "out")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_adapters_are_averaged_too(tiny_model, texts, tmp_path):
    train(tiny_model, tmp_path / "plain", texts, lora=True)
    train(tiny_model, tmp_path / "mean", texts, lora=True, average=0.5)
    one, other = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("plain", "mean")
    )
    assert one.keys() == other.keys() and any(not torch.equal(one[name], other[name]) for name in one)
