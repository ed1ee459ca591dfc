import json

import pytest
from byte_model import ByteModel

from ropewalk.errors import UserError
from ropewalk.evals import benchmark
from ropewalk.evals.benchmark import BenchmarkSettings, data, run
from ropewalk.results.cells import Cells


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def piqa(tmp_path):
    rows = [{"goal": f"g{i}", "sol1": f"yes{i:02}", "sol2": f"no{i:02}", "label": i % 2} for i in range(20)]
    return BenchmarkSettings(files=(f"piqa={write(tmp_path / 'piqa.jsonl', rows)}",))


def likes(wanted):
    """Believes tokens of texts that end in a wanted answer."""

    def log_p(before, token):
        text = bytes(i for i in [*before, token] if i < 256).decode()
        return 0.0 if any(w.startswith(text.split("Answer: ")[-1]) for w in wanted) else -9.0

    return ByteModel(log_p=log_p)


def test_a_model_that_believes_the_right_answers_scores_one(piqa):
    model = likes([("yes", "no")[i % 2] + f"{i:02}" for i in range(20)])
    found = run(model, piqa, Cells(None, {}))
    (row,) = found["rows"]
    assert (row["task"], row["accuracy"], row["n"], row["items"]) == ("piqa", 1.0, 20, "1" * 20)
    assert row["high"] == 1.0 and 0.8 < row["low"] < 0.9 and row["chance"] == 0.5
    assert found["summary"] == {"piqa": 1.0}


def test_items_say_which_questions_were_right(piqa):
    row = run(likes([f"yes{i:02}" for i in range(20)]), piqa, Cells(None, {}))["rows"][0]
    assert row["items"] == "10" * 10
    assert row["standard_error"] == pytest.approx((0.25 / 19) ** 0.5)


def test_the_score_by_length_divides_by_characters_of_the_choice(tmp_path):
    """Every byte costs 1: plainly the shorter wins; by length the longer, whose blank weighs less."""
    rows = [{"goal": "g", "sol1": "ab", "sol2": "abcdefgh", "label": 1}]
    settings = BenchmarkSettings(files=(f"piqa={write(tmp_path / 'p.jsonl', rows)}",))
    row = run(ByteModel(log_p=lambda before, token: -1.0), settings, Cells(None, {}))["rows"][0]
    assert (row["accuracy"], row["accuracy_norm"]) == (0.0, 1.0)


def test_a_file_of_ones_own_needs_only_its_columns(tmp_path):
    rows = [{"q": "Answer:", "c": ["tar", "hemp"], "right": "hemp"}] * 3
    file = write(tmp_path / "own.jsonl", rows)
    settings = BenchmarkSettings(
        tasks=("mine",), files=(f"mine={file}",), prompt="q", choices=("c",), answer="right"
    )
    assert run(likes(["hemp"]), settings, Cells(None, {}))["summary"] == {"mine": 1.0}
    with pytest.raises(UserError, match=r"name its columns with --set benchmark\.prompt="):
        run(likes([]), BenchmarkSettings(tasks=("mine",), files=(f"mine={file}",)), Cells(None, {}))


def test_the_data_block_names_the_file_and_its_hash(piqa):
    (block,) = run(likes([]), piqa, Cells(None, {}))["data"]
    assert block["name"] == "piqa.jsonl" and block["task"] == "piqa" and len(block["sha256"]) == 64


def test_a_task_of_lm_evals_own_needs_lm_eval(monkeypatch):
    import importlib.metadata as metadata

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    with pytest.raises(UserError, match=r"pip install 'ropewalk\[bench\]'"):
        data(BenchmarkSettings(tasks=("lm-eval:arc_easy",)))


class Killed(BaseException):
    pass


@pytest.mark.parametrize("survived", [0, 1, 3])
def test_killed_between_cells_and_started_again_gives_the_same_bytes(tmp_path, piqa, monkeypatch, survived):
    monkeypatch.setattr(benchmark, "CELL", 6)
    wanted = [f"yes{i:02}" for i in range(20)]
    whole = json.dumps(run(likes(wanted), piqa, Cells(None, {})))
    dying = likes(wanted)
    score = dying.log_probs

    def log_probs(windows, scored):
        if len(dying.calls) == survived:
            raise Killed
        return score(windows, scored)

    dying.log_probs = log_probs
    with pytest.raises(Killed):
        run(dying, piqa, Cells(tmp_path / "cells", {}))
    second = likes(wanted)
    assert json.dumps(run(second, piqa, Cells(tmp_path / "cells", {}))) == whole
    assert len(second.calls) == 4 - survived


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (BenchmarkSettings(tasks=("hellaswag",)), "no benchmark 'hellaswag'"),
        (BenchmarkSettings(files=("piqa",)), "write NAME=FILE"),
        (BenchmarkSettings(files=("piqa=absent.parquet",)), "no file absent.parquet"),
        (BenchmarkSettings(limit=0), "limit is 0"),
        (BenchmarkSettings(window=1), "window is 1"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(settings, said):
    with pytest.raises(UserError, match=said):
        run(ByteModel(), settings, Cells(None, {}))
