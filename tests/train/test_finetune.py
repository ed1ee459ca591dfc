"""The verb on a tiny model: what it writes, what it refuses, and that a stopped training loses nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from steps import after_step
from tiny_llama import write_tiny_model

from ropewalk.data.mixture import Part
from ropewalk.errors import UserError
from ropewalk.files import locked, read_record
from ropewalk.model.load import load_model, load_tokenizer, model_block
from ropewalk.results.record import read_result
from ropewalk.train.job import _shares
from ropewalk.train.keeping import Keeper
from ropewalk.train.trainer import Watch, WindowTrainer
from ropewalk.verbs.extend import extend
from ropewalk.verbs.finetune import finetune

SMALL = {
    "steps": 8,
    "batch": 4,
    "micro_batch": 2,
    "warmup": 3,
    "rate": 1e-2,
    "save_every": 3,
    "device": "cpu",
}


def run(model, out, data, **more):
    return finetune(model=str(model), out=str(out), data=(str(data),), **{"device": "cpu", **SMALL, **more})


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def same(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def die():
    raise RuntimeError("the process dies here")


@pytest.fixture(scope="module")
def tuned(tiny_model, texts, tmp_path_factory):
    """An uninterrupted training."""
    out = tmp_path_factory.mktemp("tuned") / "tuned"
    run(tiny_model, out, texts)
    return out


def test_the_tuned_model_is_a_plain_checkpoint_that_reads_with_the_same_positions(tuned, tiny_model):
    model, before = load_model(tuned), load_model(tiny_model)
    assert model.config.rope_parameters == before.config.rope_parameters
    assert (tuned / "config.json").read_bytes() == (tiny_model / "config.json").read_bytes()
    assert load_tokenizer(tuned)("a b") == load_tokenizer(tiny_model)("a b")
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)
    assert not list(tuned.glob("*.bin")) + list(tuned.glob("*.pt"))
    modes = {os.stat(tuned / name).st_mode for name in ("model.safetensors", "config.json")}
    assert len(modes) == 1


def test_the_loss_falls_and_every_step_is_in_the_log(tuned):
    result = read_result(tuned / "training.json")
    rows = result["rows"]
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["tokens"] for row in rows] == [256 * step for step in range(1, 9)]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert rows[0]["learning_rate"] == pytest.approx(1e-3)
    assert rows[-1]["learning_rate"] == pytest.approx(1e-2)
    assert result["evaluation"] == "training"


def test_the_end_and_a_peak_that_is_not_reached_are_said(tiny_model, texts, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        after_step(patch, 5, die)
        with pytest.raises(RuntimeError):
            run(tiny_model, tmp_path / "out", texts, warmup=8)
    said = capsys.readouterr().out
    assert "the peak is never reached: all 8 steps are warm-up" in said and "wrote" not in said
    run(tiny_model, tmp_path / "out", texts, warmup=8)
    loss = read_result(tmp_path / "out" / "training.json")["summary"]["loss_last_tenth"]
    last = capsys.readouterr().out.splitlines()[-1]
    wanted = f"wrote {tmp_path / 'out'}: loss {loss:.3f} in the last tenth of the steps, 1,280 tokens in "
    assert last.startswith(wanted) and last.endswith(" from step 3 on")
    run(tiny_model, tmp_path / "whole", texts, steps=9, warmup=8)
    said = capsys.readouterr().out
    assert "never reached" not in said and "2,304 tokens in 0:" in said.splitlines()[-1]


def test_the_record_says_from_what_it_came_and_how(tuned, tiny_model):
    record = read_record(tuned)
    assert record["verb"] == "finetune"
    assert record["from"] == model_block(tiny_model)
    assert record["model"]["trained"]["steps"] == 8
    assert record["model"]["factor"] == 4.0
    assert model_block(tuned) == record["model"]


def test_nothing_is_left_beside_a_finished_training(tuned):
    left = {path.name for path in tuned.parent.iterdir()}
    assert left == {"tuned"}


def test_what_saves_memory_does_not_change_the_training(tiny_model, texts, tuned, tmp_path, capsys):
    """Layers' inputs on the host: the same bytes. Tiles: sums in another order."""
    run(tiny_model, tmp_path / "twice", texts, recompute=True)
    run(tiny_model, tmp_path / "aside", texts, offload=True)
    run(tiny_model, tmp_path / "tiles", texts, tile=8, offload=True)
    assert "tiles of 8, layers' inputs on the host" in " ".join(capsys.readouterr().out.split())
    twice, aside, tiles = (weights(tmp_path / name) for name in ("twice", "aside", "tiles"))
    assert all(torch.equal(twice[name], aside[name]) for name in twice)
    assert all(torch.allclose(twice[name], tiles[name], atol=2e-4) for name in twice)
    assert not all(torch.equal(twice[name], tiles[name]) for name in twice)


@pytest.mark.parametrize("step", [2, 5, 7])
def test_a_killed_training_resumed_is_bitwise_the_uninterrupted_one(
    tiny_model, texts, tuned, tmp_path, monkeypatch, step
):
    """Killed before the first checkpoint, between two, behind the last: weights and every loss agree."""
    with monkeypatch.context() as patch:
        after_step(patch, step, die)
        with pytest.raises(RuntimeError):
            run(tiny_model, tmp_path / "out", texts)
    assert not (tmp_path / "out").exists()
    run(tiny_model, tmp_path / "out", texts)
    assert same(tmp_path / "out", tuned)
    rows = [read_result(path / "training.json")["rows"] for path in (tmp_path / "out", tuned)]
    assert rows[0] == rows[1]


def test_killed_behind_its_last_step_a_training_takes_no_further_step(
    tiny_model, texts, tuned, tmp_path, monkeypatch
):
    """The last checkpoint is sealed, OUT is not written yet: the weights and the log are those of 8 steps."""
    with monkeypatch.context() as patch:
        patch.setattr("ropewalk.train.job._write", lambda *_: die())
        with pytest.raises(RuntimeError):
            run(tiny_model, tmp_path / "tuned", texts)
    assert Keeper(tmp_path / ".tuned.training").checkpoints()
    run(tiny_model, tmp_path / "tuned", texts)
    assert same(tmp_path / "tuned", tuned)
    assert (tmp_path / "tuned" / "training.json").read_bytes() == (tuned / "training.json").read_bytes()


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_end_is_the_same(
    tiny_model, texts, tuned, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        after_step(patch, 7, die)
        with pytest.raises(RuntimeError):
            run(tiny_model, tmp_path / "out", texts)
    newest = Keeper(tmp_path / ".out.training").newest()
    (newest / "optimizer.pt").unlink()
    run(tiny_model, tmp_path / "out", texts)
    said = capsys.readouterr().out
    assert "step 6 is damaged" in said
    assert "going on from step 3" in said
    assert same(tmp_path / "out", tuned)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_saves_the_step_and_stops_and_the_same_command_goes_on(
    tiny_model, texts, tuned, tmp_path, monkeypatch, capsys, number, raised
):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        after_step(patch, 5, lambda: os.kill(os.getpid(), number))
        with pytest.raises(raised):
            run(tiny_model, tmp_path / "out", texts)
    assert signal.getsignal(number) is before
    assert Keeper(tmp_path / ".out.training").newest().name == "checkpoint-5"
    run(tiny_model, tmp_path / "out", texts)
    assert "going on from step 5" in capsys.readouterr().out
    assert same(tmp_path / "out", tuned)


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step(tiny_model, texts, tmp_path, monkeypatch):
    real = WindowTrainer.compute_loss

    def poisoned(self, *args, **more):
        loss = real(self, *args, **more)
        return loss * float("nan") if self.state.global_step == 5 else loss

    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(WindowTrainer, "compute_loss", poisoned)
        patch.setattr(
            Watch, "on_optimizer_step", lambda self, args, state, *_, **__: seen.append(state.global_step)
        )
        with pytest.raises(UserError, match=r"loss is nan in step 6: stopped before .* step 3 is kept"):
            run(tiny_model, tmp_path / "out", texts)
    assert seen == [0, 1, 2, 3, 4]
    kept = Keeper(tmp_path / ".out.training").newest()
    assert all(value.isfinite().all() for value in weights(kept).values())


def test_a_gradient_that_is_not_finite_stops_too(tiny_model, texts, tmp_path, monkeypatch):
    real = WindowTrainer.training_step

    def poisoned(self, model, *args, **more):
        loss = real(self, model, *args, **more)
        next(p for p in model.parameters() if p.grad is not None).grad[0, 0] = float("inf")
        return loss

    with monkeypatch.context() as patch:
        patch.setattr(WindowTrainer, "training_step", poisoned)
        with pytest.raises(UserError, match=r"gradient is nan .*step 1: stopped before .*nothing was saved"):
            run(tiny_model, tmp_path / "out", texts)


def test_other_settings_in_a_begun_directory_are_refused_by_name(tiny_model, texts, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        after_step(patch, 5, die)
        with pytest.raises(RuntimeError):
            run(tiny_model, tmp_path / "out", texts)
    with pytest.raises(UserError, match=r"another training: rate was 0\.01, now 0\.02.*--overwrite"):
        run(tiny_model, tmp_path / "out", texts, rate=2e-2)
    other = tmp_path / "other.txt"
    other.write_text("something else " * 100)
    with pytest.raises(UserError, match=r"another training: data was"):
        run(tiny_model, tmp_path / "out", other)
    assert Keeper(tmp_path / ".out.training").newest().name == "checkpoint-3"
    run(tiny_model, tmp_path / "out", texts, rate=2e-2, steps=2, overwrite=True)
    assert read_record(tmp_path / "out")["settings"]["rate"] == 2e-2


def test_a_finished_training_is_not_done_again(tuned, tiny_model, texts, capsys):
    before = (tuned / "ropewalk.json").stat().st_mtime_ns
    assert run(tiny_model, tuned, texts) == read_record(tuned)
    assert "already trained" in capsys.readouterr().out
    assert (tuned / "ropewalk.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another training: seed was 0, now 1"):
        run(tiny_model, tuned, texts, seed=1)


@pytest.mark.parametrize("harm", ["{", None], ids=["damaged", "gone"])
def test_checkpoints_of_nobody_knows_which_training_are_not_gone_on_from(
    tiny_model, texts, tmp_path, monkeypatch, harm
):
    with monkeypatch.context() as patch:
        after_step(patch, 5, die)
        with pytest.raises(RuntimeError):
            run(tiny_model, tmp_path / "out", texts)
    file = tmp_path / ".out.training" / "settings.json"
    before = file.read_text()
    if harm is None:
        file.unlink()
    else:
        file.write_text(harm)
    with pytest.raises(UserError, match=r"settings\.json cannot be read.*restore that file, or"):
        run(tiny_model, tmp_path / "out", texts, rate=2e-2)
    file.write_text(before)
    with pytest.raises(UserError, match=r"rate was 0\.01, now 0\.02"):
        run(tiny_model, tmp_path / "out", texts, rate=2e-2)
    file.write_text("{")
    run(tiny_model, tmp_path / "out", texts, rate=2e-2, overwrite=True)
    rows = read_result(tmp_path / "out" / "training.json")["rows"]
    assert rows[-1]["learning_rate"] == pytest.approx(2e-2)


def test_a_second_process_on_the_same_output_is_refused(tiny_model, texts, tmp_path):
    with locked(tmp_path / "out"), pytest.raises(UserError, match="another ropewalk process"):
        run(tiny_model, tmp_path / "out", texts)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"steps": 0}, "steps is 0; at least 1"),
        ({"rate": 2.0}, "rate is 2.0"),
        ({"window": 128}, "window 128 is longer than the model's 64"),
        ({"micro_batch": 3}, "does not divide"),
        ({"skip_positions": 64}, "not shorter than the window"),
        ({"skip_positions": 16, "packing": "apart"}, "exclude each other"),
        ({"short_share": 1.5}, "a share is from 0 to 1"),
        ({"tile": 16, "recompute": False}, "not with --no-recompute"),
        ({"repeats": 4.5}, "repeats is 4.5; passages for every 256 tokens, from 0 to 4"),
        ({"repeats": 0.5, "packing": "apart"}, "exclude each other"),
        ({"average": 1.5}, "average is 1.5; a share of the steps is from 0 to 1"),
        ({"repeats_end": 5.0}, "repeats_end is 5.0; passages for every 256 tokens, from 0 to 4"),
        ({"repeats_end": 0.5, "packing": "apart"}, "exclude each other"),
        ({"device": "tpu"}, "choose auto, cpu or cuda"),
        ({"lora_rank": 64}, "lora_rank is 64, and that is for adapters; add --lora"),
        ({"lora_rank": 8}, "lora_rank is 8, and that is for adapters; add --lora"),
        ({"lora_embeddings": True}, "lora_embeddings is True, and that is for adapters; add --lora"),
        ({"lora_rank": 0, "lora": True}, "lora_rank is 0; at least 1"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_in_one_line(tiny_model, texts, tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        run(tiny_model, tmp_path / "out", texts, **more)
    assert not (tmp_path / "out").exists()


def test_a_share_of_short_windows_that_cuts_nothing_is_said(tiny_model, texts, tmp_path, capsys):
    for window, said in ((16, True), (64, False)):
        run(tiny_model, tmp_path / str(window), texts, window=window, short_share=0.5, steps=1)
        assert ("short-share cuts nothing: the original window L is 16" in capsys.readouterr().out) is said


def test_a_window_raised_without_scaling_has_short_windows_too(tmp_path, texts, capsys):
    """Direct fine-tuning beside interpolation: the same share of windows of L, which no config says there."""
    plain = write_tiny_model(tmp_path / "m", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    extend(str(plain), str(tmp_path / "direct"), to=128, method="none")
    for share in (0.0, 1.0):
        changed = {"window": None, "short_share": share, "steps": 1, "batch": 1, "micro_batch": 1}
        run(tmp_path / "direct", tmp_path / f"{share}", texts, **changed)
    assert "cuts nothing" not in capsys.readouterr().out
    assert not same(tmp_path / "0.0", tmp_path / "1.0")


def test_the_record_names_data_by_files_alone_and_by_their_folder_where_two_are_alike():
    def shares(*paths):
        return _shares([Part((path,), 0.5) for path in paths])

    assert shares("/home/me/a.txt", "hub:owner/set") == {"a.txt": 0.5, "hub:owner/set": 0.5}
    assert shares("/x/books/train.txt", "/x/math/train.txt") == {
        "books/train.txt": 0.5,
        "math/train.txt": 0.5,
    }


def test_data_that_cannot_be_used_leave_nothing_behind(tiny_model, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(UserError, match="shorter than one window: 9 tokens in all, the window is 64"):
        run(tiny_model, tmp_path / "out", tmp_path / "short.txt")
    assert {path.name for path in tmp_path.iterdir()} == {"short.txt"}


def test_a_directory_that_is_not_ours_is_left_alone(tiny_model, texts, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not made by ropewalk"):
        run(tiny_model, tmp_path / "out", texts)
    with pytest.raises(UserError, match="model itself"):
        run(tiny_model, tiny_model, texts)


@pytest.mark.parametrize(
    "more",
    [
        {"skip_positions": 16, "batch": 8, "short_share": 0.25, "repeats_end": 2.0},
        {"packing": "apart", "dtype": "bf16"},
        {"recompute": True, "schedule": "cosine", "short_share": 0.5, "repeats": 0.5},
    ],
    ids=["skip", "apart", "recompute"],
)
def test_every_way_of_training_learns(tiny_model, texts, tmp_path, more):
    run(tiny_model, tmp_path / "out", texts, **more)
    rows = read_result(tmp_path / "out" / "training.json")["rows"]
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.3
    assert all(value.dtype == torch.float32 for value in weights(tmp_path / "out").values())
