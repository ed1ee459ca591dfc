"""What a training can meet on its way: one line with the cure, and the last good checkpoint stands."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from steps import after_step

from ropewalk.errors import UserError
from ropewalk.train.keeping import Keeper, damage
from ropewalk.train.trainer import WindowTrainer
from ropewalk.verbs.finetune import finetune

SMALL = {"steps": 8, "batch": 4, "micro_batch": 2, "warmup": 3, "rate": 1e-2, "save_every": 3}


@pytest.fixture(scope="module")
def train(tiny_model, tmp_path_factory):
    """A function that trains into a directory, on a copy of the text of its own."""

    def run(out: Path, data: Path, **more):
        return finetune(str(tiny_model), str(out), data=(str(data),), device="cpu", **{**SMALL, **more})

    return run


def newest(out: Path) -> str:
    kept = Keeper(out.with_name(f".{out.name}.training")).newest()
    assert kept is not None and damage(kept) is None
    return kept.name


def test_data_that_vanish_on_the_way_are_named_and_back_again_all_goes_on(
    train, texts, tmp_path, monkeypatch
):
    """They are read again in the second pass, which 12 windows a step begin in step 6."""
    data, out = tmp_path / "texts.jsonl", tmp_path / "out"
    data.write_bytes(texts.read_bytes())
    with monkeypatch.context() as patch:
        after_step(patch, 4, data.unlink)
        with pytest.raises(UserError, match=r"training stopped: .*texts\.jsonl.*the last checkpoint is kept"):
            train(out, data, batch=12, micro_batch=12)
    assert newest(out) == "checkpoint-3"
    data.write_bytes(texts.read_bytes())
    assert train(out, data, batch=12, micro_batch=12)["model"]["trained"]["steps"] == 8


@pytest.mark.parametrize("room", [8_000, 60_000], ids=["weights", "optimizer"])
def test_a_disk_that_takes_no_more_while_saving_leaves_the_checkpoint_before(
    train, texts, tmp_path, monkeypatch, room
):
    """The system itself refuses: no file of this process may grow beyond so many bytes."""
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        after_step(patch, 5, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1])))
        try:
            with pytest.raises(UserError, match=r"the training stopped: .*last (checkpoint|one) is kept"):
                train(out, texts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert newest(out) == "checkpoint-3"


@pytest.mark.parametrize(("step", "left"), [(0, None), (3, "checkpoint-3")])
def test_a_gpu_that_runs_out_of_memory_at_the_first_step_or_later_says_what_helps(
    train, texts, tmp_path, monkeypatch, step, left
):
    real, out = WindowTrainer.compute_loss, tmp_path / "out"

    def full(self, *args, **more):
        if self.state.global_step == step:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(WindowTrainer, "compute_loss", full)
        with pytest.raises(UserError, match=rf"does not suffice in step {step + 1} .*give .*--recompute"):
            train(out, texts)
    if left is None:
        assert not list(tmp_path.iterdir())
    else:
        assert newest(out) == left
