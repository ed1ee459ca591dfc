"""`ropewalk report`: a directory that is whole, without torch, and errors in one line."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

import fake_results as fake

import ropewalk
from ropewalk.errors import UserError


@pytest.fixture
def results(tmp_path):
    return fake.save(fake.everything()[1:2], tmp_path / "results")


def test_the_report_imports_no_torch_and_no_transformers(results, tmp_path):
    program = (
        "import sys; from ropewalk.cli import main; code = main(sys.argv[1:]);"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(code)"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "--json",
        "report",
        str(results),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["files"] == 1
    assert Path(said["page"]).is_file()
    assert said["verdict"]["sentence"] in done.stderr


def test_a_report_is_replaced_as_a_whole_and_never_in_place(results, tmp_path, monkeypatch):
    out = tmp_path / "out"
    ropewalk.report((str(results),), out=out)
    before = (out / "report.html").read_bytes()
    monkeypatch.setattr("ropewalk.results.page._markdown", lambda content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ropewalk.report((str(results),), out=out)
    assert (out / "report.html").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".partial") == []


def test_a_directory_that_is_not_ours_is_left_alone(results, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="was not made by ropewalk"):
        ropewalk.report((str(results),), out=tmp_path / "mine")
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_a_report_inside_the_results_is_not_taken_for_a_result(results):
    for _ in range(2):
        assert ropewalk.report((str(results),), out=results / "report")["files"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ('{"schema": 1}', "no usable 'evaluation'"),
        (json.dumps({**fake.everything()[0], "schema": 2}), "schema 2"),
        (json.dumps({**fake.everything()[0], "rows": [1]}), "a row that is not a mapping"),
        (json.dumps(fake.everything()[0]).replace("8.31", "NaN", 1), "cannot be read"),
    ],
)
def test_a_file_that_is_no_result_is_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(UserError, match=said):
        ropewalk.report((str(path),), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_results_are_said(tmp_path):
    with pytest.raises(UserError, match="no results at"):
        ropewalk.report((str(tmp_path / "none"),), out=tmp_path / "out")


def test_watch_follows_results_as_they_appear_and_ends_with_a_still_page(tmp_path, monkeypatch, capsys):
    results, out = tmp_path / "results", tmp_path / "out"
    results.mkdir()
    block = fake.model("pi", "tuned")
    perplexity = fake.perplexity(block, {512: 9.0, 1024: 8.0, 2048: 7.5})
    pages = []

    def read():
        pages.append((out / "report.html").read_text() if out.exists() else "")

    def half_written():
        (results / "half.json").write_text('{"evaluation": "perplexity", "rows": [')

    def whole():
        (results / "half.json").write_text(json.dumps(perplexity))

    def interrupt():
        raise KeyboardInterrupt

    steps = iter([lambda: fake.save([fake.passkey(block, 2048)], results), half_written, whole, interrupt])

    def sleep(seconds):
        read()
        next(steps)()

    monkeypatch.setattr("ropewalk.verbs.report.time.sleep", sleep)
    made = ropewalk.report((str(results),), out=out, watch=True)
    read()
    assert made["files"] == 2
    assert "exit_code" not in made
    assert pages[0] == ""
    assert 'http-equiv="refresh" content="5"' in pages[1]
    assert "perplexity was not measured" in pages[1].lower()
    assert pages[2] == pages[1]
    assert "9.00 → 8.00 → 7.50" in pages[3]
    assert 'http-equiv="refresh"' not in pages[4]
    said = capsys.readouterr().out
    assert "no results yet" in said
    assert "not yet: results file" in said


def test_watch_shows_how_far_a_run_is_before_and_between_its_results(tmp_path, monkeypatch, capsys):
    """A run's directory as it is while the run goes on: its board, then its first results file."""
    from ropewalk.board import PROGRESS, Board

    run, out = tmp_path / "run", tmp_path / "out"
    (run / "results").mkdir(parents=True)
    board = Board(run / PROGRESS)
    board.begin(steps=["evaluate base", "fine-tune <b>pi</b>", "report"], step=1)
    board.tell(at_once=True, title="passkey", done=8, total=32, unit="places", rate=0.5, left=48)
    pages = []

    def trained():
        fake.save([fake.passkey(fake.model("pi", "tuned"), 2048)], run / "results")
        board.begin(step=2, title="finetune", done=900, total=1000, unit="tokens", rate=50, left=2)
        for step in range(1, 91):
            board.point(step, 5 - step / 50)
        board.tell(at_once=True, note="step 90/100, loss 3.200")

    def interrupt():
        raise KeyboardInterrupt

    steps = iter([trained, board.remove, interrupt])

    def sleep(seconds):
        pages.append((out / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " "))
        next(steps)()

    monkeypatch.setattr("ropewalk.verbs.report.time.sleep", sleep)
    ropewalk.report((str(run / "results"),), out=out, watch=True)
    waiting, between, after = pages
    assert "No results yet" in waiting and "Step 1 of 3, evaluate base." in waiting
    assert "passkey: 8 of 32 places (25 %), 0.500 a second, about 0:48 left for this step" in waiting
    assert 'http-equiv="refresh"' in waiting
    assert "fine-tune &lt;b&gt;pi&lt;/b&gt;" in between and "<b>pi</b>" not in between
    assert "900 of 1,000 tokens (90 %)" in between and "(step 90/100, loss 3.200)" in between
    assert "Training loss so far" in between and "4.98 in the first step shown, 3.20 in the last" in between
    assert "Going on now" not in after + (out / "report.html").read_text()
    said = capsys.readouterr().out
    assert "Step 1 of 3" in said and "Step 2 of 3" in said


def test_a_run_that_was_killed_is_not_said_to_go_on(tmp_path, monkeypatch):
    from ropewalk.board import PROGRESS, Board

    monkeypatch.setattr("ropewalk.board.os.getpid", lambda: 2**31 - 2)
    Board(tmp_path / PROGRESS).begin(steps=["evaluate base"], step=1)
    results = fake.save([fake.passkey(fake.model("pi", "tuned"), 2048)], tmp_path / "results")

    def interrupt(seconds):
        assert "Nothing goes on any more" in (tmp_path / "out" / "report.html").read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr("ropewalk.verbs.report.time.sleep", interrupt)
    ropewalk.report((str(results),), out=tmp_path / "out", watch=True)


def watching(results, out):
    command = [
        sys.executable,
        "-m",
        "ropewalk",
        "report",
        str(results),
        "--out",
        str(out),
        "--watch",
        "--every",
        "1",
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_watching_process_ends_with_0_on_ctrl_c(tmp_path):
    results, out = tmp_path / "results", tmp_path / "out"
    results.mkdir()
    process = watching(results, out)
    page = out / "report.html"
    try:
        time.sleep(1)
        block = fake.model("pi", "tuned")
        fake.save([fake.passkey(block, 2048)], results)
        wait_for(page.exists)
        assert 'http-equiv="refresh"' in page.read_text()
        (results / "half.json").write_text('{"evaluation": "perplexity", "rows": [')
        time.sleep(1.5)
        (results / "half.json").unlink()
        fake.save(
            [fake.passkey(block, 2048), fake.perplexity(block, {512: 9.0, 1024: 8.0, 2048: 7.5})], results
        )

        def grown():
            with contextlib.suppress(FileNotFoundError):
                return "9.00 → 8.00 → 7.50" in page.read_text()
            return False

        wait_for(grown)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert 'http-equiv="refresh"' not in page.read_text()
    assert "no results yet" in said


def many(folder: Path, n: int) -> Path:
    """n results files of n/4 models."""
    folder.mkdir()
    for i in range(n // 4):
        block = fake.model(f"pi-{i:05}", "tuned", steps=i + 1)
        block["hash"] = f"{i:016x}"
        made = [
            fake.perplexity(block, {512: 9 + i / n, 1024: 8.5, 2048: 8.1}),
            fake.passkey(block, 2048, seed=i),
            fake.training(block, 50),
            fake.position_loss(block, 2048),
        ]
        for one in made:
            (folder / f"{i:05}.{one['evaluation']}.json").write_text(json.dumps(one))
    return folder


def report_of_many(tmp_path, n):
    started = time.process_time()
    made = ropewalk.report((str(many(tmp_path / "many", n)),), out=tmp_path / "out")
    assert made["files"] == n
    assert (tmp_path / "out" / "report.html").stat().st_size < 5_000_000
    text = (tmp_path / "out" / "tables" / "passkey.csv").read_text()
    assert text.count("\n") == 1 + 32 * n // 4
    return time.process_time() - started


def test_a_folder_of_80_files_is_reported(tmp_path):
    report_of_many(tmp_path, 80)


@pytest.mark.slow
def test_a_folder_of_10000_files_takes_less_than_a_minute(tmp_path):
    folder = many(tmp_path / "many", 10_000)
    started = time.perf_counter()
    ropewalk.report((str(folder),), out=tmp_path / "out")
    assert time.perf_counter() - started < 60
    assert (tmp_path / "out" / "report.html").stat().st_size < 5_000_000
