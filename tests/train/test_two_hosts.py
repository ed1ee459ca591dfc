"""Two hosts train together over a network; one loses its power; started again, the end is the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hosts import two_hosts
from processes import together
from tiny_llama import write_tiny_model

from ropewalk.verbs.finetune import finetune

SETTINGS = {"steps": 60, "batch": 4, "micro_batch": 1, "warmup": 2, "rate": 1e-2, "save_every": 5}
SETTINGS |= {"parallel": "fsdp", "device": "cpu"}


def require_namespaces() -> None:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts need root and iproute2's `ip netns`")
    try:
        with two_hosts():
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_of_two_hosts_killed_and_the_job_started_again_ends_with_the_same_weights(texts, tmp_path):
    require_namespaces()
    model = write_tiny_model(tmp_path / "tiny")
    whole = tmp_path / "whole"
    codes, said = together(
        lambda: finetune(str(model), str(whole), data=(str(texts),), **SETTINGS), 2, tmp_path / "whole-log"
    )
    assert codes == [0, 0], said
    out = tmp_path / "out"
    words = ["ropewalk", "finetune", str(model), str(out), "--data", str(texts)]
    for name, value in SETTINGS.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    with two_hosts() as hosts:

        def start(attempt: str) -> list[subprocess.Popen]:
            logs = [tmp_path / f"{attempt}-{host.name}" for host in hosts]
            return [host.start(host.torchrun(hosts[0], 2, words), log) for host, log in zip(hosts, logs)]

        first = start("first")
        wait_for_checkpoint(tmp_path / ".out.training", first)
        hosts[1].kill()
        assert first[0].wait(120) != 0
        first[1].wait(10)
        text = (tmp_path / f"first-{hosts[0].name}").read_text()
        assert text.count("\nropewalk: the training stopped: another of its processes ended") == 1, text
        assert not out.exists()
        second = start("second")
        assert [one.wait(200) for one in second] == [0, 0]
        text = (tmp_path / f"second-{hosts[0].name}").read_text()
        text += (tmp_path / f"second-{hosts[1].name}").read_text()
        assert text.count("going on from step") == 1
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def wait_for_checkpoint(work: Path, going: list[subprocess.Popen]) -> None:
    end = time.monotonic() + 200
    while not list(work.glob("checkpoint-*")):
        assert time.monotonic() < end and all(one.poll() is None for one in going)
        time.sleep(0.05)
