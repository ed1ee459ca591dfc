"""Position Interpolation as the paper writes it: on the positions."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import UserError


def interpolate_positions(positions: Tensor, original: int, extended: int) -> Tensor:
    """Position Interpolation: squeeze positions [0, L') into the trained range [0, L).

    m -> m * L / L'      (Chen et al. 2023, arXiv:2306.15595, Eq. 4)

    positions: (..., T) token indices.  original: L, tokens.  extended: L', tokens, >= L.
    Returns float32 (..., T), every value < L when every m < L'; rounded once while L·L' < 2^53.
    Raises UserError (a ValueError) when L' < L: shrinking a window needs no interpolation.

    >>> interpolate_positions(torch.tensor([0, 4, 8]), original=2048, extended=8192)
    tensor([0., 1., 2.])
    """
    if original < 1 or extended < original:
        raise UserError(
            f"interpolation from L = {original} to L' = {extended} tokens: "
            "L' must be at least L, and L at least 1; shrinking a window needs no interpolation"
        )
    exact = positions.double() * original / extended  # m·L passes 2^24, the end of float32's integers
    squeezed = exact.float()
    limit = torch.tensor(float(original))
    below = torch.nextafter(limit, torch.tensor(0.0)).to(squeezed.device)
    # L − L/L' rounds up to L itself once L is near 2^20; such a position stays inside the window
    return torch.where(positions < extended, squeezed.minimum(below), squeezed)
