"""Several processes from one command: what they are told, how many, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.errors import UserError
from ropewalk.files import locked
from ropewalk.model.shape import Shape
from ropewalk.settings import parse_arguments, to_arguments
from ropewalk.train.keeping import Keeper
from ropewalk.train.memory import Load
from ropewalk.train.ranks import STARTER
from ropewalk.train.spread import choose_spread, processes_for
from ropewalk.verbs.finetune import EXAMPLE, Finetune, finetune

TEXT = st.text("ab-= 'é/", min_size=1).filter(lambda text: text != "--")  # which argparse takes for its own


@settings(max_examples=15, deadline=None)
@given(
    st.builds(
        Finetune,
        model=TEXT.filter(lambda text: not text.startswith("-")),
        out=st.just("out"),
        data=st.lists(TEXT, min_size=1, max_size=3).map(tuple),
        steps=st.integers(1, 9),
        rate=st.none() | st.floats(1e-9, 0.5),
        recompute=st.none() | st.booleans(),
        lora=st.booleans(),
        only=st.lists(TEXT, max_size=2).map(tuple),
        parallel=st.sampled_from(["auto", "fsdp"]),
    )
)
def test_a_process_that_is_started_has_the_settings_of_its_starter(given):
    assert parse_arguments(Finetune, to_arguments(given), "ropewalk finetune", EXAMPLE) == given


SEVEN = Shape(4096, 32, 11008, 32, 32, 128, 32000, False, 8192)


def spread(way="auto", parameters=10**8, length=8192, **more):
    load = Load(parameters=parameters, trained=parameters, length=length, recompute=True)
    given = {"ranks": 8, "batch": 64, "context": None, "memory": 80 << 30}
    return choose_spread(way, SEVEN, load, **{**given, **more})


def test_the_least_that_fits_is_chosen():
    """Copies of a small model; parts of 7B parameters (112 GB of states); parts of a million tokens."""
    assert not spread().sharded
    big = {"parameters": 7 * 10**9}
    assert (spread(**big).sharded, spread(**big).context) == (True, 1)
    assert spread(length=1 << 20, **big).context > 1
    assert spread(memory=None, **big).context == 1
    assert spread("context").context == 8
    assert spread("context", context=2).context == 2


def test_a_batch_that_does_not_divide_is_shared_window_by_window():
    """By as few as leave equal shares: 12 windows on 8 GPUs are 4 for each pair, 64 on 3 are read by all."""
    assert (spread(batch=12).sharded, spread(batch=12).context) == (True, 2)
    assert spread(batch=64, ranks=3).context == 3
    assert spread(batch=64, ranks=3).why.endswith("batch 64 does not divide by 3")


@pytest.mark.parametrize(
    ("way", "more", "said"),
    [
        ("context", {"context": 3}, "share_window 3 does not divide the number of processes, 8"),
        ("data", {"context": 2}, "each process has whole windows"),
        ("fsdp", {"ranks": 1}, "needs several processes"),
    ],
)
def test_a_spread_that_cannot_be_is_refused(way, more, said):
    with pytest.raises(UserError, match=said):
        spread(way, **more)


@given(st.integers(1, 200), st.integers(1, 16))
def test_processes_have_equal_shares(batch, available):
    assert batch % processes_for(batch, available) == 0
    assert 1 <= processes_for(batch, available) <= available


def test_more_gpus_than_there_are_is_one_line(tiny_model, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    with pytest.raises(UserError, match="gpus is 4; this machine has 3"):
        finetune(str(tiny_model), str(tmp_path / "out"), data=(str(texts),), gpus=4)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="gpus is 4, but a launcher has started 2 processes already"):
        finetune(str(tiny_model), str(tmp_path / "out"), data=(str(texts),), gpus=4)


def command(model, out, data, *more):
    words = [sys.executable, "-m", "ropewalk", *(["--json"] if "--json" in more else [])]
    words += ["finetune", str(model), str(out), "--data", str(data), "--device", "cpu", "--gpus", "2"]
    return [*words, "--batch", "4", *(one for one in more if one != "--json")]


def run(words):
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_two_processes_are_one_command(tiny_model, texts, tmp_path):
    done = run(command(tiny_model, tmp_path / "out", texts, "--steps", "3", "--json"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verb"] == "finetune"
    assert done.stderr.count("  3 steps\n") == 1  # said by one of the processes
    assert "Traceback" not in done.stderr and "torch.distributed" not in done.stderr
    log = json.loads((tmp_path / "out" / "training.json").read_text())
    assert log["summary"]["processes"] == 2


@pytest.mark.slow
def test_what_all_processes_refuse_is_said_once(tiny_model, tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    done = run(command(tiny_model, tmp_path / "out", tmp_path / "short.txt"))
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("ropewalk: data")
    assert "shorter than one window" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"short.txt"}


def test_what_a_killed_process_had_started_ends_by_itself():
    inner = "from ropewalk.train.ranks import follow_starter as f; import time; f(); time.sleep(60)"
    outer = (
        f"import os, subprocess, sys; os.environ['{STARTER}'] = str(os.getpid())\n"
        f"child = subprocess.Popen([sys.executable, '-c', {inner!r}])\n"
        "print(child.pid, flush=True); child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", outer], stdout=subprocess.PIPE, text=True) as starter:
        child = psutil.Process(int(starter.stdout.readline()))
        time.sleep(2)
        assert child.is_running()
        starter.kill()
    assert psutil.wait_procs([child], timeout=20)[1] == []


@pytest.mark.slow
def test_a_killed_starter_leaves_no_training_behind_but_its_checkpoint(tiny_model, texts, tmp_path):
    words = command(tiny_model, tmp_path / "out", texts, "--steps", "100000", "--save-every", "5")
    work, end = tmp_path / ".out.training", time.monotonic() + 100
    with open(tmp_path / "said", "w") as said:
        going = subprocess.Popen(words, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
        while not list(work.glob("checkpoint-*")) and time.monotonic() < end:
            time.sleep(0.1)
        children = psutil.Process(going.pid).children(recursive=True)
        going.kill()
        going.wait()
    try:
        assert len(children) >= 2
        assert psutil.wait_procs(children, timeout=60)[1] == []
    finally:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    text = (tmp_path / "said").read_text()
    assert "stopped behind step" in text and "Traceback" not in text
    with locked(tmp_path / "out"):
        assert Keeper(work).newest() is not None


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_goes_on(tiny_model, texts, tmp_path, number, code):
    words = command(tiny_model, tmp_path / "out", texts, "--steps", "2000", "--save-every", "5")
    with open(tmp_path / "said", "w") as said:
        going = subprocess.Popen(words, stdout=said, stderr=said, env={**os.environ, "OMP_NUM_THREADS": "1"})
    work = tmp_path / ".out.training"
    end = time.monotonic() + 100
    while not list(work.glob("checkpoint-*")) and time.monotonic() < end:
        time.sleep(0.1)
    going.send_signal(number)
    assert going.wait(60) == code
    said = (tmp_path / "said").read_text()
    assert said.count("stopped behind step") == 1
    assert "Traceback" not in said
    assert said.count("interrupted; the same command goes on") == (1 if number == signal.SIGINT else 0)
    steps = max(int(path.name[11:]) for path in work.glob("checkpoint-*"))
    assert f"stopped behind step {steps:,}" in said
