"""Load: memory does not grow with a document, time not faster than the number of results files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import campaign_load
import pytest
from campaign_load import VOCABULARY, encode, packing, perplexity, results_folder, words

HERE = Path(__file__).parent


def grown(work, path: Path) -> tuple[float, dict]:
    """(most bytes that Python held above the start while ``work`` ran, what it returned)."""
    tracemalloc.start()
    try:
        found = work(path)
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_parts(monkeypatch):
    """Limits a hundredth of the real ones, so that a text of a hundredth meets them all."""
    from ropewalk.data import formats, mixture
    from ropewalk.data import windows as training
    from ropewalk.evals import texts

    for module, name, value in (
        (formats, "BLOCK", 1 << 14),
        (formats, "PART", 1 << 13),
        (texts, "IN_MEMORY", 1 << 15),
        (texts, "AT_ONCE", 1 << 13),
        (training, "PIECE", 1 << 12),
        (mixture, "SAMPLE", 1 << 12),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(campaign_load, "WINDOW", 512)


@pytest.mark.parametrize("work", [perplexity, packing])
def test_a_text_four_times_as_long_needs_no_more_memory(work, small_parts, tmp_path):
    work(words(tmp_path / "warm.txt", 2_000))  # imports and caches
    (short, _), (long, found) = (
        grown(work, words(tmp_path / f"{count}.txt", count)) for count in (15_000, 60_000)
    )
    assert long < 1.3 * short + 100_000, (short, long)
    if work is perplexity:
        assert abs(found["perplexity"] - VOCABULARY) < 0.01
        assert (found["n"], found["documents"]) == (59_999, 1)


def test_three_hundred_results_files_are_gathered_in_their_share_of_a_minute(tmp_path):
    from ropewalk.results.collection import collect
    from ropewalk.results.overview import overview
    from ropewalk.results.record import find_results, read_result
    from ropewalk.results.verdict import verdict

    folder = results_folder(tmp_path, 300)
    began = time.process_time()
    found = collect((path, read_result(path)) for path in find_results([folder]))
    assert verdict(found)["sentence"] and overview(found) is not None
    assert time.process_time() - began < 60 * 300 / 10_000 * 2  # twice the share: the machine is shared
    assert len(encode("w1 w2")) == 2


@pytest.mark.faults
@pytest.mark.timeout(7200)
def test_a_hundred_million_tokens_and_ten_thousand_results_files(tmp_path):
    out = Path(os.environ.get("ROPEWALK_FAULTS_OUT", tmp_path)) / "load.json"
    run = subprocess.run([sys.executable, str(HERE / "campaign_load.py"), "--out", str(out)])
    assert run.returncode == 0, json.loads(out.read_text())["problems"]
