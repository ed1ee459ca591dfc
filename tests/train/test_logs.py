"""The Trainer's own logging: every step in TensorBoard's files, one line where the package is missing."""

from __future__ import annotations

import pytest

from ropewalk.errors import UserError
from ropewalk.train.logs import prepare_logs
from ropewalk.verbs.finetune import finetune


def test_a_missing_package_is_one_line_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.train.logs.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="log-to wandb: that package is not installed; `pip install wandb`"):
        finetune(str(tmp_path / "none"), str(tmp_path / "out"), data=("none.txt",), log_to="wandb")
    assert list(tmp_path.iterdir()) == []


def test_what_the_environment_says_of_places_and_names_stays(tmp_path, monkeypatch):
    import os

    monkeypatch.setattr("ropewalk.train.logs.importlib.util.find_spec", lambda name: object())
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    monkeypatch.delenv("WANDB_NAME", raising=False)
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "there")
    for kind in ("wandb", "tensorboard", "none"):
        prepare_logs(kind, tmp_path / "tuned")
    said = [os.environ[key] for key in ("WANDB_PROJECT", "WANDB_NAME", "TENSORBOARD_LOGGING_DIR")]
    assert said == ["mine", "tuned", "there"]


def test_every_step_is_in_tensorboards_files(tiny_model, texts, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    out = tmp_path / "tuned"
    finetune(str(tiny_model), str(out), data=(str(texts),), steps=3, batch=2, log_to="tensorboard")
    found = EventAccumulator(str(tmp_path / "tuned.tensorboard"))
    found.Reload()
    losses = found.Scalars("train/loss")
    assert [one.step for one in losses] == [1, 2, 3]
    assert all(one.value > 0 for one in losses)
