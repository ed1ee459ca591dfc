"""The feed-forward part in tiles of the sequence: its wide activations exist for one tile at a time.

For T tokens the gate, its activation, the other branch and their product take 8·I·T bytes in bf16, and as
much again for their gradients: 23 GB for Llama-2-7B at 131,072 tokens, in one layer. No token's feed-forward
part looks at another token, so the sequence is cut; each tile is dropped and computed again in the backward
pass (Arctic Long Sequence Training's tiled MLP, arXiv 2506.13996). Exact but for the order of sums in the
weights' gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def tile_feed_forward(model: Any, tokens: int) -> int:
    """Make every decoder layer's ``mlp`` work on at most ``tokens`` tokens at once; how many were changed.

    Only the forward of those module objects is wrapped: parameters keep their names, so checkpoints do not
    change. Sequences of at most ``tokens`` tokens, and work without gradients, go through whole.
    Layers whose mlp is not a function of single tokens' states alone (it returns more than one tensor, as
    mixtures of experts do) are left as they are.
    """
    assert tokens > 0, tokens
    changed = 0
    for layer in model.get_decoder().layers:
        part = getattr(layer, "mlp", None)
        if part is None or hasattr(part, "experts"):
            continue
        part.forward = tiled(part.forward, tokens)
        changed += 1
    return changed


def tiled(forward: Callable[[Tensor], Tensor], tokens: int) -> Callable[[Tensor], Tensor]:
    """``forward`` on slices of at most ``tokens`` of a (B, T, D) input along T, joined again."""

    def call(hidden: Tensor) -> Tensor:
        if hidden.shape[1] <= tokens or not torch.is_grad_enabled():
            return forward(hidden)
        return torch.cat(
            [checkpoint(forward, part, use_reentrant=False) for part in hidden.split(tokens, dim=1)], dim=1
        )

    return call
