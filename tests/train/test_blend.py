"""What comes out lies between the weights before the training and those behind it, as asked."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

import ropewalk
from ropewalk.errors import UserError
from ropewalk.files import read_record


def train(model, out, texts, **more):
    settings = {"steps": 4, "rate": 1e-2, "batch": 2, "warmup": 1, "device": "cpu"}
    return ropewalk.finetune(str(model), str(out), data=[str(texts)], **{**settings, **more})


def weights(path):
    return load_file(path / "model.safetensors")


@pytest.mark.parametrize("more", [{}, {"average": 0.5}, {"only": ["self_attn"]}])
def test_the_share_is_of_the_weights_before_the_rest_of_those_behind(tiny_model, texts, tmp_path, more):
    train(tiny_model, tmp_path / "plain", texts, **more)
    train(tiny_model, tmp_path / "blended", texts, **more, blend=0.25, keep_at=[2])
    train(tiny_model, tmp_path / "other", texts, **more, keep_at=[2])
    before, behind, found = weights(tiny_model), weights(tmp_path / "plain"), weights(tmp_path / "blended")
    for name in found:
        expected = 0.25 * before[name].double() + 0.75 * behind[name].double()
        assert torch.allclose(found[name].double(), expected, rtol=0, atol=1e-6)
    assert any(not torch.allclose(found[name], behind[name], atol=1e-4) for name in found)
    record = read_record(tmp_path / "blended")
    assert record["model"]["trained"]["blend"] == 0.25
    assert "25% of the weights it started from" in (tmp_path / "blended" / "README.md").read_text()
    on_the_way, other = weights(tmp_path / "blended-step-2"), weights(tmp_path / "other-step-2")
    assert all(torch.equal(on_the_way[name], other[name]) for name in found)  # the weights themselves


def test_another_blend_is_another_training(tiny_model, texts, tmp_path):
    train(tiny_model, tmp_path / "out", texts, blend=0.25)
    with pytest.raises(UserError, match="blend"):
        train(tiny_model, tmp_path / "out", texts, blend=0.5)
