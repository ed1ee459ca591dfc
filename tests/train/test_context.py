"""One window on several processes: the pieces are the window, and attention over them is attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import together
from torch.nn import functional as F

from ropewalk.errors import UserError
from ropewalk.train.context import ContextAttention, adopt, context_group, in_order, pieces_of, split
from ropewalk.train.loss import IGNORED
from ropewalk.train.ranks import begin, end


@given(st.integers(1, 40), st.integers(1, 5))
def test_the_shares_of_all_ranks_are_the_window_and_equally_long(length, parts):
    ids = torch.arange(2 * length).view(2, length)
    labels = torch.where(ids % length == length - 1, IGNORED, ids + 1)
    shares = [split({"input_ids": ids, "labels": labels}, part, parts) for part in range(parts)]
    assert len({share["labels"].shape for share in shares}) == 1
    found = {}
    for share in shares:
        for row in range(2):
            for place, one, label in zip(*(share[k][row] for k in ("position_ids", "input_ids", "labels"))):
                if label != IGNORED:
                    found[row, int(place)] = (int(one), int(label))
    wanted = {(r, t): (r * length + t, r * length + t + 1) for r in range(2) for t in range(length - 1)}
    assert found == wanted


@given(st.integers(1, 5), st.integers(1, 3))
def test_what_ranks_gather_is_put_in_the_order_of_the_window(parts, size):
    whole = torch.arange(2 * parts * size).view(1, 1, -1, 1)
    held = torch.stack(
        [torch.cat([whole.split(size, 2)[piece] for piece in pieces_of(p, parts)], 2) for p in range(parts)]
    )
    assert torch.equal(in_order(held), whole)


@given(st.integers(1, 20))
def test_causal_attention_is_the_same_work_on_every_rank(parts):
    """The n-th piece of a window sees n pieces before it and half of itself."""
    held = [pieces_of(part, parts) for part in range(parts)]
    assert sorted(piece for both in held for piece in both) == list(range(2 * parts))
    assert len({sum(both) for both in held}) == 1


def plain(query, key, value):
    return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def test_attention_of_two_processes_is_that_of_one_and_so_are_its_gradients(tmp_path):
    draw = torch.Generator().manual_seed(0)
    whole = [torch.randn(2, heads, 16, 4, generator=draw).requires_grad_() for heads in (4, 2, 2)]
    weight = torch.randn(2, 4, 16, 4, generator=draw)
    expected = plain(*whole)
    (expected * weight).sum().backward()

    def work():
        begin("cpu")
        attention = ContextAttention()
        attention.group = context_group(2)
        rank = torch.distributed.get_rank()
        pieces = [torch.arange(16).split(4)[piece] for piece in pieces_of(rank, 2)]
        here = torch.cat(pieces)
        mine = [tensor.detach()[:, :, here].clone().requires_grad_() for tensor in whole]
        found = attention(None, *mine, None)[0].transpose(1, 2)
        (found * weight[:, :, here]).sum().backward()
        torch.testing.assert_close(found, expected[:, :, here], atol=1e-6, rtol=1e-5)
        for tensor, one in zip(whole, mine):
            torch.testing.assert_close(one.grad, tensor.grad[:, :, here], atol=1e-6, rtol=1e-5)
        end()

    codes, said = together(work, 2, tmp_path / "log")
    assert codes == [0, 0], said


def model_of(**more):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=60, max_position_embeddings=64, **sizes, **more))


def test_a_model_whose_attention_is_another_is_refused():
    from transformers import MistralConfig, MistralForCausalLM

    adopt(model_of(), None)
    moving = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(UserError, match="cannot train rope type 'dynamic'"):
        adopt(model_of(rope_parameters=moving), None)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sliding = MistralConfig(vocab_size=60, num_key_value_heads=2, sliding_window=4, **sizes)
    with pytest.raises(UserError, match="plain causal attention alone; this model's has sliding_window"):
        adopt(MistralForCausalLM(sliding), None)
