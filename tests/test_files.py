"""Files are whole or absent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import UserError
from ropewalk.files import (
    RECORD,
    fingerprint,
    locked,
    new_directory,
    read_record,
    require_ours,
    to_json,
    write_atomic,
    write_record,
)


def test_a_file_is_replaced_at_once_and_nothing_stays_beside(tmp_path):
    path = write_atomic(tmp_path / "deep" / "a.json", "one")
    write_atomic(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "a", "old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_directory_that_fails_leaves_the_old_one_and_no_rubbish(tmp_path):
    out = tmp_path / "out"
    with new_directory(out, "test") as beside:
        write_record(beside, {"verb": "test"})
    with pytest.raises(RuntimeError), new_directory(out, "test") as beside:
        (beside / "half").write_text("x")
        raise RuntimeError
    assert read_record(out) == {"verb": "test"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_finished_directory_replaces_the_old_one_whole(tmp_path):
    out = tmp_path / "out"
    for name in ("one", "two"):
        with new_directory(out, "test") as beside:
            write_record(beside, {"verb": "test", "name": name})
            (beside / name).write_text(name)
    assert sorted(p.name for p in out.iterdir()) == [RECORD, "two"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["file", "foreign"])
def test_what_is_not_ours_is_refused(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="name a"):
        require_ours(place, "test")
    with pytest.raises(UserError), new_directory(place, "test"):
        pass


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ('{"verb": "finetune"}', "holds what `ropewalk finetune` made; name another output, or remove it"),
        ("{", "holds a ropewalk.json that cannot be read"),
    ],
    ids=["another verb's", "damaged"],
)
def test_what_another_verb_made_is_not_replaced(tmp_path, record, said):
    place = tmp_path / "place"
    place.mkdir()
    (place / RECORD).write_text(record)
    with pytest.raises(UserError, match=said):
        require_ours(place, "extend", "convert")
    with pytest.raises(UserError, match=said), new_directory(place, "extend"):
        pass
    assert (place / RECORD).read_text() == record


def test_a_second_process_on_the_same_directory_is_refused_and_a_dead_one_holds_nothing(tmp_path):
    out = tmp_path / "out"
    code = (
        "import sys; from ropewalk.files import locked; from ropewalk.errors import UserError\n"
        "try:\n    with locked(sys.argv[1]): print('got it')\nexcept UserError as e: print(e)"
    )
    command = [sys.executable, "-c", code, str(out)]
    with locked(out):
        held = subprocess.run(command, capture_output=True, text=True)
    freed = subprocess.run(command, capture_output=True, text=True)
    assert f"another ropewalk process (pid {os.getpid()}) is writing to {out}; " in held.stdout
    assert freed.stdout == "got it\n"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_by_the_next_and_nothing_of_others(tmp_path):
    mine = [tmp_path / ".out.abcdefgh.partial", tmp_path / ".out.abcdefgh.old" / "directory"]
    others = [tmp_path / ".out.json.abcdefgh.partial", tmp_path / ".output.abcdefgh.partial"]
    for place in (*mine, *others):
        place.mkdir(parents=True)
    (mine[1] / RECORD).write_text('{"verb": "before"}')
    with locked(tmp_path / "out"):
        assert read_record(tmp_path / "out") == {"verb": "before"}  # it had lost its name
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "out", *others])
    (tmp_path / ".out.ijklmnop.old" / "directory").mkdir(parents=True)
    with new_directory(tmp_path / "out", "before") as beside:
        write_record(beside, {"verb": "before", "again": True})
    assert read_record(tmp_path / "out") == {"verb": "before", "again": True}
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "out", *others])


def test_a_directory_whose_first_record_was_cut_off_is_ours_and_one_with_anything_else_is_not(tmp_path):
    (tmp_path / f".{RECORD}.abcdefgh.partial").write_text('{"verb"')
    require_ours(tmp_path, "run")
    (tmp_path / ".notes.abcdefgh.partial").touch()
    with pytest.raises(UserError, match="not empty"):
        require_ours(tmp_path, "run")


def test_where_names_cannot_be_exchanged_a_directory_is_replaced_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.files._exchange", lambda *_: False)
    for name in ("one", "two"):
        with new_directory(tmp_path / "out", "test") as beside:
            write_record(beside, {"verb": "test", "name": name})
    assert read_record(tmp_path / "out") == {"verb": "test", "name": "two"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(JSON)
def test_equal_values_have_equal_fingerprints_and_text(value):
    import json

    again = json.loads(to_json(value))
    assert again == value
    assert fingerprint(again) == fingerprint(value)


def test_a_number_that_is_not_finite_is_never_written():
    with pytest.raises(ValueError):
        to_json({"loss": float("nan")})
