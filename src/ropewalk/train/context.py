"""One window on several ranks: each holds two pieces of the tokens, attention fetches all keys and values.

With P ranks a window is cut into 2·P equal pieces, and rank r has the pieces r and 2·P − 1 − r: under a
causal mask every rank then has the same work. All but attention looks at one token at a time. Before each
attention the keys and values of all ranks are gathered, those of one layer at a time; queries stay where
they are (Llama Team 2024, arXiv 2407.21783, section 3.3.2). This takes any number of heads, and with few
key-value heads the gathered part is small.

torch's own `context_parallel` replaces F.scaled_dot_product_attention for the whole process, has no kernel
for the CPU, and accelerate's settings for it refuse the CPU too; what is here runs the same on both.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from ..errors import UserError
from .loss import IGNORED, plain_model

NAME = "ropewalk_context"
"""Under this name transformers finds the attention of this file."""

MOVING = ("dynamic", "longrope")
"""Rope types whose frequencies depend on the largest position at hand, which here differs by rank."""

OTHER = ("sliding_window", "softcap", "position_bias", "s_aux")
"""What transformers hands to attention that is not plainly causal."""


def pieces_of(part: int, parts: int) -> tuple[int, int]:
    """The two pieces of a window that rank ``part`` of ``parts`` holds, of 2·parts.

    >>> [pieces_of(part, 3) for part in range(3)]
    [(0, 5), (1, 4), (2, 3)]
    """
    return part, 2 * parts - 1 - part


def split(batch: dict[str, Tensor], part: int, parts: int) -> dict[str, Tensor]:
    """The share of rank ``part`` of ``parts`` in a micro-batch of plainly causal windows.

    batch: input_ids, labels (B, T), position_ids perhaps. Rows are filled up at their end to a multiple of
    2·parts tokens, unscored; causal attention does not see the filling. Returns (B, T') with position_ids.
    """
    length = batch["input_ids"].shape[1]
    positions = batch.get("position_ids")
    if positions is None:
        positions = torch.arange(length).expand_as(batch["input_ids"])
    more = -length % (2 * parts)
    rows = {
        "input_ids": F.pad(batch["input_ids"], (0, more)),
        "labels": F.pad(batch["labels"], (0, more), value=IGNORED),
        "position_ids": torch.cat([positions, positions[:, -1:].expand(-1, more)], dim=1),
    }
    first, second = pieces_of(part, parts)
    size = (length + more) // (2 * parts)
    return {
        name: torch.cat([row[:, first * size :][:, :size], row[:, second * size :][:, :size]], dim=1)
        for name, row in rows.items()
    }


def in_order(gathered: Tensor) -> Tensor:
    """(P, B, H, 2·S, D) as the ranks hold it -> (B, H, 2·P·S, D) in the order of the window."""
    parts, _, _, both, _ = gathered.shape
    halves = gathered.unflatten(3, (2, both // 2))
    places: list[Any] = [None] * (2 * parts)
    for part in range(parts):
        for half, piece in enumerate(pieces_of(part, parts)):
            places[piece] = halves[part, :, :, half]
    return torch.cat(places, dim=2)


class _Gather(torch.autograd.Function):
    """(…) on each rank of ``group`` -> (P, …) on all; the gradients of all come back summed."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, group: Any) -> Tensor:
        ctx.group = group
        parts = dist.get_world_size(group)
        found = mine.new_empty((parts * mine.shape[0], *mine.shape[1:]))
        dist.all_gather_into_tensor(found, mine.contiguous(), group=group)
        return found.unflatten(0, (parts, mine.shape[0]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        mine = torch.empty_like(gradient[0])
        dist.reduce_scatter_tensor(mine, gradient.flatten(0, 1).contiguous(), group=ctx.group)
        return mine, None


class ContextAttention:
    """What transformers calls for attention. group: the ranks that share a window; None: all is here.

    calls: how often it was called, from which `adopt` learns whether a model uses it at all.
    """

    def __init__(self) -> None:
        self.group: Any = None
        self.calls = 0

    def __call__(
        self,
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        **more: Any,
    ) -> tuple[Tensor, None]:
        """query: (B, H, T, D).   key, value: (B, H', T, D).   Returns (B, T, H, D), and no weights.

        Raises UserError for anything but plain causal attention.
        """
        self.calls += 1
        strange = [name for name in OTHER if more.get(name) is not None]
        if strange or attention_mask is not None:
            what = ", ".join(strange) or "a mask of its own"
            raise UserError(f"parallel context knows plain causal attention alone; this model's has {what}")
        device = query.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if self.group is None:
            return _causal(query, key, value, scaling, dropout).transpose(1, 2), None
        key, value = in_order(_Gather.apply(torch.cat([key, value]), self.group)).chunk(2)
        part, parts = dist.get_rank(self.group), dist.get_world_size(self.group)
        size = query.shape[2] // 2
        found = []
        for piece, queries in zip(pieces_of(part, parts), query.split(size, dim=2)):
            end = (piece + 1) * size
            found.append(_causal(queries, key[:, :, :end], value[:, :, :end], scaling, dropout))
        return torch.cat(found, dim=2).transpose(1, 2), None


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
    """Attention of the last queries to all keys before and at each: (B, H, T, D)."""
    groups = query.shape[1] // key.shape[1]
    if query.dtype == torch.float32 and groups > 1:  # no kernel but flash shares keys among heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        groups = 1
    bias: Any = causal_lower_right(query.shape[2], key.shape[2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a CPU: why it is not flash attention
        return F.scaled_dot_product_attention(
            query, key, value, bias, dropout_p=dropout, scale=scaling, enable_gqa=groups > 1
        )


def context_group(parts: int) -> Any:
    """The group of this rank: neighbouring ranks, ``parts`` of them, share a window."""
    group, _ = dist.new_subgroups(parts)
    return group


@torch.no_grad()
def adopt(model: Any, group: Any) -> None:
    """Let ``model`` compute its attention here, once it is shown that this gives what its own gives.

    Raises UserError: its attention is another one, or it does not let itself be replaced.
    """
    from transformers import AttentionInterface

    base = plain_model(model)
    config = base.config.get_text_config()
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind in MOVING:
        raise UserError(
            f"parallel context cannot train rope type {kind!r}: its frequencies follow the window"
        )
    ids = (torch.arange(8) * 7919 % config.vocab_size)[None].to(next(base.parameters()).device)
    training = base.training
    base.eval()
    before = base(input_ids=ids, use_cache=False).logits
    attention = ContextAttention()
    AttentionInterface.register(NAME, attention)
    try:
        base.set_attn_implementation(NAME)
        after = base(input_ids=ids, use_cache=False).logits
    except ValueError as error:
        raise UserError(f"parallel context: {' '.join(str(error).split())[:200]}") from None
    base.train(training)
    same = torch.allclose(before, after, rtol=1e-2, atol=1e-2 * float(before.abs().max()))
    if attention.calls != config.num_hidden_layers or not same:
        raise UserError(
            f"parallel context does not know the attention of a {type(base).__name__}; "
            "train with --parallel fsdp and a smaller --window"
        )
    attention.group = group
