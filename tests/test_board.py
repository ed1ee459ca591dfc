"""The board: what a running work says of itself, whole or absent, and gone when it ends."""

from __future__ import annotations

import json
import os
import time
from itertools import pairwise

import pytest

from ropewalk import console
from ropewalk.board import POINTS, PROGRESS, Board, current, published, read_board


def test_progress_is_on_the_board_while_the_work_goes_on_and_nothing_is_left_behind(tmp_path):
    with published(tmp_path) as board:
        board.begin(steps=["evaluate a", "fine-tune b"], step=2)
        with console.progress("finetune", 100, "tokens") as shown:
            for step in range(1, 4):
                shown.advance(10, f"step {step}", (step, 5.0 - step))
            board.tell(at_once=True)
            found = read_board(tmp_path / PROGRESS)
    assert found["steps"] == ["evaluate a", "fine-tune b"] and found["step"] == 2
    assert (found["done"], found["total"], found["note"]) == (30, 100, "step 3")
    assert found["curve"] == [(1, 4.0), (2, 3.0), (3, 2.0)]
    assert found["left"] > 0 and found["alive"]
    assert list(tmp_path.iterdir()) == [] and current() is None


def test_a_work_inside_another_keeps_the_outer_board(tmp_path):
    with published(tmp_path / "run") as outer, published(tmp_path / "results") as inner:
        assert inner is outer
        inner.tell(at_once=True)
        assert (tmp_path / "run" / PROGRESS).exists() and not (tmp_path / "results").exists()
    assert not (tmp_path / "run" / PROGRESS).exists()


def test_of_several_processes_the_first_alone_has_a_board(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with published(tmp_path) as board:
        assert board is None
        with console.progress("w", 2, "units") as shown:
            shown.advance()
    assert list(tmp_path.iterdir()) == []


def test_a_long_curve_is_thinned_evenly(tmp_path):
    board = Board(tmp_path / PROGRESS)
    board.begin()
    for step in range(1, 5 * POINTS):
        board.point(step, step)
    steps = [x for x, _ in board.curve]
    assert POINTS / 2 <= len(steps) <= POINTS
    gaps = {b - a for a, b in pairwise(steps)}
    assert len(gaps) == 1 and steps[-1] >= 5 * POINTS - 16


def test_a_board_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with published(tmp_path / "file" / "below") as board:
        board.tell(at_once=True, title="t")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"curve": [[1], ["a", 2], 3], "steps": 5, "done": "x", "pid": -4}', "[" * 9000],
)
def test_a_broken_board_is_none_or_empty_never_an_error(tmp_path, text):
    (tmp_path / PROGRESS).write_text(text)
    found = read_board(tmp_path / PROGRESS)
    assert found is None or (found["curve"] == [] and found["done"] is None and not found["alive"])


def test_a_dead_process_is_not_alive(tmp_path):
    board = Board(tmp_path / PROGRESS)
    board.tell(at_once=True)
    facts = json.loads((tmp_path / PROGRESS).read_text())
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    for change, alive in (({"pid": child}, False), ({"host": "x"}, True), ({"host": "x", "seen": 9}, False)):
        (tmp_path / PROGRESS).write_text(json.dumps({**facts, "seen": time.time(), **change}))
        assert read_board(tmp_path / PROGRESS)["alive"] is alive
