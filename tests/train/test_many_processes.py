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
from ropewalk.train.identity import read_settings
from ropewalk.train.keeping import Keeper
from ropewalk.train.trainer import Watch, WindowTrainer
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
    """FSDP2 over gloo; SIGTERM reaches one process alone; what it wrote is whole."""
    train("one", steps=3)

    def terminate(rank):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        when(patch, 1, terminate)
        codes, said = together(lambda: train("two", steps=3, parallel="fsdp"), 2, tmp_path / "log")
    assert codes == [143, 143], said
    assert "2 processes: the model is spread over all (FSDP)" in said[0]
    assert "stopped behind step 2" in said[0]
    assert said[1] == ""
    kept = Keeper(tmp_path / ".two.training").newest()
    state = torch.load(kept / "optimizer.pt", weights_only=True)["state"]
    whole = load_file(kept / "model.safetensors")["model.embed_tokens.weight"]
    assert whole.shape in {tuple(part["exp_avg"].shape) for part in state.values()}
    codes, said = together(lambda: train("two", steps=3, parallel="fsdp"), 2, tmp_path / "log")
    assert codes == [0, 0], said
    assert "going on from step 2" in said[0]
    require_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "more"),
    [
        (2, {"parallel": "data"}),
        (2, {"parallel": "fsdp", "recompute": True, "micro_batch": 2}),
        (2, {"parallel": "context"}),
        (2, {"parallel": "context", "window": 61, "short_share": 0.5, "recompute": True}),
        (2, {"parallel": "context", "skip_positions": 24, "micro_batch": 4}),
        (4, {"parallel": "context", "share_window": 2}),
        (3, {"parallel": "context", "batch": 2}),
        (2, {"parallel": "data", "packing": "apart"}),
        (2, {"parallel": "data", "short_share": 0.5, "micro_batch": None, "repeats_end": 2.0}),
        (2, {"parallel": "fsdp", "skip_positions": 24, "micro_batch": None}),
        (2, {"parallel": "data", "average": 0.6}),
        (2, {"parallel": "fsdp", "average": 0.6}),
        (2, {"parallel": "fsdp", "lora": True, "lora_embeddings": True}),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_every_way_gives_the_losses_and_weights_of_one_process(train, tmp_path, ranks, more):
    train("one", **{k: v for k, v in more.items() if k not in ("parallel", "share_window")})
    codes, said = together(lambda: train("many", **more), ranks, tmp_path / "log")
    assert codes == [0] * ranks, said
    assert said[1:] == [""] * (ranks - 1)
    require_equal(tmp_path / "one", tmp_path / "many")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["data", "fsdp", "context"])
def test_killed_and_started_again_it_is_bitwise_the_uninterrupted_one(train, tmp_path, monkeypatch, way):
    """SIGKILL of one process between two checkpoints: the other says so in one line, and ends."""
    codes, said = together(lambda: train("whole", parallel=way), 2, tmp_path / "whole-log")
    assert codes == [0, 0], said

    def kill(rank):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        when(patch, 3, kill)
        codes, said = together(lambda: train("killed", parallel=way), 2, tmp_path / "log")
    assert codes == [2, -signal.SIGKILL], said
    assert (
        said[0].splitlines()[-1].startswith("ropewalk: the training stopped: another of its processes ended")
    )
    assert "Traceback" not in said[0]
    codes, said = together(lambda: train("killed", parallel=way), 2, tmp_path / "log")
    assert codes == [0, 0], said
    assert "going on from step 2" in said[0]
    first, second = (tmp_path / name / "model.safetensors" for name in ("whole", "killed"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_a_checkpoint_belongs_to_no_number_of_processes(train, tmp_path, monkeypatch):
    """From two in parts to one, to three that share windows: the end is that of one process.

    The first training's own choice of rows in memory at once is kept: 2 for each of two processes.
    """
    own = {"micro_batch": None, "steps": 6}
    train("one", steps=6, micro_batch=2)
    with monkeypatch.context() as patch:
        when(patch, 2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        codes, said = together(lambda: train("out", **own, parallel="fsdp"), 2, tmp_path / "two")
        assert codes == [143, 143], said
    with monkeypatch.context() as patch:
        when(patch, 4, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train("out", **own)
    codes, said = together(lambda: train("out", **own, parallel="context"), 3, tmp_path / "three")
    assert codes == [0, 0, 0], said
    assert "going on from step" in said[0]
    require_equal(tmp_path / "one", tmp_path / "out")


def test_another_micro_batch_goes_on_where_one_was_stopped(train, tmp_path, monkeypatch, capsys):
    """As a message about memory advises; a checkpoint with the old micro-batch in its identity too."""
    more = {"steps": 8, "short_share": 0.5, "repeats_end": 2.0}
    train("one", **more, micro_batch=4)
    with monkeypatch.context() as patch:
        when(patch, 4, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit):
            train("out", **more, micro_batch=4)
    assert read_settings(tmp_path / ".out.training")["micro_batch"] == 4
    train("out", **more, micro_batch=1)
    assert "going on from step 4" in capsys.readouterr().out
    require_equal(tmp_path / "one", tmp_path / "out")
    train("one", **more, micro_batch=2)
    assert "already trained" in capsys.readouterr().out


@pytest.mark.slow
def test_what_goes_wrong_in_one_process_ends_all_with_one_line(train, tmp_path, monkeypatch):
    real = Watch.on_step_end

    def on_step_end(self, args, state, control, **more):
        if state.global_step == 3 and args.process_index == 1:
            raise torch.OutOfMemoryError("planted")
        real(self, args, state, control, **more)

    monkeypatch.setattr(Watch, "on_step_end", on_step_end)
    codes, said = together(lambda: train("out", parallel="fsdp"), 2, tmp_path / "log")
    assert codes == [2, 2], said
    lines = [line for text in said for line in text.splitlines() if line.startswith("ropewalk:")]
    assert len(lines) == 1, said
    assert "memory does not suffice in step 4 on process 1 of 2" in lines[0]
    assert Keeper(tmp_path / ".out.training").newest().name == "checkpoint-2"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_process_stops_all_before_the_step(train, tmp_path, monkeypatch):
    real = WindowTrainer.compute_loss

    def poisoned(self, *args, **more):
        loss = real(self, *args, **more)
        bad = self.state.global_step == 2 and self.args.process_index == 1
        return loss * float("nan") if bad else loss

    monkeypatch.setattr(WindowTrainer, "compute_loss", poisoned)
    codes, said = together(lambda: train("out", parallel="fsdp"), 2, tmp_path / "log")
    assert codes == [2, 2], said
    lines = [line for text in said for line in text.splitlines() if line.startswith("ropewalk:")]
    assert len(lines) == 1, said
    assert "loss is nan in step 3: stopped before the optimizer step; the checkpoint of step 2" in lines[0]


@pytest.mark.slow
def test_accelerates_own_sharding_is_refused(train, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    codes, said = together(lambda: train("out"), 2, tmp_path / "log")
    assert codes == [2, 2], said
    assert "ACCELERATE_USE_FSDP is set" in said[0]
