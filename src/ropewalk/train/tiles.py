"""What looks at single tokens, in tiles of the sequence: its wide activations exist for one tile at a time.

For T tokens the gate, its activation, the other branch and their product take 8·I·T bytes in bf16, and as
much again for their gradients: 23 GB for Llama-2-7B at 131,072 tokens, in one layer. A norm's float32 copies
take 8·D·T, twice a layer. No token's feed-forward part or norm looks at another token, so the sequence is
cut; each tile is dropped and computed again in the backward pass (Arctic Long Sequence Training's tiled MLP,
arXiv 2506.13996). Exact but for the order of sums in the weights' gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def tile_layers(model: Any, tokens: int) -> int:
    """Make feed-forward parts and norms work on at most ``tokens`` tokens at once; how many were changed.

    Of the decoder's layers: their ``mlp`` and their norms; and the norm behind the last of them. Only the
    forward of those module objects is wrapped: parameters keep their names, so checkpoints do not change.
    Sequences of at most ``tokens`` tokens, and work without gradients, go through whole.
    A layer's mlp that is not a function of single tokens' states alone (it returns more than one tensor, as
    mixtures of experts do) is left as it is.
    """
    assert tokens > 0, tokens
    decoder = model.get_decoder()
    parts = [part for layer in decoder.layers for part in layer.children() if _is_norm(part)]
    parts += [part for part in decoder.children() if _is_norm(part)]
    parts += [
        layer.mlp for layer in decoder.layers if hasattr(layer, "mlp") and not hasattr(layer.mlp, "experts")
    ]
    for part in parts:
        part.forward = tiled(part.forward, tokens)
    return len(parts)


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.lower().endswith("norm")


def tiled(forward: Callable[..., Tensor], tokens: int) -> Callable[..., Tensor]:
    """``forward`` on slices of at most ``tokens`` of a (B, T, D) input along T, joined again.

    Whole where there is no T to cut, or another input beside it.
    """

    def call(hidden: Tensor, *others: Any, **more: Any) -> Tensor:
        whole = hidden.dim() != 3 or hidden.shape[1] <= tokens or others or more
        if whole or not torch.is_grad_enabled():
            return forward(hidden, *others, **more)
        return torch.cat(
            [checkpoint(forward, part, use_reentrant=False) for part in hidden.split(tokens, dim=1)], dim=1
        )

    return call
