"""Prompts of different lengths, each read alone and then answered side by side.

One token for one prompt keeps a GPU waiting for its own kernels; a batch costs hardly more. The keys and
values of each prompt are laid into one cache so that all end at the same place, and what stands in front
of the shorter ones is masked:

    prompt 1    · · · a b c d | next         positions of the next tokens: 4
    prompt 2    e f g h i j k | next                                      7

Keys were turned by their own prompts' positions when they were read, so nothing is computed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from .cache import ReservedLayer


@dataclass
class Ragged:
    """empty: (B,) int64, the places in front of each prompt that hold nothing."""

    empty: Tensor

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.empty = self.empty[rows]

    def arguments(self, before: int) -> dict[str, Tensor]:
        """What a model is told beside the next token of each row, ``before`` places being in the cache."""
        places = torch.arange(before + 1, device=self.empty.device)
        return {
            "attention_mask": (places >= self.empty[:, None]).long(),
            "position_ids": (before - self.empty)[:, None],
        }


def merged(caches: Sequence[Any], capacity: int) -> tuple[Cache, Ragged]:
    """One cache with room for ``capacity`` tokens from those of single prompts, which are emptied."""
    lengths = [cache.get_seq_length() for cache in caches]
    longest = max(lengths)
    layers: list[Any] = []
    for number in range(len(caches[0].layers)):
        parts = [cache.layers[number] for cache in caches]
        both = []
        for name in ("keys", "values"):
            first = getattr(parts[0], name)
            whole = first.new_zeros((len(parts), first.shape[1], longest, first.shape[3]))
            for row, (part, length) in enumerate(zip(parts, lengths)):
                whole[row, :, longest - length :] = getattr(part, name)[0]
            both.append(whole)
        for cache in caches:
            cache.layers[number] = None
        layer = ReservedLayer(capacity)
        layer.update(*both)
        layers.append(layer)
    empty = torch.tensor([longest - length for length in lengths], device=layers[0].keys.device)
    return Cache(layers=layers), Ragged(empty)
