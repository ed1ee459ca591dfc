"""A result in the terminal: no word of it is broken, and what no row has takes no column."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ropewalk.results.result_file import show

FOLDER = Path(__file__).parents[2] / "docs" / "results" / "smollm2-135m-16k"
KINDS = ("benchmark", "passkey", "perplexity.books")


@pytest.mark.parametrize("kind", KINDS)
def test_a_results_table_stands_in_80_columns_with_whole_words(kind: str, capsys) -> None:
    result = json.loads((FOLDER / f"smollm2-135m.{kind}.json").read_text())
    show(result)
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    wanted = {"benchmark": "accuracy_norm", "passkey": "distance", "perplexity.books": " perplexity "}
    assert wanted[kind] in said and "control" not in said
