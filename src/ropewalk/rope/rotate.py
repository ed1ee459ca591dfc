"""The rotation itself: cos and sin by position, applied in the two layouts that checkpoints use.

A head of d dimensions is d/2 complex numbers; pair j turns by m·θ_j at position m.
half-split   (LLaMA in transformers, GPT-NeoX): pair j is dimensions (j, j + d/2)
interleaved  (RoFormer, GPT-J, Cohere, Meta's own LLaMA files): pair j is dimensions (2j, 2j + 1)
The same model in the other layout is the same numbers in another order: see `half_split_order`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Layout = Literal["half-split", "interleaved"]


def rotary_table(
    positions: Tensor,
    inv_freq: Tensor,
    attention_factor: float = 1.0,
    dtype: torch.dtype = torch.float32,
    layout: Layout = "half-split",
) -> tuple[Tensor, Tensor]:
    """cos(m·θ_j)·f and sin(m·θ_j)·f for every position m      (Su et al. 2021, arXiv:2104.09864, Eq. 34)

    positions: (..., T), whole or fractional.  inv_freq: (d/2,); the angles are computed in its dtype,
    float32 as transformers does or float64 as a reference.  dtype: of the result.
    Returns (cos, sin), each (..., T, d): every frequency twice, where `layout` puts the two of a pair.
    """
    angles = positions[..., None].to(inv_freq.dtype) * inv_freq
    angles = (
        torch.cat((angles, angles), dim=-1) if layout == "half-split" else angles.repeat_interleave(2, dim=-1)
    )
    return (angles.cos() * attention_factor).to(dtype), (angles.sin() * attention_factor).to(dtype)


def rotate_half_split(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (x_j, x_{j+d/2}): x·cos + (−second half, first half)·sin.

    x: (..., T, d).  cos, sin: (..., T, d) from `rotary_table` in the half-split layout.
    """
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def rotate_interleaved(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs (x_{2j}, x_{2j+1})      (Su et al. 2021, Eq. 34)

    x: (..., T, d).  cos, sin: (..., T, d) from `rotary_table` in the interleaved layout.
    """
    turned = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    return x * cos + turned * sin


def half_split_order(d: int) -> Tensor:
    """The permutation p with half_split = interleaved[..., p]: (0, 2, 4, …, 1, 3, 5, …), (d,) int64.

    Applied to the rows of a query or key projection it moves a checkpoint from the interleaved to the
    half-split layout; its inverse (`argsort`) moves it back. Attention scores do not change,
    because queries and keys are permuted alike.

    >>> half_split_order(6)
    tensor([0, 2, 4, 1, 3, 5])
    """
    return torch.cat((torch.arange(0, d, 2), torch.arange(1, d, 2)))
