"""Laws of the rotation: relative, norm-keeping, and the same in both layouts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.rope.rotate import half_split_order, rotary_table, rotate_half_split, rotate_interleaved
from ropewalk.rope.scaling import METHODS, scaled

F64 = torch.float64
HEADS = st.integers(2, 64).map(lambda half: 2 * half)
SEEDS = st.integers(0, 2**31)
ROTATE = {"half-split": rotate_half_split, "interleaved": rotate_interleaved}


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("layout", ROTATE)
@pytest.mark.parametrize("method", ["none", "linear", "yarn"])
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, d=HEADS, m=st.integers(0, 4096), n=st.integers(0, 4096), shift=st.integers(0, 100_000))
def test_a_score_depends_only_on_the_distance(layout, method, seed, d, m, n, shift):
    """<f(q, m), f(k, n)> = a(m − n)      (Chen et al. 2023, Eq. 2), before and after interpolation"""
    query, key = random(seed, 2, d)
    inv_freq, factor = scaled(method, d, 1e4, 2048, 8192, dtype=F64)

    def score(a: int, b: int) -> float:
        cos, sin = rotary_table(torch.tensor([a, b]), inv_freq, factor, dtype=F64, layout=layout)
        turned = ROTATE[layout](torch.stack((query, key)), cos, sin)
        return float(turned[0] @ turned[1])

    assert score(m, n) == pytest.approx(score(m + shift, n + shift), abs=1e-8)


@pytest.mark.parametrize("layout", ROTATE)
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, d=HEADS, start=st.integers(0, 100_000), k=st.sampled_from([1, 4, 32]))
def test_rotation_keeps_norms(layout, seed, d, start, k):
    x = random(seed, 3, 5, d)
    inv_freq = scaled("linear", d, 1e4, 2048, 2048 * k, dtype=F64).inv_freq
    cos, sin = rotary_table(start + torch.arange(5), inv_freq, dtype=F64, layout=layout)
    torch.testing.assert_close(ROTATE[layout](x, cos, sin).norm(dim=-1), x.norm(dim=-1))


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, d=HEADS, method=st.sampled_from(sorted(set(METHODS) - {"longrope"})))
def test_half_split_is_interleaved_after_the_permutation_bitwise(seed, d, method):
    x = random(seed, 7, d).float()
    inv_freq, factor = scaled(method, d, 1e4, 2048, 8192)
    positions = 1000 * torch.arange(7)
    order = half_split_order(d)
    half = rotate_half_split(x[:, order], *rotary_table(positions, inv_freq, factor, layout="half-split"))
    woven = rotate_interleaved(x, *rotary_table(positions, inv_freq, factor, layout="interleaved"))
    assert torch.equal(half, woven[:, order])
    assert torch.equal(half[:, order.argsort()], woven)


def test_position_zero_turns_nothing():
    x = random(0, 1, 16).float()
    cos, sin = rotary_table(torch.tensor([0]), scaled("linear", 16, 1e4, 64, 256).inv_freq)
    assert torch.equal(rotate_half_split(x, cos, sin), x)


def test_the_attention_factor_scales_scores_by_its_square():
    query, key = random(1, 2, 8)
    inv_freq = scaled("none", 8, 1e4, 64, 64, dtype=F64).inv_freq
    scores = []
    for factor in (1.0, 1.5):
        cos, sin = rotary_table(torch.tensor([5, 2]), inv_freq, factor, dtype=F64)
        turned = rotate_half_split(torch.stack((query, key)), cos, sin)
        scores.append(float(turned[0] @ turned[1]))
    assert scores[1] == pytest.approx(scores[0] * 1.5**2)


def test_a_table_has_positions_by_dimensions_and_the_asked_type():
    inv_freq = scaled("linear", 8, 1e4, 64, 256).inv_freq
    cos, sin = rotary_table(torch.arange(12).reshape(3, 4), inv_freq, dtype=torch.bfloat16)
    assert cos.shape == sin.shape == (3, 4, 8) and cos.dtype == torch.bfloat16
