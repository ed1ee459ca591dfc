"""Perplexity as evaluated: against a naive reference, and the laws that hold for any model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from fakes import FakeLM, HashLM

from ropewalk.errors import UserError
from ropewalk.evals.perplexity import PerplexitySettings, run
from ropewalk.evals.position_loss import PositionLossSettings, bucket_edges
from ropewalk.evals.position_loss import run as run_positions
from ropewalk.metrics.windows import PROTOCOLS, windows
from ropewalk.results.cells import Cells


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[str, ...]:
    """Four documents of 150 to 420 characters, and one that is too short for anything."""
    place = tmp_path_factory.mktemp("texts")
    for i, length in enumerate((420, 150, 333, 256, 20)):
        text = "".join(chr(33 + (i * 31 + j * j * 7 + j // 5) % 90) for j in range(length))
        (place / f"{i}.txt").write_text(text)
    return tuple(str(path) for path in sorted(place.iterdir()))


def settings(files, **more) -> PerplexitySettings:
    return PerplexitySettings(group="g", sources=files, **{"contexts": (64,), "stride": 16, **more})


def naive(lm, files, protocol, context, stride) -> float:
    """One window at a time, all of its rows, one token after the other."""
    means, losses = [], []
    for file in files:
        ids = lm.encode(Path(file).read_text())
        if len(ids) + (lm.bos is not None) < context:
            continue
        for w in windows(protocol, len(ids), context, stride, lm.bos is not None):
            read = ([] if lm.bos is None else [lm.bos]) + ids[w.start : w.stop]
            rows = lm.log_probs(torch.tensor([read]), len(read) - 1)[0].tolist()
            mine = [-x for x in rows[-w.scored :]]
            losses += mine
            means.append(sum(mine) / len(mine))
    chosen = means if protocol == "window-mean" else losses
    return math.exp(sum(chosen) / len(chosen))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("bos", [None, 1])
def test_each_protocol_gives_the_naive_references_value(files, protocol, bos):
    lm = HashLM(bos=bos)
    (row,) = run(lm, settings(files, protocol=protocol), Cells(None, {}))["rows"]
    assert row["perplexity"] == pytest.approx(naive(HashLM(bos=bos), files, protocol, 64, 16), rel=1e-6)
    assert row["documents"] == 4 and not row["sampled"]


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary(files):
    found = run(FakeLM(vocab=137), settings(files, contexts=(32, 64, 128)), Cells(None, {}))
    assert [row["context"] for row in found["rows"]] == [32, 64, 128]
    for row in found["rows"]:
        assert row["perplexity"] == pytest.approx(137, rel=1e-6)
        assert row["low"] == pytest.approx(137, rel=1e-6) == row["high"]


def test_no_bound_of_an_interval_is_below_a_perplexity_of_one(tmp_path):
    class KnowsAllButB(FakeLM):
        def log_probs(self, windows, scored):
            return torch.where(windows[:, -1:] == ord("b"), -3.0, 0.0).expand(-1, scored)

    for name in "aab":
        (tmp_path / f"{len(list(tmp_path.iterdir()))}.txt").write_text(name * 200)
    (row,) = run(KnowsAllButB(), settings((str(tmp_path),)), Cells(None, {}))["rows"]
    assert row["low"] == 1.0 < row["perplexity"] < row["high"]


def test_every_context_scores_the_same_tokens_and_each_once(files):
    lm = HashLM()
    rows = run(lm, settings(files, contexts=(32, 64, 128)), Cells(None, {}))["rows"]
    assert {row["n"] for row in rows} == {419 + 149 + 332 + 255}


def test_only_as_many_rows_as_the_stride_are_asked_for_after_a_first_window(files):
    lm = HashLM()
    run(lm, settings(files), Cells(None, {}))
    assert {(length, scored) for _, length, scored in lm.calls} == {(64, 63), (64, 16)}


def test_the_value_does_not_change_with_document_order_or_batch(files, monkeypatch):
    one = run(HashLM(), settings(files), Cells(None, {}))["rows"][0]
    other = run(HashLM(), settings(files[::-1]), Cells(None, {}))["rows"][0]
    assert one["perplexity"] == other["perplexity"]
    lm = HashLM()
    lm.device = "cuda"  # larger cells
    assert run(lm, settings(files), Cells(None, {}))["rows"][0]["loss"] == one["loss"]


def test_documents_shorter_than_the_largest_context_are_refused_when_none_is_long_enough(files):
    with pytest.raises(UserError, match="longest of 5 has 420"):
        run(HashLM(), settings(files, contexts=(512,)), Cells(None, {}))


def test_documents_are_counted_and_cut_as_asked(files):
    found = run(HashLM(), settings(files, documents=2, cut=100), Cells(None, {}))
    assert found["summary"]["tokens"] == [100, 100]
    assert found["rows"][0]["n"] == 198


def test_the_summary_adds_up_to_the_row(files):
    found = run(HashLM(), settings(files), Cells(None, {}))
    kept = found["summary"]["by_document"]["64"]
    assert sum(kept["loss"]) / sum(kept["n"]) == pytest.approx(found["rows"][0]["loss"], rel=1e-12)
    assert len(found["summary"]["documents"]) == 4


def test_a_sample_reads_fewer_windows_and_says_so(files):
    exact = run(HashLM(), settings(files), Cells(None, {}))["rows"][0]
    lm = HashLM()
    row = run(lm, settings(files, sample=0.3), Cells(None, {}))["rows"][0]
    assert row["sampled"] and row["windows"] < row["of_windows"] == exact["windows"]
    assert sum(batch for batch, _, _ in lm.calls) == row["windows"]
    assert row["sample_low"] <= row["perplexity"] <= row["sample_high"]
    assert row["perplexity"] == pytest.approx(exact["perplexity"], rel=0.05)
    capped = run(HashLM(), settings(files, most_windows=16), Cells(None, {}))["rows"][0]
    assert capped["windows"] <= 20 and capped["sampled"]
    all_of_them = run(HashLM(), settings(files, most_windows=1000), Cells(None, {}))["rows"][0]
    assert all_of_them == exact


def test_samples_of_a_model_hold_its_exact_perplexity_as_often_as_they_say(files):
    exact = run(HashLM(), settings(files), Cells(None, {}))["rows"][0]["perplexity"]
    held = 0
    for seed in range(60):
        row = run(HashLM(), settings(files, sample=0.3, seed=seed), Cells(None, {}))["rows"][0]
        held += row["sample_low"] <= exact <= row["sample_high"]
    assert held >= 51  # 57 expected; fewer than 51 has a chance below 1 %


class Broken(HashLM):
    def log_probs(self, windows, scored):
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return super().log_probs(windows, scored)


def test_an_evaluation_that_was_killed_goes_on_and_ends_the_same(files, tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.evals.texts.CPU_TOKENS", 512)
    whole = run(HashLM(), settings(files), Cells(None, {}))
    path = tmp_path / "cells"
    with pytest.raises(KeyboardInterrupt):
        run(Broken(), settings(files), Cells(path, {"a": 1}))
    lm = HashLM()
    assert run(lm, settings(files), Cells(path, {"a": 1})) == whole
    full = HashLM()
    run(full, settings(files), Cells(None, {}))
    assert len(lm.calls) == len(full.calls) - 2


def test_a_loss_that_is_not_finite_is_refused(files):
    class Nan(FakeLM):
        def log_probs(self, windows, scored):
            return torch.full((len(windows), scored), math.nan)

    with pytest.raises(UserError, match="not finite"):
        run(Nan(), settings(files), Cells(None, {}))


@pytest.mark.parametrize("bos", [None, 1])
def test_loss_by_position_is_the_mean_over_the_bucket(files, bos):
    """HashLM's loss at a position p is known but for the token: 1 + hash + 5 / (p + 1)."""
    lm = HashLM(bos=bos)
    chosen = PositionLossSettings(group="g", sources=files, length=64, buckets=4)
    found = run_positions(lm, chosen, Cells(None, {}))
    assert [(row["from"], row["to"]) for row in found["rows"]] == [(0, 16), (16, 32), (32, 48), (48, 64)]
    sums, counts = [0.0] * 4, [0] * 4
    for file in files[:4]:
        ids = lm.encode(Path(file).read_text())
        room = 64 - (bos is not None)
        for start in range(0, len(ids) - room + 1, room):
            for at in range(64 - room if bos is not None else 1, 64):
                token = ids[start + at - (64 - room)]
                sums[at // 16] += 1 + token * 0.37 % 1 + 5 / (at + 1)
                counts[at // 16] += 1
    for row, total, n in zip(found["rows"], sums, counts):
        assert row["n"] == n and row["loss"] == pytest.approx(total / n, rel=1e-5)
        assert row["low"] < row["loss"] < row["high"]


def test_position_loss_takes_the_first_windows_of_every_document_first(files):
    chosen = PositionLossSettings(group="g", sources=files, length=64, most_windows=5)
    found = run_positions(HashLM(), chosen, Cells(None, {}))
    assert found["protocol"]["windows"] == 5 and len(found["summary"]["documents"]) == 4


def test_buckets_meet_and_none_is_empty():
    assert bucket_edges(16384, 16) == [1024 * i for i in range(17)]
    assert bucket_edges(20, 16)[:3] == [0, 2, 4] and bucket_edges(20, 16)[-1] == 20


def test_settings_are_frozen(files):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings(files).stride = 3
