"""finetune --only: what is left out stays bitwise as it was, and everything written says so."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

import ropewalk
from ropewalk.files import read_record


def test_what_is_not_named_stays_as_it_was_and_the_record_names_the_rest(tiny_model, texts, tmp_path):
    out = tmp_path / "out"
    settings = {"steps": 3, "rate": 1e-2, "batch": 2, "warmup": 0, "device": "cpu"}
    ropewalk.finetune(str(tiny_model), str(out), data=[str(texts)], only=("q_proj", "norm"), **settings)
    before, behind = (load_file(place / "model.safetensors") for place in (tiny_model, out))
    moved = {name for name in behind if not torch.equal(behind[name], before[name])}
    assert moved == {name for name in before if "q_proj" in name or "norm" in name}
    assert read_record(out)["model"]["trained"]["only"] == ["q_proj", "norm"]
    assert "a choice of the weights" in (out / "README.md").read_text()
