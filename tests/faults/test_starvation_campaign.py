"""Starved verbs say one line, leave the last good state, and complete when they are fed."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forks import start
from tiny_recipe import make_files
from trees import contents, half_written

from ropewalk.cli import main
from ropewalk.files import locked

HERE = Path(__file__).parent
VERBS = {
    "extend": "extend IN/model OUT/long --to 256",
    "export": "export IN/model OUT/gguf --gguf",
    "evaluate": "evaluate IN/model --perplexity books=IN/texts/test.jsonl --contexts 128 --stride 64 "
    "--documents 1 --device cpu --out OUT/results",
}
LOCKS = {"extend": "long", "export": "gguf", "evaluate": "results/model.perplexity.books.json"}


@pytest.fixture(scope="module")
def fed(tmp_path_factory) -> tuple[Path, dict[str, dict[str, bytes]]]:
    """A directory of inputs, and what each verb makes of them unhindered."""
    root = tmp_path_factory.mktemp("starved")
    make_files(root)
    out, whole = root / "out", {}
    for verb in VERBS:
        assert call(verb, root) == 0
        whole[verb] = contents(out)
        shutil.rmtree(out)
    return root, whole


def call(verb: str, root: Path) -> int:
    return main(VERBS[verb].replace("IN/", f"{root}/").replace("OUT/", f"{root}/out/").split())


@contextlib.contextmanager
def limited(kind: int, value: int):
    """A soft limit of this process, lifted afterwards."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def check_refused_and_then_complete(verb, fed, code, capsys):
    root, whole = fed
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(said) == 1 and said[0].startswith("ropewalk: "), (code, said)
    assert not half_written(contents(root / "out"), whole[verb])
    assert call(verb, root) == 0
    assert contents(root / "out") == whole[verb]
    shutil.rmtree(root / "out")
    return said[0]


@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_one_line_and_the_same_command_completes(verb, fed, capsys):
    capsys.readouterr()
    with limited(resource.RLIMIT_FSIZE, 50):
        code = call(verb, fed[0])
    assert "File too large" in check_refused_and_then_complete(verb, fed, code, capsys)


def test_a_gguf_file_of_which_the_last_bytes_do_not_fit_is_not_left(fed, capsys):
    root, whole = fed
    size = max(len(data) for name, data in whole["export"].items() if name.endswith(".gguf"))
    capsys.readouterr()
    with limited(resource.RLIMIT_FSIZE, size - 100):
        code = call("export", root)
    assert not (root / "out" / "gguf").exists()
    assert "raise the limit" in check_refused_and_then_complete("export", fed, code, capsys)


@pytest.mark.parametrize("verb", VERBS)
def test_another_process_on_the_same_output_is_one_line(verb, fed, capsys):
    root, _ = fed
    (root / "out").mkdir(exist_ok=True)
    ready, told = os.pipe()

    def hold() -> int:
        with locked(root / "out" / LOCKS[verb]):
            os.write(told, b"!")
            time.sleep(60)
        return 0

    child = start(hold)
    os.read(ready, 1)
    capsys.readouterr()
    code = call(verb, root)
    os.kill(child.pid, 9)
    child.wait()
    os.close(ready)
    os.close(told)
    assert "another ropewalk process" in check_refused_and_then_complete(verb, fed, code, capsys)


def test_a_clock_that_runs_backwards_and_inputs_from_the_future_change_nothing(fed, monkeypatch):
    root, whole = fed
    now = time.time()
    past = iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: now - 10 * next(past))
    for path in (root / "texts").iterdir():
        os.utime(path, (now + 3e7, now + 3e7))
    for _ in range(2):
        assert call("evaluate", root) == 0
        assert contents(root / "out") == whole["evaluate"]
    shutil.rmtree(root / "out")


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_every_writing_verb_under_every_shortage(tmp_path):
    out = Path(os.environ.get("ROPEWALK_FAULTS_OUT", tmp_path)) / "starvation.json"
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*own, "true"]).returncode:
        own = []  # then the campaign says what it skipped, and why
    run = subprocess.run([*own, sys.executable, str(HERE / "campaign_starvation.py"), "--out", str(out)])
    assert run.returncode == 0, json.loads(out.read_text())["problems"]
