"""The inverse frequencies of rotary position embedding, and what can be read off them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UserError


class Scaled(NamedTuple):
    """What a method makes of a rotation: the table is cos/sin(position · inv_freq) · attention_factor."""

    inv_freq: Tensor
    """(d/2,) radians per token, j = 0 … d/2 − 1."""
    attention_factor: float
    """Multiplies cos and sin alike, so it scales an attention score by its square; 1 for most methods."""


def scale_factor(original: int, extended: int, factor: float | None = None) -> float:
    """k: the factor given, else L'/L.

    Raises UserError for L < 1, L' < L or k < 1: these methods lengthen windows.
    """
    if original < 1 or extended < original:
        raise UserError(
            f"window from L = {original} to L' = {extended} tokens: L' must be at least L, L at least 1"
        )
    k = extended / original if factor is None else float(factor)
    if not (math.isfinite(k) and k >= 1):
        raise UserError(f"factor {k:g}: must be a finite number >= 1 (the new window over the old one)")
    return k


def exponents(d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """2j/d for j = 0 … d/2 − 1: (d/2,).

    d: rotary dimensions of a head (head size × partial rotary factor), even, >= 2.
    Raises UserError for an odd or non-positive d.
    """
    if d < 2 or d % 2:
        raise UserError(f"rotary dimension d = {d}: RoPE turns pairs of dimensions; d must be even and >= 2")
    return torch.arange(0, d, 2, dtype=dtype) / d


def powers(d: int, base: float | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """base^(2j/d), the inverses of the frequencies: (d/2,).

    base: θ base (the paper's c), > 1; the wavelengths run from 2π to nearly 2π·base tokens.
    In float32 every operation is the one transformers does, in its order, so that tables agree bit for bit.
    """
    if not (math.isfinite(base) and base > 1):
        raise UserError(
            f"rope base {float(base):g}: must be a finite number > 1 (10000 in LLaMA, 500000 in Llama 3)"
        )
    return base ** exponents(d, dtype)


def inverse_frequencies(d: int, base: float | Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """θ_j = base^(−2j/d)      (Su et al. 2021, arXiv:2104.09864, Eq. 15; Chen et al. 2023, Eq. 1)

    Returns (d/2,), from 1 downwards, radians per token. dtype float64 gives the reference values.

    >>> inverse_frequencies(4, 10000.0)
    tensor([1.0000, 0.0100])
    """
    return 1.0 / powers(d, base, dtype)


def wavelengths(inv_freq: Tensor) -> Tensor:
    """λ_j = 2π/θ_j, tokens for one full turn      (the λ of Peng et al. 2023, arXiv:2309.00071): (d/2,)."""
    return 2 * math.pi / inv_freq


def turns(inv_freq: Tensor, window: int) -> Tensor:
    """r_j = L/λ_j, turns completed inside a window of L tokens      (the r of the same paper): (d/2,).

    Below 1, training never showed the model every angle of that pair of dimensions:
    positions past the window are then angles it has not seen.
    """
    return window * inv_freq / (2 * math.pi)
