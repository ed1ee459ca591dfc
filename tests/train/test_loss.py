"""The chunked cross-entropy is the full one: in value, in gradients, and inside every model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ropewalk.train.loss import IGNORED, LossModel, chunked_cross_entropy, plain_head, rows_per_chunk


def case(rows=37, words=50, width=8):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    head = nn.Linear(width, words, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(words, width, generator=generator))
    labels = torch.randint(words, (rows,), generator=generator)
    labels[::5] = IGNORED
    return hidden, labels, head


def value_and_gradients(loss, hidden, head):
    hidden.grad = head.weight.grad = None
    loss.backward()
    return loss.detach(), hidden.grad.clone(), head.weight.grad.clone()


@pytest.mark.parametrize("rows", [1, 7, 36, 37, 100])
def test_chunks_of_any_size_give_the_full_loss_and_its_gradients(rows):
    hidden, labels, head = case()
    full = F.cross_entropy(head(hidden), labels, ignore_index=IGNORED, reduction="sum")
    expected = value_and_gradients(full, hidden, head)
    found = value_and_gradients(chunked_cross_entropy(hidden, labels, head, rows), hidden, head)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_under_bf16_autocast_the_sum_is_float32_and_as_exact_as_without_chunks():
    hidden, labels, head = case(rows=400, words=1000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        full = F.cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="sum")
        expected = value_and_gradients(full, hidden, head)
        loss = chunked_cross_entropy(hidden, labels, head, 64)
        assert loss.dtype == torch.float32
        found = value_and_gradients(loss, hidden, head)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1], expected[1], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(found[2], expected[2], rtol=2e-2, atol=2e-2)


def test_no_chunk_of_logits_is_larger_than_asked():
    hidden, labels, head = case(rows=100)
    seen = []
    head.register_forward_hook(lambda _, __, output: seen.append(output.shape[0]))
    chunked_cross_entropy(hidden, labels, head, rows_per_chunk(50, limit=4 * 50 * 16)).backward()
    assert max(seen) == 16
    assert sum(seen) == 200  # forward, and once more in the backward pass


def tiny(family, **more):
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=60,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=64,
        pad_token_id=0,
        **more,
    )
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("family", "plain"),
    [("llama", True), ("qwen2", True), ("gemma2", False), ("cohere", False), ("granite", True)],
)
def test_the_loss_of_a_family_is_the_one_that_transformers_computes(family, plain):
    more = {"final_logit_softcapping": 0.5} if family == "gemma2" else {}
    model = tiny(family, **more)
    assert plain_head(model) is plain
    ids = torch.randint(60, (2, 20), generator=torch.Generator().manual_seed(1))
    labels = torch.full_like(ids, IGNORED)
    labels[:, :-1] = ids[:, 1:]
    expected = model(input_ids=ids, labels=ids, use_cache=False).loss
    wrapped = LossModel(model, own_head=plain, chunk_bytes=4 * 60 * 7)
    torch.testing.assert_close(wrapped(ids, labels)["loss"], expected, rtol=1e-5, atol=1e-6)
    halves = [wrapped(ids[i : i + 1], labels[i : i + 1], num_items_in_batch=38)["loss"] for i in (0, 1)]
    torch.testing.assert_close(sum(halves), expected, rtol=1e-5, atol=1e-6)


def test_tied_embeddings_get_the_gradient_of_both_their_uses():
    model = tiny("llama", tie_word_embeddings=True)
    ids = torch.randint(60, (1, 20), generator=torch.Generator().manual_seed(1))
    labels = torch.cat([ids[:, 1:], torch.full((1, 1), IGNORED)], 1)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    expected = model.get_input_embeddings().weight.grad.clone()
    model.zero_grad()
    LossModel(model, chunk_bytes=4 * 60 * 7)(ids, labels)["loss"].backward()
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, expected, rtol=1e-4, atol=1e-6)
