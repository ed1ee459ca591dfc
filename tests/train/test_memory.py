"""The plan's memory is what a real training step keeps, counted from outside on a small model."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from live_tensors import Live, kept_for_backward

from ropewalk.model.compiling import compiling
from ropewalk.model.shape import Shape, shape_of
from ropewalk.train.lora import add_adapter, without_casts
from ropewalk.train.loss import LossModel, plain_model
from ropewalk.train.memory import (
    SAVINGS,
    Load,
    choose,
    fits,
    layer_bytes,
    least,
    longest,
    need,
    parts,
    saved,
)
from ropewalk.train.recompute import compile_layers, recompute_layers
from ropewalk.train.tiles import tile_layers

LENGTH = 509
AS_IN_TRAINING = contextlib.ExitStack()
"""What stays open for every model built here: adapters' inputs as they are in a training."""
SMOLLM2 = Shape(576, 30, 1536, 9, 3, 64, 49152, True, 32768)
LLAMA = Shape(4096, 32, 11008, 32, 32, 128, 32000, False, 4096)
LLAMA_PARAMETERS = 6_738_415_616


def build(
    layers: int = 2,
    lora: bool = False,
    recompute: bool = False,
    attention_kept: bool = False,
    tile: int = 0,
    bf16: bool = True,
):
    """(loss model, its shape) of a random Llama, as `finetune` would prepare it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=288,
        hidden_size=96,
        intermediate_size=208,
        num_hidden_layers=layers,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    if lora:
        model = add_adapter(model.to(torch.bfloat16) if bf16 else model, rank=2, embeddings=False)
        if bf16:
            AS_IN_TRAINING.enter_context(without_casts(model))
    base = plain_model(model.train())
    if recompute:
        recompute_layers(base, attention_kept=attention_kept)
    if tile:
        tile_layers(base, tile)
    rows = 64 if tile else LENGTH  # so that a layer is more than the loss
    return LossModel(model, chunk_bytes=4 * 288 * rows), shape_of(config.to_dict())


def step(model: LossModel, bf16: bool = True):
    ids = torch.arange(LENGTH)[None] % 288
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        return model(ids, ids)["loss"]


@pytest.mark.parametrize("again", [False, True])
def test_nothing_waits_for_gradients_that_nobody_wants(again):
    """Frozen embeddings give no leaf whose gradient is kept, also where layers are computed twice."""
    model, _ = build(2, lora=True, recompute=again)
    embeddings, seen = plain_model(model.model).get_input_embeddings(), []
    embeddings.register_forward_hook(lambda module, args, out: seen.append(out.requires_grad))
    step(model).backward()
    assert seen == [False]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("bf16", [True, False])
def test_a_layer_s_bytes_are_what_autograd_keeps_of_it(lora, bf16):
    """Two layers' difference to three, so that embeddings and loss fall away."""
    kept = []
    for layers in (2, 3):
        model, shape = build(layers, lora=lora, bf16=bf16)
        kept.append(kept_for_backward(lambda model=model: step(model, bf16), LENGTH))
    load = Load(100, 1 if lora else 100, LENGTH, dtype="bf16" if bf16 else "float32")
    expected = sum(layer_bytes(shape, load))
    rank = 4 * 4 * 2 if lora else 0  # what the adapters' own narrow products keep, which the plan leaves out
    assert abs((kept[1] - kept[0]) / LENGTH - expected) <= rank + 0.01 * expected


@pytest.mark.slow
def test_a_compiled_layer_s_bytes_are_what_autograd_keeps_of_it():
    """In bf16 on a CPU, where the compiler has the same choice as on a GPU; of layers of a usual size."""
    kept = []
    for layers in (2, 3):
        torch._dynamo.reset()
        model, shape = build(layers)
        compile_layers(model.model, recompute=False, attention_kept=False)
        with compiling():
            kept.append(kept_for_backward(lambda model=model: step(model), LENGTH))
    expected = sum(layer_bytes(shape, Load(100, 100, LENGTH, compiled=True)))
    assert (kept[1] - kept[0]) / LENGTH == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("lora", "form"),
    [
        (False, {}),
        (False, {"recompute": True}),
        (False, {"recompute": True, "attention_kept": True}),
        (True, {}),
        (True, {"recompute": True}),
        (True, {"recompute": True, "attention_kept": True}),
        (True, {"recompute": True, "tile": 64}),
        (False, {"recompute": True, "tile": 64}),
    ],
)
def test_the_sum_is_the_peak_of_the_tensors_alive_in_a_step(lora, form):
    """Of a second micro-batch, whose gradients add to the first's; within 10 %."""
    model, shape = build(5, lora=lora, **form)
    step(model).backward()
    weights = list(model.parameters())
    with Live([*weights, *(p.grad for p in weights if p.grad is not None)]) as live:
        step(model).backward()
    trained = sum(p.numel() for p in weights if p.requires_grad)
    total = sum(p.numel() for p in weights) - (trained if lora else 0)
    rows = 64 if "tile" in form else 0
    found = parts(shape, Load(total, trained, LENGTH, logits=rows, **form))
    lasting = found["weights"] + found["gradients"] + found["optimizer"]
    assert sum(found.values()) - lasting == pytest.approx(live.peak, rel=0.10)


def test_the_sum_is_what_one_h100_took():
    """SmolLM2-135M by hand, chunks of 8,192 rows of logits instead of 1,365: 37.6 GB at 32,768 tokens."""
    found = parts(SMOLLM2, Load(134_515_008, 134_515_008, 32_768))
    logits = found["loss and gradients under way"]
    assert sum(found.values()) - logits + 12 * 8192 * 49152 == pytest.approx(37.6e9, rel=0.05)


@given(st.integers(1, 64), st.booleans(), st.booleans(), st.sampled_from([1, 2, 8]))
def test_more_tokens_take_more_and_recomputing_shards_and_adapters_take_less(units, recompute, lora, shards):
    trained = 8_000_000 if lora else LLAMA_PARAMETERS
    load = Load(LLAMA_PARAMETERS, trained, 1024 * units, recompute=recompute, shards=shards)
    assert need(LLAMA, replace(load, length=load.length + 1024)) > need(LLAMA, load)
    assert need(LLAMA, replace(load, recompute=True)) <= need(LLAMA, load)
    assert need(LLAMA, replace(load, shards=2 * shards)) <= need(LLAMA, load) * 1.2
    assert need(LLAMA, replace(load, trained=8_000_000)) <= need(LLAMA, load)


@given(st.integers(1, 800), st.booleans(), st.integers(8, 160))
def test_a_saving_is_the_first_that_fits_and_the_last_when_none_does(units, lora, gib):
    trained = 8_000_000 if lora else LLAMA_PARAMETERS
    load = Load(LLAMA_PARAMETERS, trained, 1024 * units, recompute=True)
    forms = [replace(load, **saving) for saving in SAVINGS]
    fitting = [form for form in forms if fits(LLAMA, form, gib << 30)]
    assert saved(LLAMA, load, gib << 30) == (fitting[0] if fitting else forms[-1])
    needs = [need(LLAMA, form) for form in forms]
    assert need(LLAMA, least(load)) == min(needs) <= need(LLAMA, load)


def test_the_longest_window_fits_and_the_next_does_not():
    load = Load(LLAMA_PARAMETERS, 8_000_000, 1, recompute=True)
    found = longest(LLAMA, load, 80 << 30)
    assert found % 256 == 0 and found > 65_536
    assert fits(LLAMA, replace(load, length=found), 80 << 30)
    assert not fits(LLAMA, replace(load, length=found + 256), 80 << 30)
    assert longest(LLAMA, Load(LLAMA_PARAMETERS, LLAMA_PARAMETERS, 1, recompute=True), 80 << 30) == 0


def test_rows_at_once_are_no_more_than_keep_the_card_busy():
    config = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 6, "vocab_size": 288}
    sizes = {"parameters": 500_000, "trained": 500_000, "recompute": None, "rows": 64}
    assert choose(config, **sizes, length=2048, memory=80 << 30) == (16, False)


@pytest.mark.parametrize(
    ("bf16", "lora", "limit"),
    [(True, True, 0.03), pytest.param(True, False, 0.05, marks=pytest.mark.slow), (False, True, 0.1)],
)
def test_in_tiles_a_7b_s_proportions_take_what_the_plan_says(bf16, lora, limit):
    """Three layers of hidden 128, inner 344, eight heads of 16; tiles of 64 of 4,096 tokens. With adapters
    in 16 bits that is 27 bytes for each token and number of the hidden state (docs/speed.md)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    length, tile = 4096, 64
    sizes = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "vocab_size": 64}
    config = LlamaConfig(**sizes, num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True)
    model = LlamaForCausalLM(config)
    if lora:
        model = add_adapter(model.to(torch.bfloat16) if bf16 else model, rank=2, embeddings=False)
    base = plain_model(model.train())
    recompute_layers(base, attention_kept=False)
    tile_layers(base, tile)
    loss, ids = LossModel(model, chunk_bytes=4 * 64 * tile), torch.arange(length)[None] % 64
    with without_casts(model, "bf16" if bf16 else "float32"):
        weights = list(model.parameters())
        for _ in range(2):
            watched = Live([*weights, *(p.grad for p in weights if p.grad is not None)])
            with watched, torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                loss(ids, ids)["loss"].backward()
    trained = sum(p.numel() for p in weights if p.requires_grad)
    total = sum(p.numel() for p in weights) - (trained if lora else 0)
    form = {"recompute": True, "tile": tile, "logits": tile, "dtype": "bf16" if bf16 else "float32"}
    found = parts(shape_of(config.to_dict()), Load(total, trained, length, **form))
    planned = sum(found.values()) - found["weights"] - found["gradients"] - found["optimizer"]
    assert planned == pytest.approx(watched.peak, rel=limit)
    if bf16 and lora:
        assert watched.peak / length / 128 == pytest.approx(27.0, abs=0.1)
