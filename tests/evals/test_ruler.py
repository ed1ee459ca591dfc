import json
from random import Random

import pytest
from byte_model import ByteModel
from ruler_oracle import solve

from ropewalk.data.ruler_tasks import TASKS
from ropewalk.errors import UserError
from ropewalk.evals.ruler import RulerSettings, data, run
from ropewalk.results.cells import Cells

SMALL = RulerSettings(lengths=(4096, 6144), samples=3, haystack=("noise",))


def test_an_oracle_that_reads_the_prompt_scores_one_in_every_task():
    found = run(ByteModel(solve), RulerSettings(lengths=(12_288,), samples=3), Cells(None, {}))
    assert {row["task"]: row["score"] for row in found["rows"]} == dict.fromkeys(TASKS, 1.0)
    assert found["summary"]["usable"] == 12_288


def test_a_model_that_talks_at_random_scores_about_zero():
    random = Random(0)
    model = ByteModel(lambda prompt: "".join(random.choices("abcdefghij 0123456789", k=128)))
    found = run(model, SMALL, Cells(None, {}))
    assert max(row["score"] for row in found["rows"]) < 0.05
    assert found["summary"]["usable"] is None


def test_a_model_that_sees_only_the_end_of_the_prompt_fails_where_the_needle_is_far():
    model = ByteModel(lambda prompt: solve("One of the special magic numbers for x is: 0. " + prompt[-700:]))
    settings = RulerSettings(tasks=("niah_single_1",), lengths=(1024, 32_768), samples=20)
    near, far = run(model, settings, Cells(None, {}))["rows"]
    assert near["score"] > 0.9 > 0.3 > far["score"]


def test_partly_right_answers_count_in_part():
    model = ByteModel(lambda prompt: " ".join(solve(prompt).split()[:3]))
    settings = RulerSettings(tasks=("niah_multivalue",), lengths=(4096,), samples=4, haystack=("noise",))
    (row,) = run(model, settings, Cells(None, {}))["rows"]
    assert (row["hits"], row["of"], row["score"], row["n"]) == ([3, 3, 3, 3], 4, 0.75, 4)
    assert row["low"] < 0.75 < row["high"]


def test_prompts_of_a_cell_have_the_length_less_the_answers_room():
    model = ByteModel(solve)
    run(model, RulerSettings(tasks=("niah_single_1", "vt"), lengths=(5000,), samples=2), Cells(None, {}))
    assert model.calls == [(2, 5000 - 128), (2, 5000 - 30)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("survived", [0, 1, 7])
def test_killed_between_cells_and_started_again_gives_the_same_bytes(tmp_path, survived):
    whole = json.dumps(run(ByteModel(solve), SMALL, Cells(None, {})))
    calls = 0

    def dying(prompt):
        nonlocal calls
        calls += 1
        if calls > survived * SMALL.samples:
            raise Killed
        return solve(prompt)

    with pytest.raises(Killed):
        run(ByteModel(dying), SMALL, Cells(tmp_path / "cells", {"a": 1}))
    second = ByteModel(solve)
    again = run(second, SMALL, Cells(tmp_path / "cells", {"a": 1}))
    assert json.dumps(again) == whole
    assert len(second.calls) == len(again["rows"]) - survived


def test_what_does_not_fit_is_named_with_its_reason(capsys):
    found = run(ByteModel(solve), RulerSettings(lengths=(1024, 4096), samples=2), Cells(None, {}))
    out = {(o["task"], o["length"]) for o in found["summary"]["left_out"]}
    assert ("cwe", 1024) in out and ("niah_single_1", 1024) not in out
    assert len(found["rows"]) + len(out) == 2 * len(TASKS)
    assert all("too long" in o["reason"] for o in found["summary"]["left_out"])
    short = [task for task, length in out if length == 1024]
    said = capsys.readouterr().out
    assert f"1,024 tokens: {len(short)} of {len(TASKS)} tasks do not fit: " in said
    assert "4,096 tokens: 1 of 11 tasks do not fit: cwe" in said
    assert [point["tasks"] for point in found["summary"]["by_length"]] == [11 - len(short), 10]


def test_lengths_double_from_4096_or_a_quarter_of_a_small_window_up_to_the_window():
    def lengths(window):
        settings = RulerSettings(tasks=("niah_single_1",), samples=1)
        found = run(ByteModel(solve, window=window), settings, Cells(None, {}))
        return [point["length"] for point in found["summary"]["by_length"]]

    assert lengths(32_768) == [4096, 8192, 16_384, 32_768]
    assert lengths(20_000) == [4096, 8192, 16_384, 20_000]
    assert lengths(4096) == [1024, 2048, 4096]


def test_noise_alone_leaves_out_the_task_that_would_be_another_twice():
    tasks = {row["task"] for row in run(ByteModel(solve), SMALL, Cells(None, {}))["rows"]}
    assert "niah_single_2" not in tasks and "niah_single_3" in tasks


def test_the_users_own_text_is_the_haystack_and_is_named_with_its_hash(tmp_path):
    (tmp_path / "book.txt").write_text("Hemp is spun. Yarn is tarred! " * 50)
    settings = RulerSettings(
        tasks=("niah_single_2",), lengths=(2048,), samples=1, haystack=(str(tmp_path / "book.txt"),)
    )
    prompts = []
    run(ByteModel(lambda p: prompts.append(p) or solve(p)), settings, Cells(None, {}))
    assert "Yarn is tarred!" in prompts[0]
    assert data(settings)[0]["name"] == "book.txt" and len(data(settings)[0]["sha256"]) == 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (RulerSettings(tasks=("niah",)), "no RULER task 'niah'"),
        (RulerSettings(samples=0), "samples is 0"),
        (RulerSettings(lengths=(100,)), r"fits into 100 tokens; .*--set 'ruler.lengths="),
        (RulerSettings(lengths=(0, 4096)), "RULER length is 0 tokens"),
        (RulerSettings(haystack=("absent.txt",)), "absent.txt"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings, said):
    with pytest.raises(UserError, match=said):
        run(ByteModel(solve), settings, Cells(None, {}))
