"""SIGKILL at any moment, while saving too: what comes out in the end is bitwise the same."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from ropewalk.verbs.finetune import finetune

MORE = {"steps": 30, "batch": 2, "warmup": 3, "rate": 1e-2, "save_every": 1, "device": "cpu"}


def run_and_kill(model: Path, out: Path, data: Path, after: float) -> bool:
    """Train in a forked process and kill it after so many seconds; was it finished before?"""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            finetune(str(model), str(out), data=(str(data),), **MORE)
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    end = time.monotonic() + after
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return True
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_thirty_kills_at_random_moments_change_no_bit(tiny_model, texts, tmp_path):
    import torch

    torch.set_num_threads(1)  # a forked process has no other threads
    finetune(str(tiny_model), str(tmp_path / "whole"), data=(str(texts),), **MORE)
    expected = (tmp_path / "whole" / "model.safetensors").read_bytes()
    rng = random.Random(0)
    kills = training = 0
    while kills < 30:
        training += 1
        out = tmp_path / f"out{training}"
        while not run_and_kill(tiny_model, out, texts, rng.uniform(0.2, 3.0)):
            kills += 1
            assert not out.exists() or (out / "ropewalk.json").is_file()
        assert (out / "model.safetensors").read_bytes() == expected
