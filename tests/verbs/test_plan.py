"""`plan` reads configs alone, says what fits and what would, and agrees with what finetune chooses."""

from __future__ import annotations

import json

import pytest

import ropewalk
from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.model.known import SIZES, known_config
from ropewalk.model.shape import empty_model, shape_of
from ropewalk.train.cards import find_card
from ropewalk.train.memory import choose, parts
from ropewalk.verbs.finetune import Finetune, _room


def test_a_known_shape_has_the_parameters_that_the_paper_names():
    """LLaMA 7B and 65B: 6.7 and 65.2 billion (Touvron et al. 2023, table 2); LoRA on q, k, v, o: 2·r·4D."""
    found = ropewalk.plan("llama-7b", to=32768)
    assert found["parameters"] == 6_738_415_616
    assert found["lora_parameters"] == 32 * 4 * 8 * (4096 + 4096)
    assert found["tokens"] == 1000 * 64 * 32768
    assert ropewalk.plan("LLaMA-65B", to=8192)["parameters"] == 65_285_660_672


@pytest.mark.parametrize("name", SIZES)
def test_the_formula_counts_what_the_model_has(name):
    """Layers by their matrices and norms, embeddings once or twice."""
    config = known_config(name)
    shape = shape_of(config)
    layer = shape.attention_weights + shape.inner_weights + 2 * shape.hidden
    count = shape.layers * layer + shape.hidden + shape.head_weights * (1 if shape.tied else 2)
    config["num_hidden_layers"] = 1
    one = sum(p.numel() for p in empty_model(config).parameters())
    assert count == one + (shape.layers - 1) * layer


def test_a_bare_config_is_enough_and_no_weight_is_needed(tmp_path):
    file = tmp_path / "small" / "config.json"
    file.parent.mkdir()
    file.write_text(json.dumps(known_config("smollm2-135m")))
    of_file = ropewalk.plan(str(file), to=16384)
    of_directory = ropewalk.plan(str(file.parent), to=16384)
    of_name = ropewalk.plan("smollm2-135m", to=16384)
    assert of_file["ways"] == of_directory["ways"] == of_name["ways"]
    assert of_file["model"] == of_directory["model"] == "small"


def test_the_plan_is_what_finetune_would_choose():
    config = known_config("smollm2-135m")
    for window, rows in ((16_384, 8), (32_768, 4), (65_536, 2), (131_072, 1)):
        found = ropewalk.plan("smollm2-135m", to=window)
        memory = found["card"]["mebibytes"] << 20
        sizes = {"parameters": found["parameters"], "trained": found["parameters"], "length": window}
        asked = next(one for one in found["ways"] if one["way"] == found["asked"])
        more = {"rows": rows, "memory": memory, "recompute": None, "compiled": asked["compiled"]}
        micro, recompute = choose(config, **sizes, **more)
        assert (asked["micro_batch"], asked["recompute"]) == (micro, recompute)


@pytest.mark.parametrize(
    ("window", "gpus", "batch"),
    [(16384, 3, 64), (32768, 8, 12), (16384, 8, 64), (65536, 4, 8), (8192, 4, 64)],
)
def test_on_several_cards_plan_and_finetune_do_the_same(tmp_path, monkeypatch, window, gpus, batch):
    """Copies, parts of the weights or of the windows; how many rows at once, what is computed twice."""
    import torch

    memory = find_card("H100").memory
    (tmp_path / "config.json").write_text(json.dumps(known_config("llama-2-7b")))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (memory, memory))
    monkeypatch.setenv("WORLD_SIZE", str(gpus))
    found = ropewalk.plan("llama-2-7b", to=window, gpus=gpus, batch=batch)
    asked = next(one for one in found["ways"] if one["way"] == found["asked"])
    settings = Finetune(model=str(tmp_path), out="out", data=("stdlib",), batch=batch)
    spread, load = _room(settings, tmp_path, found["parameters"], window, batch, "cuda")
    assert (asked["context"], asked["cards"] != "whole copies") == (spread.context, spread.sharded)
    chosen = {"micro_batch": load.rows, "recompute": load.recompute, "attention_kept": load.attention_kept}
    assert {key: asked[key] for key in chosen} == chosen
    assert sum(parts(shape_of(known_config("llama-2-7b")), load).values()) == asked["peak_bytes"]


def test_what_does_not_fit_comes_with_what_would(capsys):
    found = ropewalk.plan("llama-2-7b", to=32768)
    said = capsys.readouterr().out
    assert not found["fits"] and found["exit_code"] == 1
    assert any("--lora" in cure for cure in found["what_would_fit"])
    assert "4 × H100" in found["what_would_fit"] and "layers' inputs on the host does not fit" in said
    assert ropewalk.plan("llama-2-7b", to=32768, gpus=4)["fits"]
    assert ropewalk.plan("llama-2-7b", to=32768, lora=True)["fits"]


def test_parts_sum_to_the_peak_and_times_to_the_whole(capsys):
    found = ropewalk.plan("llama-3-8b", to=65536, lora=True, gpus=2, card="H200", steps=200)
    for one in found["ways"]:
        assert sum(one["bytes"].values()) == one["peak_bytes"]
        assert sum(one["seconds_of"].values()) == pytest.approx(one["seconds_a_step"])
        assert one["seconds"] == pytest.approx(200 * one["seconds_a_step"])
    kept, again = found["ways"][2:]
    assert again["peak_bytes"] < kept["peak_bytes"] and again["seconds"] > kept["seconds"]
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_twice_the_window_is_more_than_twice_the_time_of_the_same_number_of_windows():
    times = [ropewalk.plan("llama-2-7b", to=to, batch=8)["ways"][0]["seconds"] for to in (8192, 16384)]
    assert 2 * times[0] < times[1] < 4 * times[0]


def test_json_has_the_same_numbers(capsys):
    assert main(["--json", "plan", "smollm2-135m", "--to", "32k"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["window"] == 32768 and found["ways"][0]["fits"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "llama-2-7b", "card": "h999"}, "card is 'h999'; known: H100"),
        ({"model": "llama-2-7b", "gpus": 0}, "gpus is 0; at least 1"),
        ({"model": "no-such-model"}, "no such model"),
    ],
)
def test_what_means_nothing_is_refused(settings, words):
    with pytest.raises(UserError, match=words):
        ropewalk.plan(**settings)


def test_half_a_million_tokens_on_one_card_with_adapters_and_the_host_s_memory(capsys):
    """The mark of arXiv 2506.13996; the layers' inputs: 32 layers × 4,096 numbers of 2 bytes a token."""
    found = ropewalk.plan("llama-3-8b", to=524_288, lora=True)
    assert found["fits"]
    said = " ".join(capsys.readouterr().out.split())
    assert f"{32 * 4096 * 2 * 524_288 / 1e9:.1f} GB of the host's memory" in said
