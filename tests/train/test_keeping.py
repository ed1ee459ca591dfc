"""What lies under a checkpoint's name is whole; what is damaged later is seen and passed over."""

from __future__ import annotations

import json

import pytest

from ropewalk.train.keeping import Keeper, damage


def written(keeper: Keeper, step: int):
    """What the Trainer leaves after a step, and the seal on it."""
    directory = keeper.partial / f"checkpoint-{step}"
    directory.mkdir()
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (directory / name).write_bytes(name.encode() * 10)
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return keeper.seal(step, {"step": step})


@pytest.fixture
def keeper(tmp_path):
    keeper = Keeper(tmp_path / ".out.training")
    keeper.begin()
    return keeper


def test_two_checkpoints_are_kept_and_the_newest_is_taken(keeper):
    for step in (5, 10, 100):
        written(keeper, step)
    assert [path.name for path in keeper.checkpoints()] == ["checkpoint-100", "checkpoint-10"]
    assert keeper.newest().name == "checkpoint-100"


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def flip(path):
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(bytes(data))


def other_step(path):
    path.write_text(json.dumps({"global_step": 3}))


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("model.safetensors", cut, "has 165 bytes, not 170"),
        ("optimizer.pt", flip, "another content"),
        ("optimizer.pt", lambda path: path.unlink(), "optimizer.pt is missing"),
        ("trainer_state.json", lambda path: path.unlink(), "trainer_state.json is missing"),
        ("trainer_state.json", other_step, "trainer_state.json"),
        ("digests.json", cut, "list of files cannot be read"),
        ("digests.json", lambda path: path.write_text("{}"), "optimizer.pt is missing"),
        ("data.json", lambda path: path.unlink(), "data.json is missing"),
    ],
)
def test_a_damaged_newest_falls_back_to_the_one_before_with_a_line(keeper, capsys, name, harm, said):
    written(keeper, 5)
    newest = written(keeper, 10)
    assert damage(newest) is None
    harm(newest / name)
    assert keeper.newest().name == "checkpoint-5"
    line = capsys.readouterr().out
    assert "step 10 is damaged" in line
    assert said in line and "trying the one before" in line and "beginning" not in line


def test_where_every_checkpoint_is_damaged_it_is_said_that_nothing_is_left(keeper, capsys):
    for step in (5, 10):
        cut(written(keeper, step) / "model.safetensors")
    assert keeper.newest() is None
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("checkpoint of step 10") and first.endswith("trying the one before")
    assert last.startswith("checkpoint of step 5")
    assert last.endswith("no other is left: the training starts again from the beginning")


def test_what_was_half_written_is_no_checkpoint(keeper):
    written(keeper, 5)
    (keeper.partial / "checkpoint-10").mkdir()
    again = Keeper(keeper.work)
    again.begin()
    assert again.newest().name == "checkpoint-5"
    assert not list(again.partial.iterdir())
