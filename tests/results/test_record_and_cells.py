"""The results file and the store of finished cells."""

from __future__ import annotations

import json

import pytest

from ropewalk.errors import UserError
from ropewalk.results.cells import Cells
from ropewalk.results.record import SCHEMA, find_results, provenance, read_result, write_result

RESULT = {
    "evaluation": "perplexity",
    "model": {"name": "m"},
    "protocol": {"name": "sliding"},
    "data": [],
    "rows": [{"context": 512, "perplexity": 9.5}],
    "summary": {},
    "provenance": provenance(device="cpu", dtype="float32", seed=0),
}


def test_a_result_is_read_as_it_was_written_and_twice_the_same_bytes(tmp_path):
    path = write_result(tmp_path / "a.json", RESULT)
    first = path.read_bytes()
    assert read_result(path) == {"schema": SCHEMA, **RESULT}
    assert write_result(path, RESULT).read_bytes() == first


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda r: r.update(schema=99), "has schema 99"),
        (lambda r: r.pop("schema"), "no schema"),
        (lambda r: r.pop("rows"), "no usable 'rows'"),
        (lambda r: r.update(rows=[1]), "not a mapping"),
        (lambda r: r.update(model="m"), "no usable 'model'"),
        (lambda r: r["rows"][0].update(perplexity=float("nan")), "not a number"),
        (lambda r: r["rows"][0].update(perplexity=float("inf")), "not a number"),
    ],
)
def test_a_file_that_is_not_a_result_of_this_schema_is_refused_in_one_line(tmp_path, change, part):
    result = json.loads(json.dumps({"schema": SCHEMA, **RESULT}))
    change(result)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(result))
    with pytest.raises(UserError, match=part) as caught:
        read_result(path)
    assert "\n" not in str(caught.value)


def test_a_number_too_large_for_a_float_is_not_finite(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"schema": SCHEMA, **RESULT}).replace("9.5", "1e999"))
    with pytest.raises(UserError, match="not finite"):
        read_result(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_rubbish_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError):
        read_result(path)


def test_results_are_found_below_a_directory_without_hidden_ones(tmp_path):
    write_result(tmp_path / "r" / "b.json", RESULT)
    write_result(tmp_path / "r" / "deep" / "a.json", RESULT)
    write_result(tmp_path / "r" / ".half" / "c.json", RESULT)
    (tmp_path / "r" / "other.json").write_text("{}")
    names = [p.relative_to(tmp_path / "r").as_posix() for p in find_results([tmp_path / "r"])]
    assert names == ["b.json", "deep/a.json"]
    with pytest.raises(UserError, match="no results"):
        find_results([tmp_path / "none"])


def test_finished_cells_outlive_the_process_and_a_broken_last_line_is_dropped(tmp_path):
    path = tmp_path / "cells.jsonl"
    cells = Cells(path, {"model": "m"})
    cells.put("a", [1])
    cells.put("b", {"x": 2.5})
    whole = path.read_bytes()
    for cut in range(len(whole) - 12, len(whole)):
        path.write_bytes(whole[:cut])
        again = Cells(path, {"model": "m"})
        assert again.get("a") == [1]
        assert again.get("b") is None
        again.put("b", {"x": 2.5})
        assert path.read_bytes() == whole


def test_cells_of_other_inputs_are_not_used(tmp_path):
    path = tmp_path / "cells.jsonl"
    Cells(path, {"model": "m"}).put("a", 1)
    assert Cells(path, {"model": "other"}).get("a") is None
