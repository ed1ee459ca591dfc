"""Next-token cross-entropy that never holds the full logits, inside one module that any wrapper can wrap.

For T tokens and V words the logits in float32 take 4·T·V bytes: 20 GB at T = 32,768 and V = 152,064,
several times over with their gradient. Here the output head is applied to some rows at a time; the rows'
logits are dropped and computed again in the backward pass (gradient checkpointing), so that memory is
that of one chunk. The value is exact: the same sum, in float32, in another order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

IGNORED = -100
"""The label of a position that is not scored."""

CHUNK_BYTES = 256 << 20
"""Logits of one chunk in float32, at most; when all logits are smaller, nothing is computed twice."""


def rows_per_chunk(vocabulary: int, limit: int = CHUNK_BYTES) -> int:
    """Rows of float32 logits over ``vocabulary`` words that fit ``limit`` bytes, at least one."""
    return max(1, limit // (4 * vocabulary))


def chunked_cross_entropy(
    hidden: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    rows: int,
    chunk: Callable[..., Tensor] | None = None,
) -> Tensor:
    """The sum of -log p(label) over all rows whose label is not `IGNORED`: float32, no dimensions.

    hidden: (N, D).   labels: (N,) int64.   head: (n, D) -> (n, V) logits.   rows: rows at once, >= 1.
    chunk: computes a chunk's sum from (hidden, labels, head); None for the plain way.
    """
    chunk = chunk or _cross_entropy
    if len(labels) <= rows:
        return chunk(hidden, labels, head)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(labels), rows):
        part, wanted = hidden[start : start + rows], labels[start : start + rows]
        if torch.is_grad_enabled():
            total = total + checkpoint(chunk, part, wanted, head, use_reentrant=False)
        else:
            total = total + chunk(part, wanted, head)
    return total


def _cross_entropy(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    return F.cross_entropy(head(hidden).float(), labels, ignore_index=IGNORED, reduction="sum")


class LossModel(nn.Module):
    """A causal language model whose forward is its training loss: what the Trainer trains.

    The loss lies inside this forward because DDP and FSDP work on the module they wrap: calling parts
    of a wrapped model from outside gives parameters that are not gathered. Saving goes through
    ``.model``, so that checkpoints are plain transformers ones.

    own_head: is log p the softmax of head(decoder(x)) and nothing else? Found by `plain_head`; models
    that cap or scale their logits compute their own loss.
    offload: what is kept for the backward pass (recomputed layers: their inputs) waits in the host's memory.
    compiled: torch.compile a chunk's loss, which then makes no float32 copy of the logits.
    """

    accepts_loss_kwargs = True
    main_input_name = "input_ids"

    def __init__(
        self,
        model: Any,
        own_head: bool = True,
        chunk_bytes: int = CHUNK_BYTES,
        offload: bool = False,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.own_head = own_head
        self.chunk_bytes = chunk_bytes
        self.offload = offload
        self._chunk = torch.compile(_cross_entropy, dynamic=False) if compiled else None

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor,
        position_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """``{"loss": sum over scored positions / num_items_in_batch}``; without that number, their mean.

        input_ids: (B, T).   labels: (B, T), already shifted: labels[:, t] is what follows input_ids[:, t].
        position_ids: (B, T) or None for 0, 1, 2 ...   attention_mask: (B, T) of ones, or None.
        """
        count = num_items_in_batch if num_items_in_batch is not None else (labels != IGNORED).sum()
        inputs: dict[str, Any] = {"input_ids": input_ids, "use_cache": False}
        if position_ids is not None:
            inputs["position_ids"] = position_ids
        if attention_mask is not None:
            inputs["attention_mask"] = attention_mask
        aside = save_on_cpu(pin_memory=input_ids.is_cuda) if self.offload else contextlib.nullcontext()
        with aside:
            return {"loss": self._sum(inputs, labels) / count}

    def _sum(self, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        """The sum of -log p over all scored positions."""
        base = plain_model(self.model)
        if not self.own_head:
            logits = base(**inputs).logits
            return F.cross_entropy(
                logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
        hidden = base.get_decoder()(**inputs)[0]
        head = base.get_output_embeddings()
        rows = rows_per_chunk(base.config.get_text_config().vocab_size, self.chunk_bytes)
        if self._chunk is not None:  # whole tiles, and few lengths to compile for
            rows = rows // 256 * 256 or rows
        return chunked_cross_entropy(hidden.flatten(0, 1), labels.flatten(), head, rows, self._chunk)


def plain_model(model: Any) -> Any:
    """The transformers model itself, out of its LoRA wrapper where it has one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@torch.no_grad()
def plain_head(model: Any) -> bool:
    """Are the model's logits exactly head(decoder(x))? Asked of the model itself, with eight tokens.

    False for models that cap their logits (gemma2), scale them (cohere, granite), or have no such parts.
    """
    base = plain_model(model)
    try:
        decoder, head = base.get_decoder(), base.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return False
    if decoder is None or head is None or decoder is base:
        return False
    device = next(base.parameters()).device
    vocabulary = base.config.get_text_config().vocab_size
    ids = (torch.arange(8, device=device) * 7919 % vocabulary)[None]
    ours = head(decoder(input_ids=ids, use_cache=False)[0])
    theirs = base(input_ids=ids, use_cache=False).logits
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
