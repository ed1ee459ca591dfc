"""Killed at every file event, then run again: whole or absent at each moment, the same in the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forks import Deadly, forked
from trees import contents, differences, half_written

from ropewalk.files import (
    locked,
    new_directory,
    new_file,
    read_record,
    require_ours,
    write_atomic,
    write_record,
)
from ropewalk.results.cells import Cells

HERE = Path(__file__).parent


def steps(place: Path) -> int:
    """What the verbs do with files, in small: cells, a result, a directory made and made anew, a file."""
    with locked(place / "result.json"):
        if not (place / "result.json").exists():
            cells = Cells(place / ".result.cells", {"of": "this"})
            for i in range(2):
                if cells.get(str(i)) is None:
                    cells.put(str(i), [i / 3])
            write_atomic(place / "result.json", json.dumps([cells.get(str(i)) for i in range(2)]))
        (place / ".result.cells").unlink(missing_ok=True)
        (place / ".result.cells.new").unlink(missing_ok=True)
    for number in (1, 2):
        if (read_record(place / "made") or {}).get("number", 0) < number:
            with new_directory(place / "made", "count") as beside:
                (beside / "deep").mkdir()
                (beside / "deep" / "figures").write_text("x" * 100)
                write_record(beside, {"verb": "count", "number": number})
    with locked(place / "made"):
        pass
    require_ours(place / "filled", "run")  # a directory that is filled where it stands, its record first
    with locked(place / "filled"):
        (place / "filled").mkdir(exist_ok=True)
        write_record(place / "filled", {"verb": "run"})
    if not (place / "one.gguf").exists():
        with new_file(place / "one.gguf") as beside:
            beside.write_bytes(b"GGUF" * 50)
    with locked(place / "one.gguf"):
        pass
    return 0


def count_events(place: Path) -> int:
    hook = Deadly(-1)
    file = place.with_name("events")

    def work() -> int:
        sys.addaudithook(hook)
        code = steps(place)
        file.write_text(str(hook.count))
        return code

    assert forked(work).code == 0
    return int(file.read_text())


def test_a_kill_before_a_file_event_leaves_nothing_half_written_and_the_next_call_ends_the_same(tmp_path):
    place = tmp_path / "place"
    place.mkdir()
    total = count_events(place)
    whole = contents(place)
    assert set(whole) == {
        "result.json",
        "made/ropewalk.json",
        "made/deep/figures",
        "filled/ropewalk.json",
        "one.gguf",
    }
    before = {**whole, "made/ropewalk.json": whole["made/ropewalk.json"].replace(b"2", b"1")}
    assert total > 20
    for at in range(1 + total % 2, total + 1, 2):  # every other one: each costs a fork and a dozen fsyncs
        shutil.rmtree(place)
        place.mkdir()
        assert forked(lambda: steps(place), kill_at=at).killed, at
        found = contents(place)
        problems = half_written(found, whole)
        assert not problems or not half_written(found, before), (at, problems)
        made = {name for name in found if name.startswith("made/")}
        assert made in (set(), {"made/ropewalk.json", "made/deep/figures"}), (at, made)
        steps(place)
        assert not differences(contents(place), whole), (at, differences(contents(place), whole))


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_a_hundred_kills_of_a_whole_recipe_change_no_bit(tmp_path):
    out = Path(os.environ.get("ROPEWALK_FAULTS_OUT", tmp_path)) / "kills.json"
    run = subprocess.run([sys.executable, str(HERE / "campaign_kills.py"), "--out", str(out)])
    found = json.loads(out.read_text())
    assert run.returncode == 0, found
