"""The four readers of strangers' files meet random ones: no crash but `UserError`, no hang, no full memory.

The short form is hypothesis over the same bytes; the long one (`make faults`) is guided by coverage and takes
ROPEWALK_FUZZ_SECONDS (600) for each reader.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
import readers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FUZZ = Path(__file__).with_name("fuzz.py")
FIGURES = Path(__file__).parents[2] / "docs" / "results" / "reliability" / "fuzzing.json"


@pytest.mark.parametrize("name", readers.TARGETS)
def test_a_reader_survives_its_seeds(name: str) -> None:
    accepted = [readers.survives(name, seed) for seed in readers.seeds(name)]
    assert any(accepted)


@pytest.mark.parametrize("name", readers.TARGETS)
def test_a_reader_survives_random_files(name: str) -> None:
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=60).map(lambda data: b"\1" + data) | st.binary(max_size=60))
    def one(data: bytes) -> None:
        readers.survives(name, data)

    one()


@pytest.mark.parametrize("what", ["array", "key", "tensor"])
def test_a_length_that_lies_takes_neither_memory_nor_time(what: str, tmp_path: Path) -> None:
    """Found by fuzzing: gguf's own reader makes an object for each of the items that a file claims."""
    import struct

    from ropewalk.errors import UserError
    from ropewalk.model.gguf_header import check_header

    text = struct.pack("<Q", 1) + b"a"
    lie = {
        "array": (0, 1, text + struct.pack("<IIQ", 9, 0, 1 << 60)),
        "key": (0, 1, struct.pack("<Q", 1 << 60)),
        "tensor": (1, 0, text + struct.pack("<I2QIQ", 2, 1 << 40, 1 << 40, 0, 0)),
    }[what]
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *lie[:2]) + lie[2] + bytes(64))
    tracemalloc.start()
    with pytest.raises(UserError):
        check_header(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_finding_ends_the_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness can fail: a reader that raises anything but UserError is not survived."""

    def broken(data: bytes) -> None:
        raise KeyError("x")

    monkeypatch.setitem(readers.TARGETS, "config", broken)
    with pytest.raises(KeyError):
        readers.survives("config", b"\1")


@pytest.mark.faults
@pytest.mark.parametrize("name", readers.TARGETS)
def test_a_reader_survives_ten_minutes(name: str) -> None:
    seconds = os.environ.get("ROPEWALK_FUZZ_SECONDS", "600")
    words = [sys.executable, str(FUZZ), name, "--seconds", seconds, "--record", str(FIGURES)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1])["executions"] > 0
