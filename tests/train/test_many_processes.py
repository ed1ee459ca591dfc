"""Several processes train as one does: equal losses and weights, one voice, a checkpoint for any number."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from processes import together
from safetensors.torch import load_file
from tiny_llama import write_tiny_model

from ropewalk.results.record import read_result
from ropewalk.train.keeping import Keeper
from ropewalk.train.trainer import Watch
from ropewalk.verbs.finetune import finetune

BOUND = 1e-5
"""Losses and weights of several processes against one, float32: the same sums in another order."""

SMALL = {"steps": 4, "batch": 4, "micro_batch": 1, "warmup": 2, "rate": 1e-2, "save_every": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """Without dropout, whose chances differ by process."""
    return write_tiny_model(tmp_path_factory.mktemp("still") / "tiny", attention_dropout=0.0)


@pytest.fixture
def train(model, texts, tmp_path):
    """A function that trains into tmp_path / NAME."""

    def run(name, **more):
        out = str(tmp_path / name)
        return finetune(model=str(model), out=out, data=(str(texts),), device="cpu", **{**SMALL, **more})

    return run


def require_equal(one: Path, other: Path) -> None:
    rows = [read_result(path / "training.json")["rows"] for path in (one, other)]
    assert [row["loss"] for row in rows[1]] == pytest.approx([row["loss"] for row in rows[0]], abs=BOUND)
    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=BOUND, rtol=0)


def when(monkeypatch, step, action):
    """Let ``action(rank)`` happen when optimizer step ``step`` is done, before anything of it is saved."""
    real = Watch.on_step_end

    def on_step_end(self, args, state, control, **more):
        if state.global_step == step:
            action(args.process_index)
        real(self, args, state, control, **more)

    monkeypatch.setattr(Watch, "on_step_end", on_step_end)


def test_a_model_in_parts_stopped_and_resumed_is_that_of_one_process(train, tmp_path, monkeypatch):
    """FSDP2 over gloo; SIGTERM reaches one process alone; the checkpoint serves one process as well."""
    train("one")

    def terminate(rank):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        when(patch, 1, terminate)
        codes, said = together(lambda: train("two", parallel="fsdp"), 2, tmp_path / "stopped")
    assert codes == [143, 143], said
    assert "2 processes: the model is spread over all (FSDP)" in said[0]
    assert "stopped behind step 2" in said[0]
    assert said[1] == ""
    kept = Keeper(tmp_path / ".two.training").newest()
    state = torch.load(kept / "optimizer.pt", weights_only=True)["state"]
    whole = load_file(kept / "model.safetensors")["model.embed_tokens.weight"]
    assert whole.shape in {tuple(part["exp_avg"].shape) for part in state.values()}
    (tmp_path / ".two.training").rename(tmp_path / ".again.training")
    codes, said = together(lambda: train("again", parallel="fsdp"), 2, tmp_path / "resumed")
    assert codes == [0, 0], said
    assert "going on from step 2" in said[0]
    require_equal(tmp_path / "one", tmp_path / "again")
