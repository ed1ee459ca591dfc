import json

import pytest
from byte_model import ByteModel

pytest.importorskip("rouge_score", reason="the extra `summarization` is not installed")

from ropewalk.errors import UserError
from ropewalk.evals.summarization import SummarizationSettings, data, run
from ropewalk.results.cells import Cells

WORDS = ["rope", "hemp", "yarn", "strand", "tar", "walk", "lane", "spin", "twist", "knot"]


@pytest.fixture
def reports(tmp_path):
    """Documents whose summary is their last line."""
    rows = []
    for i in range(12):
        last = " ".join(WORDS[(i + j) % 10] for j in range(5))
        rows.append({"report": "filler words here. " * (4 + i) + last, "summary": last})
    path = tmp_path / "reports.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def last_words(prompt):
    document = prompt.split("summarize it.\n")[1].split("\nNow summarize")[0]
    return " ".join(document.split()[-5:]) + "\x00"


class Model(ByteModel):
    stops = (7, 0)


def test_the_right_summaries_score_one_where_the_window_holds_the_document(reports):
    found = run(Model(last_words), SummarizationSettings(reports, window=1024, answer=64), Cells(None, {}))
    assert {row["metric"]: row["score"] for row in found["rows"]} == {"rouge1": 1, "rouge2": 1, "rougeL": 1}
    assert all(row["n"] == 12 and row["low"] <= row["score"] <= row["high"] for row in found["rows"])
    assert found["summary"]["documents"][0]["text"] == "rope hemp yarn strand tar"


def test_cut_to_a_smaller_window_the_same_model_loses_and_the_gain_is_paired(reports):
    settings = SummarizationSettings(reports, window=1024, cut=(220,), answer=64)
    found = run(Model(last_words), settings, Cells(None, {}))
    small, large = (next(r for r in found["rows"] if r["window"] == w) for w in (220, 1024))
    assert small["score"] < 0.2 and large["score"] == 1
    gain = found["summary"]["gains"][0]
    assert (gain["window"], gain["over"], gain["n"]) == (1024, 220, 12)
    assert gain["low"] > 0.5 and gain["gain"] == pytest.approx(large["score"] - small["score"])


def test_prompt_and_answer_fit_the_window_and_equal_lengths_go_together(reports):
    model = Model(last_words)
    run(model, SummarizationSettings(reports, window=220, answer=64), Cells(None, {}))
    assert max(length for _, length in model.calls) == 220 - 64
    assert sum(batch for batch, _ in model.calls) == 12 and len(model.calls) < 12


def test_an_answer_has_the_papers_length_and_at_most_a_quarter_of_the_window(reports):
    def room(window):
        found = run(Model(window=window), SummarizationSettings(reports, limit=1), Cells(None, {}))
        return found["protocol"]["answer_tokens"]

    assert (room(16_384), room(1024)) == (1000, 256)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("survived", [0, 2])
def test_killed_between_cells_and_started_again_gives_the_same_bytes(tmp_path, reports, survived):
    settings = SummarizationSettings(reports, window=300, cut=(220,), answer=64)
    whole = json.dumps(run(Model(last_words), settings, Cells(None, {})))
    dying = Model(last_words)
    generate = dying.generate

    def until_killed(*given):
        if len(dying.calls) == survived:
            raise Killed
        return generate(*given)

    dying.generate = until_killed
    with pytest.raises(Killed):
        run(dying, settings, Cells(tmp_path / "cells", {}))
    assert json.dumps(run(Model(last_words), settings, Cells(tmp_path / "cells", {}))) == whole


def test_a_window_too_small_for_the_prompt_is_refused(reports):
    with pytest.raises(UserError, match="a window of 60 tokens is too small"):
        run(Model(), SummarizationSettings(reports, window=80, answer=20), Cells(None, {}))


def test_tokens_are_drawn_as_in_the_paper_with_a_seed_a_document_whatever_its_batch(reports):
    def seeds(model, **more):
        found = run(model, SummarizationSettings(reports, window=300, answer=64, **more), Cells(None, {}))
        assert all(d.temperature == 0.5 and d.top_p == 0.95 and d.stop == (7, 0) for d in model.decodings)
        given = sorted(seed for decoding in model.decodings for seed in decoding.seeds)
        return given, found["protocol"]["decoding"]

    every, said = seeds(Model(last_words))
    assert len(set(every)) == 12 and said == "sampled, temperature 0.5, top_p 0.95, a seed a document"
    few, _ = seeds(Model(last_words), limit=5)
    assert len(few) == 5 and set(few) < set(every)
    assert not set(every) & set(seeds(Model(last_words), seed=1)[0])


def test_temperature_zero_is_greedy_and_said_so(reports):
    model = Model(last_words)
    settings = SummarizationSettings(reports, limit=1, temperature=0.0)
    assert run(model, settings, Cells(None, {}))["protocol"]["decoding"] == "greedy"
    assert model.decodings[0].temperature == 0


@pytest.mark.parametrize("change", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_settings_that_nothing_can_be_drawn_by_are_refused_before_anything_is_read(reports, change):
    with pytest.raises(UserError, match=next(iter(change))):
        data(SummarizationSettings("absent.parquet", **change))
