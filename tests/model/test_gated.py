"""Gate and product in one kernel: the sums of the two it replaces; and where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import silu

from ropewalk.model.gated import gated, gated_product


def hopper() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def test_on_a_cpu_there_is_none():
    weight = torch.zeros(64, 32, dtype=torch.bfloat16)
    assert gated_product(weight, silu) is None and gated_product(weight, torch.nn.SiLU()) is None


@pytest.mark.skipif(not hopper(), reason="for Hopper cards")
@pytest.mark.parametrize(
    ("rows", "width", "inner"), [(300, 72, 96), (4096, 576, 1536), (7, 64, 64), (1, 40, 200)]
)
def test_it_gives_the_sums_of_the_two_kernels(rows, width, inner):
    """Against float64 on the same 16-bit inputs, no further off than their rounding; edges of tiles too."""
    draw = torch.Generator("cuda").manual_seed(rows)
    h = torch.randn(rows, width, generator=draw, device="cuda").bfloat16()
    weight = (torch.randn(2 * inner, width, generator=draw, device="cuda") / width**0.5).bfloat16()
    assert gated_product(weight, torch.nn.SiLU()) is gated and gated_product(weight, torch.nn.GELU()) is None
    gate, up = (h.double() @ weight.double().t()).chunk(2, dim=-1)
    expected = silu(gate) * up
    assert float((gated(h, weight) - expected).norm() / expected.norm()) < 3e-3
