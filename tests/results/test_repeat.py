"""The command in a results file makes the same file again, and names no directory of this machine."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

import ropewalk
from ropewalk.cli import main
from ropewalk.results.repeat import command, text_words
from ropewalk.verbs.evaluate import Evaluate

sys.path.insert(0, str(Path(__file__).parent.parent / "evals"))
from fakes import TEXT, tiny_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    top = tmp_path_factory.mktemp("repeat")
    tiny_checkpoint(top / "model", window=512)
    for name in "ab":
        (top / f"{name} c.txt").write_text(" ".join(f"{i}{name} {TEXT}" for i in range(40)))
    return top


def test_the_command_of_each_file_makes_it_again(place, tmp_path, monkeypatch):
    made = ropewalk.evaluate(
        str(place / "model"),
        perplexity=(f"t={place}/a c.txt", f"{place}/b c.txt"),
        position_loss=(f"{place}/b c.txt",),
        passkey=True,
        small=True,
        set=("passkey.runs=1", "perplexity.sample=0.5", "position-loss.buckets=4"),
        contexts=(300, 512),
        cut=600,
        seed=3,
        name="模型 甲",
        device="cpu",
        out=str(tmp_path / "one"),
    )
    monkeypatch.chdir(place)
    for path in map(Path, made["results"]):
        said = json.loads(path.read_text())["provenance"]["command"]
        assert str(place) not in said
        assert main([*shlex.split(said)[1:], "--out", str(tmp_path / "two")]) == 0
        again, first = (json.loads(p.read_text()) for p in (tmp_path / "two" / path.name, path))
        for one in (again, first):
            del one["provenance"]["inputs"]  # where the texts lie is part of it
        assert again == first
    assert len(list((tmp_path / "two").glob("*.json"))) == 3


def test_only_what_differs_from_the_defaults_and_matters_is_said():
    settings = Evaluate("m", passkey=True, stride=128, target=2048, windows=3, shared_keys=True)
    said = command(settings, "passkey", "", "m", "m", 2048)
    assert said == "ropewalk evaluate m --passkey --shared-keys"
    said = command(settings, "perplexity", "a.txt", "m", "n", 512)
    assert said == "ropewalk evaluate m --perplexity a.txt --target 2048 --stride 128 --windows 3 --name n"


@pytest.mark.parametrize(
    ("value", "local"),
    [
        ("benchmark.files=[piqa=/home/me/piqa.parquet, b=~/b.json]", "[piqa=piqa.parquet, b=b.json]"),
        ("benchmark.files=[piqa=hub:a/b/c.parquet]", "[piqa=hub:a/b/c.parquet]"),
        ("benchmark.limit=5", "benchmark.limit=5"),
    ],
)
def test_a_finer_setting_loses_its_directories(value, local):
    said = command(Evaluate("m", set=(value, "ruler.samples=2")), "benchmark", "", "m", "m", 512)
    assert shlex.split(said)[-1].endswith(local) and "ruler" not in said


def test_texts_have_their_group_where_its_name_is_not_theirs():
    assert text_words("a", ("x/a.txt", "b c.txt")) == "a.txt 'b c.txt'"
    assert text_words("books", ("/x/a.txt",)) == "books=a.txt"
    assert text_words("pg19", ("hub:emozilla/pg19-test:test",)) == "pg19=hub:emozilla/pg19-test:test"
    assert text_words("stdlib-heldout", ("stdlib-heldout",)) == "stdlib-heldout"
    assert text_words("", ("hub:a/b",)) == "hub:a/b"
