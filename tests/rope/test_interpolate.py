"""Position Interpolation on positions, and its agreement with scaled frequencies."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.rope.frequencies import inverse_frequencies
from ropewalk.rope.interpolate import interpolate_positions
from ropewalk.rope.rotate import rotary_table
from ropewalk.rope.scaling import scaled

HEADS = st.integers(1, 64).map(lambda half: 2 * half)


def equal_tables(first, second) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second))


@settings(max_examples=50, deadline=None)
@given(d=HEADS, window=st.integers(8, 600), k=st.integers(1, 32))
def test_position_km_interpolated_by_k_is_position_m_unscaled_bitwise(d, window, k):
    """(km)·L/(kL) = m exactly, for every whole k, so the rotation is the trained one."""
    inv_freq = inverse_frequencies(d, 10000.0)
    squeezed = interpolate_positions(torch.arange(window) * k, window, k * window)
    assert equal_tables(rotary_table(squeezed, inv_freq), rotary_table(torch.arange(window), inv_freq))


@settings(max_examples=50, deadline=None)
@given(d=HEADS, window=st.integers(8, 600), power=st.integers(0, 5))
def test_scaling_positions_equals_scaling_frequencies_bitwise_for_powers_of_two(d, window, power):
    k = 2**power
    positions = torch.arange(k * window)
    by_positions = rotary_table(
        interpolate_positions(positions, window, k * window), inverse_frequencies(d, 1e4)
    )
    by_frequencies = rotary_table(positions, scaled("linear", d, 1e4, window, k * window).inv_freq)
    assert equal_tables(by_positions, by_frequencies)


@settings(max_examples=50, deadline=None)
@given(d=HEADS, window=st.integers(8, 600), k=st.floats(1, 20))
def test_scaling_positions_equals_scaling_frequencies_for_any_factor(d, window, k):
    extended = max(window, int(window * k))
    positions = torch.arange(extended)
    squeezed = interpolate_positions(positions, window, extended)
    by_positions = rotary_table(squeezed, inverse_frequencies(d, 1e4, torch.float64), dtype=torch.float64)
    inv_freq = scaled("linear", d, 1e4, window, extended, dtype=torch.float64).inv_freq
    by_frequencies = rotary_table(positions, inv_freq, dtype=torch.float64)
    # the squeezed positions are float32: off by at most half a unit in the last place of a number below L
    torch.testing.assert_close(by_positions, by_frequencies, rtol=0, atol=window * 2.0**-23)


@settings(max_examples=200, deadline=None)
@given(original=st.integers(1, 2**22), k=st.floats(1, 64), data=st.data())
def test_every_position_inside_the_new_window_lands_inside_the_old_one(original, k, data):
    extended = max(original, int(original * k))
    m = data.draw(st.integers(0, extended - 1) | st.just(extended - 1))
    squeezed = interpolate_positions(torch.tensor([m, extended]), original, extended)
    assert 0 <= squeezed[0] < original
    assert squeezed[1] == original
    assert float(squeezed[0]) == pytest.approx(m * original / extended, rel=2.0**-22)


def test_a_window_kept_as_it_is_leaves_positions_alone():
    positions = torch.arange(5000)
    assert torch.equal(interpolate_positions(positions, 2048, 2048), positions.float())


def test_the_papers_factor_four():
    got = interpolate_positions(torch.tensor([0, 4, 8, 8191]), original=2048, extended=8192)
    assert got.tolist() == [0.0, 1.0, 2.0, 2047.75] and got.dtype == torch.float32


def test_shrinking_a_window_is_refused():
    with pytest.raises(ValueError, match="no interpolation"):
        interpolate_positions(torch.arange(4), original=8192, extended=2048)
