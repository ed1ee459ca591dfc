"""Results are found below a directory; what only looks like one is left alone."""

from __future__ import annotations

import json

import fake_results as fake
import pytest

from ropewalk.errors import UserError
from ropewalk.results.record import find_results, read_result


def test_results_are_found_and_configs_vocabularies_and_records_are_not(tmp_path):
    folder = fake.save(fake.everything()[:2], tmp_path / ".cache" / "results")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text(json.dumps({"vocab": {"schema": 1, "evaluation": 2}}))
    (folder / "ropewalk.json").write_text(json.dumps({"evaluation": "perplexity"}))
    (folder / ".part").mkdir()
    (folder / ".part" / "x.json").write_text(json.dumps(fake.everything()[0]))
    assert [p.name for p in find_results([folder])] == ["00000.perplexity.json", "00001.passkey.json"]


def test_a_result_of_another_schema_is_found_and_refused(tmp_path):
    result = {**fake.everything()[0], "schema": 99}
    folder = fake.save([result], tmp_path)
    with pytest.raises(UserError, match="schema 99; this version reads 1"):
        read_result(find_results([folder])[0])
