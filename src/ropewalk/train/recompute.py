"""What the backward pass computes again: nothing, all of a layer but its attention, or all of it.

Of a layer that is computed again only the input is kept. At long windows attention is most of its arithmetic
and its output little of its memory, so that keeping the output too costs little and saves much: for
SmolLM2-135M at 32,768 tokens 1.2 KB a token and layer (of 30 KB that are kept otherwise) for four fifths of
what would be computed twice.

Compiled layers keep what attention and matrix products give, and no more: 12 KB. Norms, rotations and
activations are computed again inside the fused kernels that need them; left to itself the compiler keeps 18.
"""

from __future__ import annotations

import contextlib
import functools
import types
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

ATTENTION = [
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
]
"""The fused kernels of torch's scaled_dot_product_attention."""

PRODUCTS = [
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.baddbmm.default,
]
"""Matrix products, as they are inside what is compiled."""

attention_kept_of = functools.partial(create_selective_checkpoint_contexts, ATTENTION)
"""Contexts of a checkpoint that computes all again but attention."""

products_kept_of = functools.partial(create_selective_checkpoint_contexts, [*ATTENTION, *PRODUCTS])
"""Contexts of a checkpoint that computes all again but attention and matrix products."""


def recompute_layers(base: Any, *, attention_kept: bool) -> None:
    """Let a transformers model compute its layers again in the backward pass, with or without attention."""
    chosen: dict[str, Any] = {"use_reentrant": False}
    if attention_kept:
        chosen["context_fn"] = attention_kept_of
    if hasattr(base, "activation_checkpointing_enable"):  # the later versions' name for it
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=chosen)
    else:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=chosen)
    with contextlib.suppress(AttributeError):  # a hook that checkpoints of another kind need
        base.disable_input_require_grads()  # it would keep what frozen embeddings give, and its gradient


def compile_layers(base: Any, *, recompute: bool, attention_kept: bool) -> None:
    """Compile each layer of a transformers model; they share one graph.

    Layer by layer: inside a compiled whole, transformers cannot see that the mask is plainly causal, builds
    the dense L' x L' one, and the flash kernel is lost. What is to be computed again must lie inside what is
    compiled; only the forward of these layer objects is wrapped, parameters keep their names.
    recompute: all of a layer, or all but attention, instead of only what is neither attention nor product.
    """
    again = _all_but_attention if attention_kept else _all
    for layer in base.get_decoder().layers:
        layer.forward = types.MethodType(again if recompute else _all_but_products, layer)
        layer.compile(dynamic=False)


def _all(module: Any, *args: Any, **more: Any) -> Any:
    return checkpoint(type(module).forward, module, *args, use_reentrant=False, **more)


def _all_but_products(module: Any, *args: Any, **more: Any) -> Any:
    forward = type(module).forward
    return checkpoint(forward, module, *args, use_reentrant=False, context_fn=products_kept_of, **more)


def _all_but_attention(module: Any, *args: Any, **more: Any) -> Any:
    forward = type(module).forward
    return checkpoint(forward, module, *args, use_reentrant=False, context_fn=attention_kept_of, **more)
