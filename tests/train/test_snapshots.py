"""The model after chosen steps is left beside the output, whatever happens to the training."""

from __future__ import annotations

import pytest
import torch

import ropewalk
from ropewalk.errors import UserError
from ropewalk.files import read_record
from ropewalk.model.load import load_model, model_block
from ropewalk.train.keeping import Keeper
from ropewalk.train.trainer import Watch


def train(model, out, texts, steps=6, **more):
    settings = {"rate": 1e-2, "batch": 2, "warmup": 2, "save_every": 4, "device": "cpu", "seed": 3}
    return ropewalk.finetune(str(model), str(out), data=[str(texts)], steps=steps, **{**settings, **more})


def weights(path):
    return load_model(path).state_dict()


def test_a_kept_step_is_bitwise_the_training_that_ends_there(tiny_model, texts, tmp_path):
    """With a constant rate, N of M steps are N steps."""
    train(tiny_model, tmp_path / "long", texts, keep_at=[2])
    train(tiny_model, tmp_path / "short", texts, steps=2)
    kept, short, long = (weights(tmp_path / name) for name in ("long-step-2", "short", "long"))
    assert all(torch.equal(kept[name], short[name]) for name in short)
    assert any(not torch.equal(kept[name], long[name]) for name in long)
    block = read_record(tmp_path / "long-step-2")["model"]
    assert block == model_block(tmp_path / "long-step-2")
    assert (block["trained"]["steps"], block["factor"], block["name"]) == (2, 4.0, "long-step-2")
    assert not list(tmp_path.glob(".*training"))


def test_a_killed_training_resumed_leaves_the_same_step(tiny_model, texts, tmp_path, monkeypatch):
    train(tiny_model, tmp_path / "whole", texts, keep_at=[3, 5])
    real = Watch.on_step_end

    def dies(self, args, state, control, **more):
        real(self, args, state, control, **more)
        if state.global_step == 5:
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_end", dies)
        with pytest.raises(RuntimeError):
            train(tiny_model, tmp_path / "out", texts, keep_at=[3, 5])
    assert Keeper(tmp_path / ".out.training").newest().name == "checkpoint-4"
    assert not (tmp_path / "out-step-5").exists()
    train(tiny_model, tmp_path / "out", texts, keep_at=[3, 5])
    for step in (3, 5):
        one, other = weights(tmp_path / f"out-step-{step}"), weights(tmp_path / f"whole-step-{step}")
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("step", [0, 6, 9])
def test_a_step_that_is_not_on_the_way_is_refused(tiny_model, texts, tmp_path, step):
    with pytest.raises(UserError, match="keep_at"):
        train(tiny_model, tmp_path / "out", texts, keep_at=[step])


@pytest.mark.parametrize("there", ["training", "another's snapshot", "thesis"])
def test_a_place_that_is_not_free_is_found_before_the_first_step(tiny_model, texts, tmp_path, there):
    place = tmp_path / "out-step-4"
    if there == "training":
        train(tiny_model, place, texts, steps=1)
        said = "holds a finished training"
    elif there == "another's snapshot":
        train(tiny_model, tmp_path / "out", texts, keep_at=[4])
        (tmp_path / "out").rename(tmp_path / "earlier")
        said = "holds another training: rate was 0.01, now 0.02"
    else:
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
        said = "not made by ropewalk"
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=said):
        train(tiny_model, tmp_path / "out", texts, keep_at=[4], rate=2e-2)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_begun_again_a_training_replaces_its_own_snapshots(tiny_model, texts, tmp_path):
    for rate in (1e-2, 2e-2):
        train(tiny_model, tmp_path / "out", texts, keep_at=[2], overwrite=True, rate=rate)
        assert read_record(tmp_path / "out-step-2")["identity"]["rate"] == rate
