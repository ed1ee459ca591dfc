"""A number that is not finite stops the run, whatever is measured; unlike figures never stand unmarked."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import readers

from ropewalk.errors import UserError
from ropewalk.results.collection import MARK, collect


class Broken:
    """A language model whose every log-probability is NaN."""

    name, vocab, device, dtype, window, bos = "broken", 257, "cpu", "float16", 64, 256

    def log_probs(self, windows, scored):
        import torch

        return torch.full((len(windows), scored), math.nan)


def test_a_likelihood_that_is_not_finite_is_no_answer() -> None:
    from ropewalk.evals.likelihood import log_likelihoods

    with pytest.raises(UserError, match="log-likelihood of nan in float16; try --dtype float32"):
        log_likelihoods(Broken(), [([1, 2], [3])])


def test_an_answer_out_of_numbers_that_are_not_finite_is_none(tmp_path: Path) -> None:
    """argmax over NaN is a token too: without the check a broken model would just find no passkey."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ropewalk.model.cache import make_cache
    from ropewalk.model.decoding import GREEDY, answer

    config = LlamaConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.tensor([[1, 2, 3]])

    def said() -> torch.Tensor:
        import contextlib

        with torch.inference_mode():
            none = GREEDY.uniforms(1, 2)
            return answer(model, ids, make_cache(config, 8), 2, GREEDY, none, contextlib.nullcontext())

    assert said().shape == (1, 2)
    with torch.no_grad():
        model.lm_head.weight[3, 0] = math.nan
    with pytest.raises(UserError, match="not finite, in float32"):
        said()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nothing_that_is_not_finite_is_ever_written(value: float, tmp_path: Path) -> None:
    from ropewalk.results.record import write_result

    result = {key: part for key, part in readers.results()[0].items() if key != "schema"}
    with pytest.raises(ValueError, match="Out of range"):
        write_result(tmp_path / "r.json", {**result, "summary": {"deep": [{"x": value}]}})
    assert list(tmp_path.iterdir()) == []


def two(change: dict) -> list[tuple[str, dict]]:
    """The same evaluation of two models, the second under other conditions."""
    one, other = copy.deepcopy(readers.results()[0]), copy.deepcopy(readers.results()[0])
    other["model"] = {**other["model"], "name": "other", "hash": "f" * 16}
    for key, value in change.items():
        other[key] = value
    return [("one.json", one), ("other.json", other)]


DATA = [{"name": "books", "sha256": "cd" * 32, "documents": 8}]


@pytest.mark.parametrize(
    "change",
    [
        {"data": DATA},
        {"protocol": {"name": "window-mean", "stride": 256}},
        {"protocol": {"name": "perplexity", "stride": 512}},
        {"summary": {"documents": ["b"], "tokens": 9}},
    ],
    ids=["data", "protocol", "stride", "documents"],
)
def test_figures_of_other_conditions_carry_a_mark_in_the_page_and_in_every_table(change, tmp_path) -> None:
    from ropewalk.results.page import write_report

    alike = collect(two({})).series
    assert [one.mark for one in alike] == ["", ""]
    found = collect(two(change))
    assert sorted(one.mark for one in found.series) == ["", MARK]
    write_report(found, tmp_path / "o")
    page = (tmp_path / "o" / "report.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("|") and "9.1" in line]
    assert len(rows) >= 2 and any(MARK in row for row in rows) and not all(MARK in row for row in rows)


def test_two_models_of_one_name_are_never_one_row(tmp_path: Path) -> None:
    one, other = (copy.deepcopy(readers.results()[0]) for _ in range(2))
    other["model"]["hash"] = "f" * 16
    labels = {model.label for model in collect([("a.json", one), ("b.json", other)]).models}
    assert len(labels) == 2 and all("(" in label for label in labels)


def test_the_committed_tables_do_not_mix_conditions() -> None:
    """What stands in one committed folder, and so in one table of the pages, is comparable throughout."""
    folders = sorted((Path(__file__).parents[2] / "docs" / "results").glob("*/"))
    seen = 0
    for folder in folders:
        results = [(p, json.loads(p.read_text())) for p in sorted(folder.glob("*.perplexity.*.json"))]
        if results:
            seen += 1
            assert {one.mark for one in collect(results).series} == {""}, folder.name
    assert seen >= 2
