"""How likely are given tokens? Continuations of a prompt, each behind its cached beginning, or read whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .cache import back
from .decoding import keep

NONE = -1
"""Stands behind a continuation that is shorter than others."""


def padded(options: Sequence[Sequence[Sequence[int]]]) -> Tensor:
    """(B, n, m): n continuations for each of B prompts, `NONE` behind the shorter ones.

    >>> padded([[[5], [6, 7]]]).tolist()
    [[[5, -1], [6, 7]]]
    """
    most = max(len(ids) for row in options for ids in row)
    return torch.tensor([[[*ids, *[NONE] * (most - len(ids))] for ids in row] for row in options])


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each row in float32: (n, V), (n,) -> (n,)."""
    return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")


def behind(model: Any, end: Tensor, cache: Any, options: Tensor) -> Tensor:
    """log p of each option behind what is in the cache and ``end``; the cache is left as it was.

    end: (B, T), T >= 1.  options: (B, n, m), see `padded`.  Returns (B, n) float32.
    The cache needs room for T + m − 1 tokens.
    """
    known, found = cache.get_seq_length(), []
    for ids in options.to(end.device).unbind(1):
        there = ids.clamp(min=0)
        fed = torch.cat([end, there[:, :-1]], dim=1)
        out = model(input_ids=fed, past_key_values=cache, use_cache=True, **keep(model, ids.shape[1]))
        lost = losses(out.logits[:, -ids.shape[1] :].flatten(0, 1), there.flatten()).view(ids.shape)
        found.append(-(lost * (ids != NONE)).sum(-1))
        back(cache, known)
    return torch.stack(found, dim=1)


def read_whole(log_probs: Callable[[Tensor, int], Tensor], prompts: Tensor, options: Tensor) -> Tensor:
    """The same from `LanguageModel.log_probs`: every option is read with all of its prompt.

    prompts: (B, T).  options: (B, n, m).  Returns (B, n).
    """
    found = torch.empty(options.shape[:2])
    lengths = (options != NONE).sum(-1)
    for length in lengths.unique().tolist():
        rows, columns = (lengths == length).nonzero(as_tuple=True)
        windows = torch.cat([prompts[rows], options[rows, columns, :length]], dim=1)
        found[rows, columns] = log_probs(windows, length).sum(-1)
    return found
