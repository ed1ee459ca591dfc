"""The attention kernel a training really runs on: each is tried on one forward and backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..model.attention import fastest


def fastest_training(model: Any, rows: int, length: int, bf16: bool) -> tuple[str, dict[str, float]]:
    """(the fastest right kernel, seconds of each) for the decoder of ``model``, forward and backward.

    model: on its GPU, in training mode, with its activation checkpointing already chosen.
    rows, length: the shape of a micro-batch. Gradients are left empty; weights do not change.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = base.get_decoder()
    device = next(base.parameters()).device
    vocabulary = base.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (rows, length), generator=generator).to(device)

    def run() -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            hidden: Tensor = decoder(input_ids=ids, use_cache=False)[0]
        hidden.float().square().mean().backward()
        return hidden.detach()

    try:
        return fastest(run)
    finally:
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def fastest_alone(config: Any, rows: int, length: int) -> tuple[str, dict[str, float]]:
    """(the fastest right kernel, seconds of each) for one layer's attention by itself, on random states.

    config: transformers' configuration of the model, of which the heads' number and size are taken. For a
    model that does not lie on this GPU in whole. In bfloat16, forward and backward.
    """
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    key_heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    states = [
        torch.randn(rows, heads, length, size, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads in (text.num_attention_heads, key_heads, key_heads)
    ]

    def run() -> Tensor:
        query, key, value = states
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        found.sum().backward()
        return found.detach()

    return fastest(run)
