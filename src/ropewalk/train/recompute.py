"""What the backward pass computes again: nothing, all of a layer but its attention, or all of it.

Of a layer that is computed again only the input is kept. At long windows attention is most of its arithmetic
and its output little of its memory, so that keeping the output too costs little and saves much: for
SmolLM2-135M at 32,768 tokens 1.2 KB a token and layer (of 30 KB that are kept otherwise) for four fifths of
what would be computed twice.

Eager layers do this by torch's selective checkpoints, compiled ones by the compiler's own choice, which is
told how much it may keep.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.checkpoint import create_selective_checkpoint_contexts

ATTENTION = [
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
]
"""The fused kernels of torch's scaled_dot_product_attention."""

PAYS_FROM = 1e15
"""Tokens × parameters from which compiling a training pays. On an H100 it takes some ten seconds, and takes
a quarter to a third off the 90 of a training of SmolLM2-135M of this size (docs/speed.md)."""

KEPT_ALL, KEPT_SOME = 1.0, 0.1
"""Shares of what a compiled layer would keep by itself that it may keep. With the second, attention is
computed twice (on a GPU at 0.6 too)."""


def recompute_layers(base: Any, *, attention_kept: bool) -> None:
    """Let a transformers model compute its layers again in the backward pass, with or without attention."""
    chosen: dict[str, Any] = {"use_reentrant": False}
    if attention_kept:
        chosen["context_fn"] = functools.partial(create_selective_checkpoint_contexts, ATTENTION)
    if hasattr(base, "activation_checkpointing_enable"):  # the later versions' name for it
        base.activation_checkpointing_enable(activation_checkpointing_kwargs=chosen)
    else:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs=chosen)


def compile_layers(base: Any) -> None:
    """Compile each layer of a transformers model; they share one graph.

    Layer by layer: inside a compiled whole, transformers cannot see that the mask is plainly causal, builds
    the dense L' x L' one, and the flash kernel is lost.
    """
    for layer in base.get_decoder().layers:
        layer.compile(dynamic=False)


@contextlib.contextmanager
def compiling(*, recompute: bool) -> Iterator[None]:
    """Inside, compiled layers keep for the backward pass what the compiler chooses, or much less.

    What was compiled before is not looked up by its Python code: that leaves out which attention kernel was
    asked for. Where compiling fails (no C compiler), layers run as they are.
    """
    share = KEPT_SOME if recompute else KEPT_ALL
    keeping = torch._functorch.config.patch(activation_memory_budget=share, enable_autograd_cache=False)
    with keeping, torch._dynamo.config.patch(suppress_errors=True):
        yield


def compiled() -> bool:
    """Has anything been compiled in this process?"""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
