"""docs/plan.md is in step with the measured runs, and the plan within its marks of each."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("plan_benchmark", ROOT / "benchmarks" / "plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_figures_of_the_files(benchmark):
    page = benchmark.PAGE.read_text(encoding="utf-8")
    assert benchmark.filled(page) == page
    assert "37.6" in page


def test_the_plan_is_within_its_marks_of_what_was_measured(benchmark):
    """15 % of the peak memory, 25 % of the time."""
    found = benchmark.lines()
    assert len(found) >= 4
    for one in found:
        assert one.memory_off is None or abs(one.memory_off) <= benchmark.MEMORY, one
        assert one.time_off is None or abs(one.time_off) <= benchmark.TIME, one


def test_a_file_of_the_training_benchmark_is_read_too(benchmark, tmp_path):
    row = {"way": "ropewalk", "window": 32768, "micro_batch": 1, "recompute": False, "compiled": False}
    row |= {"weights": "float32", "rows_of_logits": 1365, "tokens_a_second": 60000.0, "peak_gb": 33.0}
    lora = {"way": "LoRA", "rank": 8, "layers": 32, "trained": 8388608, "window": 131072, "tile": 8192}
    lora |= {"offload": False, "tokens_a_second": 2600.0, "peak_gb": 64.0}
    content = {"conditions": {"device": "NVIDIA H100 80GB HBM3", "tokens_a_step": 131072}}
    slower = {**row, "way": "ordinary, flash kernel"}
    content["rows"] = [row, {**row, "compiled": True, "peak_gb": 15.4}, slower, lora]
    (tmp_path / "training.json").write_text(json.dumps(content))
    found = benchmark.lines(tmp_path)
    assert [one.window for one in found] == [32768, 32768, 131072]
    assert all(abs(one.memory_off) < 0.05 for one in found[:2]) and 50e9 < found[2].planned_peak < 70e9
