"""Every committed recipe can be read and planned; the paper's own run on a model of its shape, made small."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path

import pytest

import ropewalk
from ropewalk.verbs.run import Run, arms_of, read_recipe

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted(path for path in (ROOT / "recipes").rglob("*.yaml"))
PAPER = {
    (size, window): path
    for path in RECIPES
    for size in ("7b", "13b", "33b", "65b")
    for window in (8, 16, 32)
    if path.name == f"llama-{size}-{window}k.yaml"
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A random LLaMA with the first one's window and base, very small."""
    sys.path.insert(0, str(ROOT / "tests" / "train"))
    try:
        from tiny_llama import write_tiny_model
    finally:
        sys.path.pop(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    path = tmp_path_factory.mktemp("llama") / "tiny"
    return write_tiny_model(path, max_position_embeddings=2048, rope_parameters=rope)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.relative_to(ROOT / "recipes").as_posix())
def test_every_recipe_is_planned_without_its_model_or_its_texts(path, llama, tmp_path):
    made = ropewalk.run(recipe=path, data="texts", set=[f"model={llama}"], out=tmp_path / "o", dry_run=True)
    recipe = read_recipe(Run(recipe=path, data="texts"))
    assert sum(step.startswith("fine-tune") for step in made["steps"]) == len(arms_of(recipe))
    assert not (tmp_path / "o").exists()


def test_the_papers_runs_have_its_rates_batches_and_steps():
    """Section 3.1: 2e-5 for 7B and 13B, 1e-5 above; batch 64 for 7B, 13B and 33B to 8,192, else 128."""
    assert len(PAPER) == 12
    for (size, window), path in PAPER.items():
        recipe = read_recipe(Run(recipe=path))
        tuning = recipe.finetune
        assert recipe.to == window * 1024
        assert tuning["rate"] == (2e-5 if size in ("7b", "13b") else 1e-5)
        assert tuning["batch"] == (64 if window == 8 and size != "65b" else 128)
        assert (tuning["steps"], tuning["warmup"], recipe.evaluate["stride"]) == (1000, 20, 256)
        direct = [arm for arm in arms_of(recipe).values() if arm.method == "none"]
        assert [arm.finetune["steps"] for arm in direct] == ([10000] if window == 8 and size != "65b" else [])


@pytest.mark.parametrize(("size", "window"), sorted(PAPER))
def test_the_papers_runs_are_planned_on_the_papers_cards(size, window):
    """32 A100s for batch 64, 128 for batch 128; 7B and 13B fit, the larger ones by what the plan says."""
    recipe = read_recipe(Run(recipe=PAPER[size, window]))
    batch = recipe.finetune["batch"]
    cards = {"card": "a100", "gpus": 32 if batch == 64 else 128}
    made = ropewalk.plan(f"llama-{size}", to=recipe.to, batch=batch, steps=recipe.finetune["steps"], **cards)
    assert made["parameters"] == pytest.approx(
        {"7b": 6.7e9, "13b": 13e9, "33b": 32.5e9, "65b": 65e9}[size], 0.01
    )
    assert made["tokens"] == 1000 * batch * recipe.to
    assert made["fits"] or (size in ("33b", "65b") and made["what_would_fit"])


def test_the_papers_run_walks_on_a_model_of_its_shape_scaled_down(llama, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"Line {i} says {i * 7919 % 1000}.\n" for i in range(700)))
    small = {
        "model": llama,
        "to": "4k",
        "finetune.data": f"[{text}]",
        "finetune.steps": 1,
        "finetune.batch": 1,
        "finetune.parallel": "auto",
        "arms": "[{method: linear}]",
        "evaluate.perplexity": f"[books={text}]",
        "evaluate.contexts": "[512]",
        "evaluate.windows": 1,
        "evaluate.passkey": "false",
        "evaluate.benchmark": "false",
        "by_steps": "{at: []}",
    }
    made = ropewalk.run(
        recipe=PAPER["7b", 8],
        out=tmp_path / "out",
        set=[f"{name}={value}" for name, value in small.items()],
        arms=("pi-4096",),
        device="cpu",
        report=False,
    )
    assert made["steps"][-1] == "evaluate llama-7b-pi-4096"
    result = json.loads((tmp_path / "out/results/llama-7b-pi-4096.perplexity.books.json").read_text())
    model = result["model"]
    assert (model["factor"], model["window"], model["original_window"]) == (2.0, 4096, 2048)
    assert model["trained"]["rate"] == 2e-5


@pytest.fixture
def gpu_recipes():
    path = ROOT / "recipes" / "paper" / "gpu.py"
    spec = importlib.util.spec_from_file_location("gpu_recipes", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pieces_run_side_by_side_each_on_its_own_gpu_and_are_packed_behind_each(
    gpu_recipes, tmp_path, monkeypatch
):
    """Two wait for each other, so both must run at once; a third takes the GPU that is free first."""
    code = (
        "import os, pathlib, sys, time; here = pathlib.Path(sys.argv[1]);"
        "(here / (sys.argv[2] + os.environ['CUDA_VISIBLE_DEVICES'])).touch();"
        "[time.sleep(0.01) for _ in range(2000) if len(list(here.glob('?[01]'))) < 2]"
    )
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    monkeypatch.setattr(
        gpu_recipes, "command", lambda piece, _: [sys.executable, "-c", code, str(meeting), piece[-1]]
    )
    settings = argparse.Namespace(gpus=2, work=tmp_path, out=tmp_path / "out")
    ends = gpu_recipes.walk_all(["16k:a", "16k:b", "16k:c"], settings, time.monotonic() + 15)
    assert {piece: end.split()[0] for piece, end in ends.items()} == dict.fromkeys(
        ("16k:a", "16k:b", "16k:c"), "done"
    )
    seen = sorted(path.name for path in meeting.iterdir())
    assert [name[0] for name in seen] == ["a", "b", "c"] and {seen[0][1], seen[1][1]} == {"0", "1"}
    assert (tmp_path / "out" / "results.tar.gz").exists()


def test_a_piece_past_the_time_is_stopped_and_the_rest_not_begun(gpu_recipes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        gpu_recipes, "command", lambda *_: [sys.executable, "-c", "import time; time.sleep(60)"]
    )
    settings = argparse.Namespace(gpus=1, work=tmp_path, out=tmp_path / "out")
    ends = gpu_recipes.walk_all(["16k:a", "16k:b"], settings, time.monotonic() + 0.5)
    assert list(ends) == ["16k:a"] and ends["16k:a"].startswith("stopped")
