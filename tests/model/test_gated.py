"""Gate and product in one kernel: the sums of the two it replaces; and where there is none.

The kernel runs on a Hopper card, else in Triton's interpreter where Triton is installed; torch for CPUs
comes without it.
"""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch.nn.functional import silu

from ropewalk.model.gated import gated, gated_product

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
TRITON = importlib.util.find_spec("triton") is not None


def test_on_a_cpu_there_is_none():
    weight = torch.zeros(64, 32, dtype=torch.bfloat16)
    assert gated_product(weight, silu) is None and gated_product(weight, torch.nn.SiLU()) is None


@pytest.mark.skipif(not TRITON, reason="no Triton")
@pytest.mark.parametrize(
    ("rows", "width", "inner"), [(300, 72, 96), (129, 576, 200), (7, 64, 64), (1, 40, 8)]
)
def test_it_gives_the_sums_of_the_two_kernels(rows, width, inner, monkeypatch):
    """Against float64 on the same 16-bit inputs, no further off than rounding; edges of tiles too."""
    if not HOPPER:
        monkeypatch.setenv("TRITON_INTERPRET", "1")  # read when the kernel's module is imported
    draw = torch.Generator().manual_seed(rows)
    device = "cuda" if HOPPER else "cpu"
    h = torch.randn(rows, width, generator=draw).half().to(device)
    weight = (torch.randn(2 * inner, width, generator=draw) / width**0.5).half().to(device)
    gate, up = (h.double() @ weight.double().t()).chunk(2, dim=-1)
    expected = silu(gate) * up
    assert float((gated(h, weight).double() - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.skipif(not HOPPER, reason="for Hopper cards")
def test_on_a_hopper_card_it_is_taken_for_silu_alone():
    weight = torch.randn(2 * 96, 72, device="cuda", dtype=torch.bfloat16)
    assert gated_product(weight, torch.nn.SiLU()) is gated and gated_product(weight, torch.nn.GELU()) is None
