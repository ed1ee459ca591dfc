"""act(gate) · up of one product, in one kernel: what lies between is neither written nor read again.

For each token of SmolLM2-135M the product gate_up gives 2 · 1,536 numbers, 6,144 bytes, which are written,
read once more by the gate, and are then 1,536. Here a program computes a tile of gate and the same tile of
up and writes what they make: 3,072 bytes. benchmarks/gated.py measures it beside the two kernels that it
replaces. Gate and up stay float32 until the end, where those two round them to 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

HOPPER = (9, 0)
TILE = (128, 64, 64)
"""Rows, columns of gate and of up, and the depth of one step."""
STAGES, WARPS = 3, 4


def gated_product(gate_up: Tensor, act: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """`gated` where it can be used and gives on a trial what it should, else None.

    It is for SiLU in 16 bits on Hopper cards, with Triton. gate_up: one of the weights it will be given.
    """
    inner, width = gate_up.shape[0] // 2, gate_up.shape[1]
    if gate_up.device.type != "cuda" or gate_up.dtype not in (torch.bfloat16, torch.float16):
        return None
    is_silu = act is silu or type(act).__name__ in ("SiLU", "SiLUActivation")
    if torch.cuda.get_device_capability(gate_up.device) != HOPPER or not is_silu or width % 8 or inner % 8:
        return None
    draw = torch.Generator(gate_up.device).manual_seed(0)
    h = torch.randn(300, width, generator=draw, device=gate_up.device).to(gate_up.dtype)
    gate, up = linear(h, gate_up).float().chunk(2, dim=-1)
    expected = silu(gate) * up
    try:
        from triton.errors import TritonError
    except ImportError:
        return None
    try:
        difference = gated(h, gate_up).float() - expected
    except (ImportError, RuntimeError, TritonError):  # too old a Triton, no compiler: two kernels can do it
        return None
    return gated if float(difference.norm()) <= 0.02 * float(expected.norm()) else None


def gated(
    h: Tensor,
    gate_up: Tensor,
    tile: tuple[int, int, int] = TILE,
    stages: int = STAGES,
    warps: int = WARPS,
) -> Tensor:
    """silu(h · gateᵀ) · (h · upᵀ): contiguous (n, d), (2·inner, d) on a CUDA device -> (n, inner)."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    from .gated_kernel import gated_tiles

    count, inner = len(h), gate_up.shape[0] // 2
    out = torch.empty((count, inner), dtype=h.dtype, device=h.device)
    rows, columns, depth = tile
    with torch.cuda.device_of(h):  # Triton launches on the current device
        gated_tiles[(-(-count // rows) * -(-inner // columns),)](
            TensorDescriptor.from_tensor(h, [rows, depth]),
            TensorDescriptor.from_tensor(gate_up, [columns, depth]),
            TensorDescriptor.from_tensor(out, [rows, columns]),
            inner, h.shape[1], rows, columns, depth, num_stages=stages, num_warps=warps,
        )  # fmt: skip
    return out
