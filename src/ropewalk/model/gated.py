"""SiLU(x·Gᵀ) · (x·Uᵀ) in one Triton kernel: the two products never leave the chip.

As two steps, a matrix product writes 2·inner numbers a token and another kernel reads them and writes inner:
of SmolLM2-135M 9,216 bytes a token and layer more than what is written here (3,072). Both sums stay in
float32 until the result, which two steps round to 16 bits in between.

Needs Triton, a GPU with tensor memory access (Hopper and later) and shapes in whole blocks: see `fits`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS, COLUMNS, DEPTH = 128, 128, 64
"""A block: tokens, inner features, and input features at once."""


def fits(x: Tensor, weights: Tensor) -> bool:
    """Can `gated_product` compute this?"""
    return (
        x.is_cuda
        and torch.cuda.get_device_capability(x.device)[0] == 9
        and x.dtype in (torch.bfloat16, torch.float16)
        and len(x) % ROWS == 0
        and weights.shape[0] % (2 * COLUMNS) == 0
        and weights.shape[1] % DEPTH == 0
    )


def gated_product(x: Tensor, weights: Tensor) -> Tensor:
    """SiLU(x·Gᵀ) · (x·Uᵀ): (n, d), (2·inner, d) with G above U, both contiguous -> (n, inner)."""
    n, width = x.shape
    inner = len(weights) // 2
    out = torch.empty(n, inner, dtype=x.dtype, device=x.device)
    grid = (n // ROWS * (inner // COLUMNS),)
    _kernel[grid](
        TensorDescriptor.from_tensor(x, [ROWS, DEPTH]),
        TensorDescriptor.from_tensor(weights, [COLUMNS, DEPTH]),
        TensorDescriptor.from_tensor(out, [ROWS, COLUMNS]),
        inner, width, ROWS, COLUMNS, DEPTH,
    )  # fmt: skip
    return out


@triton.autotune([triton.Config({}, num_warps=8, num_stages=stages) for stages in (3, 4)], key=["width"])
@triton.jit
def _kernel(
    x, weights, out,
    inner: tl.constexpr, width: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One block of the result. Neighbours read the same tokens; the weights stay in the cache."""
    blocks: tl.constexpr = inner // COLUMNS
    row = tl.program_id(0) // blocks * ROWS
    column = tl.program_id(0) % blocks * COLUMNS
    gate = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    up = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for k in range(0, width, DEPTH):
        some = x.load([row, k])
        gate = tl.dot(some, weights.load([column, k]).T, gate)
        up = tl.dot(some, weights.load([inner + column, k]).T, up)
    out.store([row, column], (gate / (1 + tl.exp(-gate)) * up).to(out.dtype))
