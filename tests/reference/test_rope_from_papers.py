"""ropewalk.rope against the float64 reference written from the papers."""

from __future__ import annotations

import pytest
import rope_papers as papers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.rope.rotate import half_split_order, rotary_table, rotate_half_split, rotate_interleaved
from ropewalk.rope.scaling import scaled

HEADS = st.sampled_from([4, 8, 20, 32, 64, 96, 128, 256])
BASES = st.sampled_from([1e4, 1e5, 5e5, 1e6]) | st.floats(500, 1e7)
FACTORS = st.sampled_from([1.0, 2.0, 4.0, 8.0, 16.0]) | st.floats(1, 64)
WINDOWS = st.sampled_from([256, 512, 2048, 4096, 8192, 131072])


def close(got: torch.Tensor, expected: list[float], dtype: torch.dtype, grows: float = 1.0) -> None:
    """grows: how far float32's rounding grows: by k where a method mixes θ and θ/k, or k·s/L and k − 1."""
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6 * grows
    assert got.dtype == dtype
    torch.testing.assert_close(
        got.double(), torch.tensor(expected, dtype=torch.float64), rtol=tolerance, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=40, deadline=None)
@given(d=HEADS, base=BASES, k=FACTORS, window=WINDOWS)
def test_every_method_gives_the_frequencies_of_its_paper(dtype, d, base, k, window):
    def ours(method, **more):
        return scaled(method, d, base, window, 64 * window, factor=k, dtype=dtype, **more).inv_freq

    close(ours("none"), papers.plain(d, base), dtype)
    close(ours("linear"), papers.linear(d, base, k), dtype)
    close(ours("ntk"), papers.ntk(d, base, k), dtype)
    for length in (window // 2, window, window + 1, 3 * window):
        close(ours("dynamic", length=length), papers.dynamic(d, base, k, window, length), dtype, grows=k)
    close(ours("llama3"), papers.llama3(d, base, k, window, 1, 4), dtype, grows=k)
    close(
        ours("llama3", low_freq_factor=2, high_freq_factor=5),
        papers.llama3(d, base, k, window, 2, 5),
        dtype,
        grows=k,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@settings(max_examples=40, deadline=None)
@given(
    d=HEADS,
    base=BASES,
    k=FACTORS,
    window=WINDOWS,
    betas=st.sampled_from([(32.0, 1.0), (16.0, 2.0), (40.0, 0.5)]),
)
def test_yarn_gives_the_frequencies_and_the_temperature_of_its_paper(dtype, d, base, k, window, betas):
    fast, slow = betas
    ours = scaled("yarn", d, base, window, 64 * window, factor=k, dtype=dtype, beta_fast=fast, beta_slow=slow)
    expected, temperature = papers.yarn(d, base, k, window, fast, slow)
    close(ours.inv_freq, expected, dtype, grows=k)
    assert ours.attention_factor == pytest.approx(temperature, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(d=HEADS, base=BASES, data=st.data())
def test_longrope_divides_each_frequency_by_its_own_factor_and_by_the_long_one_past_the_window(d, base, data):
    lists = st.lists(st.floats(0.5, 64), min_size=d // 2, max_size=d // 2)
    short, long = data.draw(lists), data.draw(lists)
    for length, used in ((None, short), (4096, short), (4097, long), (8192, long)):
        ours = scaled(
            "longrope",
            d,
            base,
            4096,
            131072,
            dtype=torch.float64,
            short_factor=short,
            long_factor=long,
            length=length,
        )
        close(ours.inv_freq, papers.longrope(d, base, used), torch.float64)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    m=st.integers(0, 100_000),
    n=st.integers(0, 100_000),
    d=st.sampled_from([4, 10, 64]),
    layout=st.sampled_from(["half-split", "interleaved"]),
)
def test_the_score_of_rotated_query_and_key_is_equation_2_of_the_paper(seed, m, n, d, layout):
    generator = torch.Generator().manual_seed(seed)
    query, key = torch.randn(2, d, generator=generator, dtype=torch.float64)
    inv_freq = scaled("linear", d, 1e4, 2048, 8192, dtype=torch.float64).inv_freq
    expected = papers.score(query.tolist(), key.tolist(), m, n, papers.linear(d, 1e4, 4.0))
    cos, sin = rotary_table(torch.tensor([m, n]), inv_freq, dtype=torch.float64, layout=layout)
    pair = torch.stack((query, key))
    if layout == "half-split":
        turned = rotate_half_split(pair[:, half_split_order(d)], cos, sin)
    else:
        turned = rotate_interleaved(pair, cos, sin)
    assert float(turned[0] @ turned[1]) == pytest.approx(expected, abs=1e-8)
