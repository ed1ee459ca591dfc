"""Adapters: what is trained, that tied embeddings stay tied, that merged and adapted give the same."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from tiny_llama import write_tiny_model

from ropewalk.model.load import load_model, load_state
from ropewalk.train.keeping import Keeper
from ropewalk.train.lora import add_adapter, load_adapter, merge, save_adapter, without_casts
from ropewalk.train.trainer import Watch
from ropewalk.verbs.finetune import finetune

SMALL = {"steps": 6, "batch": 2, "warmup": 1, "rate": 5e-2, "save_every": 4, "device": "cpu", "lora": True}
IDS = torch.arange(40)[None] * 7 % 250


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def disturb(model):
    """Give every trained weight another value, as training would."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)


def test_only_attention_is_adapted_and_it_begins_as_the_model_itself(tiny_model):
    plain = load_model(tiny_model)
    expected = logits(plain)
    model = add_adapter(plain, rank=4, embeddings=False)
    trained = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("embeddings", [True, False], ids=["with-embeddings", "attention-only"])
def test_inputs_as_they_are_change_no_bit_of_loss_and_gradients(tiny_model, embeddings):
    """From 16 bits to float32 and back is no change."""
    found = []
    for bare in (False, True):
        torch.manual_seed(0)
        model = add_adapter(load_model(tiny_model, dtype="bfloat16"), rank=4, embeddings=embeddings)
        disturb(model)
        inside = without_casts(model) if bare else contextlib.nullcontext()
        with inside, torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model.eval()(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        found.append([loss, *(p.grad for p in model.parameters() if p.requires_grad)])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(("dtype", "cast"), [("bf16", False), ("float32", True)])
def test_a_training_in_16_bits_gives_adapters_their_inputs_as_they_are(
    tiny_model, texts, tmp_path, monkeypatch, dtype, cast
):
    seen = set()
    real = Watch.on_step_end

    def look(self, *args, **more):
        seen.update(m.cast_input_dtype_enabled for m in self.trainer.model.modules() if hasattr(m, "lora_A"))
        return real(self, *args, **more)

    monkeypatch.setattr(Watch, "on_step_end", look)
    finetune(str(tiny_model), str(tmp_path / "out"), data=(str(texts),), dtype=dtype, **SMALL)
    assert seen == {cast}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("embeddings", [True, False], ids=["with-embeddings", "attention-only"])
def test_an_adapter_read_back_and_a_merged_one_give_the_same_logits(tmp_path, tied, embeddings):
    source = write_tiny_model(tmp_path / "source", tie_word_embeddings=tied)
    model = add_adapter(load_model(source), rank=4, embeddings=embeddings)
    before = logits(model)
    disturb(model)
    expected = logits(model)
    assert (expected - before).abs().max() > 1e-2
    save_adapter(model, tmp_path / "adapter")
    again = add_adapter(load_model(source), rank=4, embeddings=embeddings)
    load_adapter(again, tmp_path / "adapter" / "adapter_model.safetensors")
    assert torch.equal(logits(again), expected)
    merged = merge(model, torch.float32)
    torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)
    assert merged.config.tie_word_embeddings is tied
    assert (merged.lm_head.weight is merged.model.embed_tokens.weight) is tied
    merged.save_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("embeddings", [True, False], ids=["with-embeddings", "attention-only"])
def test_a_lora_training_resumes_bitwise_and_its_output_is_merged_with_the_adapter_inside(
    tiny_model, texts, tmp_path, monkeypatch, capsys, embeddings
):
    def run(out):
        data = (str(texts),)
        return finetune(str(tiny_model), str(out), data=data, lora_embeddings=embeddings, **SMALL)

    run(tmp_path / "whole")
    also = "; embed_tokens, input_layernorm, norm, post_attention_layernorm whole" if embeddings else ""
    trained = 1_792 + (4_128 + 80 if embeddings else 0)
    said = f"LoRA of rank 8 on k_proj, o_proj, q_proj, v_proj{also}: {trained:,} parameters are trained"
    assert said in capsys.readouterr().out

    def die(self, args, state, control, **_):
        if state.global_step == 5:
            raise RuntimeError("the process dies here")

    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_end", die)
        with pytest.raises(RuntimeError):
            run(tmp_path / "out")
    assert Keeper(tmp_path / ".out.training").newest().name == "checkpoint-4"
    run(tmp_path / "out")
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    out = tmp_path / "out"
    assert load_state(out) == load_state(out / "adapter") == load_state(tiny_model)
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["r"] == 8
    adapted = add_adapter(load_model(tiny_model), rank=8, embeddings=embeddings)
    load_adapter(adapted, out / "adapter" / "adapter_model.safetensors")
    torch.testing.assert_close(logits(adapted), logits(load_model(out)), rtol=1e-4, atol=1e-4)
    assert (logits(adapted) - logits(load_model(tiny_model))).abs().max() > 0.05
