"""Hundreds of lies, a third of them in the default suite: one line each, and nothing left behind."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from lies_files import data_lies, gguf_lies, recipe_lies, result_lies
from lies_flags import flag_lies
from lies_models import config_lies, tokenizer_lies, weight_lies
from lying import Lie, World

SUBJECTS = {
    "config.json": config_lies(),
    "safetensors": weight_lies(),
    "tokenizers": tokenizer_lies(),
    "GGUF": gguf_lies(),
    "recipes": recipe_lies(),
    "data files": data_lies(),
    "results files": result_lies(),
    "flags": flag_lies(),
}
ALL = [lie for lies in SUBJECTS.values() for lie in lies]
FIGURES = Path(__file__).parents[2] / "docs" / "results" / "reliability" / "lies.json"

SLOW = ("Hub set not there", "recipe 100,000 deep")
"""Lies whose telling imports a large library or reads a large file."""
SHORT = [lie for lie in ALL[::3] if lie.name not in SLOW]
"""Told in the default suite, some seconds; `make faults` tells all the others."""


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and a GGUF file, made once."""
    sys.path.append(str(Path(__file__).parents[1] / "model"))
    import tiny_checkpoints

    place = tmp_path_factory.mktemp("good")
    return tiny_checkpoints.llama(place / "m"), tiny_checkpoints.gguf(place / "g.gguf")


def files(place: Path) -> set[str]:
    return {str(Path(root, name)) for root, below, names in os.walk(place) for name in [*below, *names]}


def tell(lie: Lie, good: tuple[Path, Path], place: Path, capfd, monkeypatch) -> None:
    """Run a lie's command in this process and hold what it did against what it must do."""
    from ropewalk import console
    from ropewalk.cli import main

    lie.make(World(place, *good))
    before = files(place)
    monkeypatch.chdir(place)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    monkeypatch.setattr(console, "_stream", None)
    capfd.readouterr()
    code = main(lie.command.split(" "))
    shown = capfd.readouterr()
    said = shown.err if lie.code == 2 else shown.out
    assert code == lie.code, shown
    assert re.search(lie.says, said), shown
    if lie.code == 2:
        assert said.startswith("ropewalk: ") and said.count("\n") == 1 and len(said) < 1500, shown
    assert files(place) == before, f"left behind: {files(place) - before}"


def test_there_are_at_least_two_hundred_lies_and_every_verb_meets_some() -> None:
    from ropewalk.cli import VERBS

    assert len(ALL) >= 200
    assert len({lie.name for lie in ALL}) == len(ALL)
    assert set(VERBS) - {lie.command.split()[0] for lie in ALL} <= {"plan"}


@pytest.mark.parametrize("lie", SHORT, ids=lambda lie: lie.name)
def test_a_lie_is_one_line(lie: Lie, good, tmp_path: Path, capfd, monkeypatch) -> None:
    tell(lie, good, tmp_path, capfd, monkeypatch)


@pytest.mark.faults
@pytest.mark.parametrize("lie", [lie for lie in ALL if lie not in SHORT], ids=lambda lie: lie.name)
def test_every_other_lie_is_one_line_too(lie: Lie, good, tmp_path: Path, capfd, monkeypatch) -> None:
    tell(lie, good, tmp_path, capfd, monkeypatch)


def counted() -> dict[str, list[dict[str, object]]]:
    """How many lies of each subject, and which verbs meet them."""
    from ropewalk.cli import VERBS

    rows: list[dict[str, object]] = []
    for subject, lies in SUBJECTS.items():
        verbs = {lie.command.split()[0] for lie in lies} & set(VERBS)
        rows.append({"subject": subject, "lies": len(lies), "verbs": sorted(verbs)})
    return {"rows": [*rows, {"subject": "all", "lies": len(ALL), "verbs": sorted(VERBS)}]}


def test_the_count_of_lies_on_the_page_is_that_of_the_table() -> None:
    assert json.loads(FIGURES.read_text()) == counted(), "python tests/faults/test_lies.py writes it"


if __name__ == "__main__":
    from ropewalk.files import to_json

    FIGURES.write_text(to_json(counted()))
