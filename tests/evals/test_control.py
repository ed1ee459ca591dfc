"""Samples of windows corrected by a pass with a short context: exact where it tells all, else honest."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeLM

from ropewalk.evals import control
from ropewalk.evals.perplexity import PerplexitySettings, run
from ropewalk.evals.texts import Text
from ropewalk.metrics.perplexity import Stratum, slopes
from ropewalk.metrics.windows import windows
from ropewalk.results.cells import Cells

SHORT = 256
"""Tokens in a window of the pass: 16 strides of 16."""


class Passages(FakeLM):
    """Each character has its difficulty; a long context takes off ``worth`` and adds ``noise`` of its own."""

    def __init__(self, noise=0.0, worth=0.3, **more):
        super().__init__(**more)
        self.noise, self.worth = noise, worth

    def log_probs(self, windows, scored):
        self.calls.append((*windows.shape, scored))
        ids = windows[:, -scored:].double()
        if windows.shape[1] <= SHORT:
            return -(1 + ids / 20).float()
        chance = torch.tensor([random.Random(str(row.tolist())).gauss(0, 1) for row in windows])[:, None]
        return -(1 + (1 - self.worth) * ids / 20 + self.noise * chance).float()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three documents in passages of 40 to 120 characters, hard ones and easy ones."""
    place, draw = tmp_path_factory.mktemp("texts"), random.Random(0)
    for i, passages in enumerate((40, 60, 25)):
        texts = [chr(draw.randint(35, 120)) * draw.randint(40, 120) for _ in range(passages)]
        (place / f"{i}.txt").write_text("".join(texts))
    return tuple(sorted(str(path) for path in place.iterdir()))


def row(lm, files, **more):
    given = {"contexts": (512,), "stride": 16, "sample": 0.1, **more}
    (found,) = run(lm, PerplexitySettings(group="g", sources=files, **given), Cells(None, {}))["rows"]
    return found


@pytest.mark.parametrize("bos", [None, 1])
def test_where_the_short_context_tells_all_a_sample_gives_the_exact_value(files, bos):
    exact = row(Passages(bos=bos), files, sample=None)
    assert not exact["sampled"] and "control" not in exact
    found = row(Passages(bos=bos), files)
    assert found["control"] == SHORT and found["windows"] < exact["windows"] / 5
    assert found["loss"] == pytest.approx(exact["loss"], rel=1e-6)
    assert found["sample_high"] - found["sample_low"] < 1e-4 * exact["perplexity"]


def test_the_interval_holds_the_exact_value_as_often_as_it_says_and_is_far_narrower(files, monkeypatch):
    lm = Passages(noise=0.3)
    exact = row(lm, files, sample=None)["perplexity"]
    seeds = range(20)
    corrected = [row(lm, files, seed=seed) for seed in seeds]
    monkeypatch.setattr(control, "pays", lambda *_: False)
    plain = [row(lm, files, seed=seed) for seed in seeds]
    assert sum(r["sample_low"] <= exact <= r["sample_high"] for r in corrected) >= 16  # 19 expected
    spread = [
        math.sqrt(np.mean([(r["perplexity"] / exact - 1) ** 2 for r in rs])) for rs in (corrected, plain)
    ]
    assert spread[0] < spread[1] / 2
    assert plain[0]["control"] is None


def test_windows_of_the_pass_share_two_strides(files):
    lm = Passages()
    row(lm, files)
    short = [(batch, scored) for batch, length, scored in lm.calls if length == SHORT]
    tokens = [len(Path(file).read_text()) for file in files]
    assert sum(batch for batch, _ in short) == sum(1 + math.ceil((n - SHORT) / (SHORT - 32)) for n in tokens)


@pytest.mark.parametrize("bos", [None, 1])
def test_what_the_pass_knows_are_sums_over_the_tokens_that_a_window_scores(bos):
    """Against a plain walk over the pass's windows, of a document whose last block is short."""

    class Tokens(FakeLM):
        def log_probs(self, windows, scored):
            return -(windows[:, -scored:].float() + torch.arange(windows.shape[1] - scored, windows.shape[1]))

    n, stride, context = 1003, 16, 300
    ids = torch.randint(2, 50, (n,), generator=torch.Generator().manual_seed(0))
    lm, text = Tokens(bos=bos), Text("t", ids)
    every = windows("sliding", n, context, stride, bos is not None)
    (found,) = control.known(lm, [text], [every], context, stride, "g", Cells(None, {}))
    room = SHORT - (bos is not None)
    loss, places = np.zeros(n), np.zeros(n)
    stop, scored_to = min(room, n), 0
    while scored_to < n:
        for i in range(scored_to, stop):
            place = i - (stop - room)
            loss[i], places[i] = float(ids[i]) + place + (bos is not None), math.log(place + 1)
        scored_to, stop = stop, min(n, stop + SHORT - 32)
    for row, window in zip(found, list(every)[1:], strict=True):
        scored = slice(window.first_scored, window.stop)
        assert row == pytest.approx([loss[scored].sum(), places[scored].sum()])


def test_the_pass_is_made_where_it_is_worth_its_price():
    assert control.pays(0.02, 2048, 256) and control.pays(0.02, 8192, 256)
    assert not control.pays(0.5, 1024, 256)  # reading all costs two passes
    assert not control.pays(0.001, 8192, 256)  # thirty times the sample would be better spent on samples


def test_slopes_are_those_of_least_squares_within_strata_and_zero_when_too_few_were_read():
    draw = np.random.default_rng(0)
    known = [draw.normal(size=(n, 2)) for n in (30, 50)]
    losses = [x @ [2.0, -1.0] + 5 * i for i, x in enumerate(known)]
    strata = [Stratum(y.tolist(), [16] * len(y), 2 * len(y), 32 * len(y)) for y in losses]
    assert slopes(strata, known) == pytest.approx([2, -1])
    few = [Stratum(s.loss[:4], s.tokens[:4], s.windows, s.all_tokens) for s in strata]
    assert slopes(few, [x[:4] for x in known]).tolist() == [0, 0]
