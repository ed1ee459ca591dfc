"""Laws of the methods, over random (d, base, factor, L)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.errors import UserError
from ropewalk.rope.frequencies import inverse_frequencies, turns, wavelengths
from ropewalk.rope.scaling import LENGTH_DEPENDENT, METHODS, method_settings, ntk_base, scaled

HEADS = st.integers(2, 128).map(lambda half: 2 * half)
BASES = st.floats(500, 1e7)
FACTORS = st.floats(1, 64)
WINDOWS = st.integers(256, 200_000)
F64 = torch.float64


def own(method: str, d: int, k: float = 1.0) -> dict[str, list[float]]:
    """The settings a method cannot do without."""
    return {"short_factor": [1.0] * (d // 2), "long_factor": [k] * (d // 2)} if method == "longrope" else {}


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS)
def test_a_factor_of_one_is_the_identity(method, d, base, window):
    got = scaled(method, d, base, window, window, dtype=F64, **own(method, d))
    torch.testing.assert_close(got.inv_freq, inverse_frequencies(d, base, F64), rtol=1e-14, atol=0)
    assert got.attention_factor == 1.0


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS)
def test_no_method_raises_a_frequency_and_none_divides_by_more_than_the_factor(method, d, base, window, k):
    got = scaled(
        method, d, base, window, 64 * window, factor=k, dtype=F64, length=window, **own(method, d, k)
    )
    plain = inverse_frequencies(d, base, F64)
    assert (got.inv_freq <= plain * (1 + 1e-14)).all()
    assert (got.inv_freq >= plain / k * (1 - 1e-14)).all()
    assert (got.inv_freq.diff() <= 1e-15).all(), "faster pairs stay faster"


@settings(max_examples=50, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS)
def test_yarn_and_llama3_keep_fast_pairs_and_divide_slow_ones_by_the_factor(d, base, window, k):
    plain = inverse_frequencies(d, base, F64)
    seen = turns(plain, window)
    llama3 = scaled("llama3", d, base, window, 64 * window, factor=k, dtype=F64).inv_freq
    assert torch.equal(llama3[seen > 4 * (1 + 1e-9)], plain[seen > 4 * (1 + 1e-9)])
    assert torch.equal(llama3[seen < 1 - 1e-9], (plain / k)[seen < 1 - 1e-9])
    yarn = scaled("yarn", d, base, window, 64 * window, factor=k, dtype=F64, truncate=False).inv_freq
    fast, slow = seen > 32 * (1 + 1e-9), seen < 1 - 1e-9
    torch.testing.assert_close(yarn[fast], plain[fast], rtol=1e-13, atol=0)
    torch.testing.assert_close(yarn[slow], plain[slow] / k, rtol=1e-13, atol=0)


@settings(max_examples=50, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS)
def test_ntk_keeps_the_fastest_pair_and_divides_the_slowest_by_exactly_the_factor(d, base, window, k):
    plain = inverse_frequencies(d, base, F64)
    got = scaled("ntk", d, base, window, 64 * window, factor=k, dtype=F64).inv_freq
    assert got[0] == 1.0
    assert float(plain[-1] / got[-1]) == pytest.approx(k, rel=1e-12)
    same = scaled("none", d, ntk_base(d, base, k), window, window, dtype=F64).inv_freq
    assert torch.equal(got, same), "NTK-aware scaling is plain RoPE with the base that ntk_base returns"


@settings(max_examples=50, deadline=None)
@given(d=HEADS, base=BASES, first=FACTORS, second=FACTORS)
def test_linear_by_k1_then_k2_is_linear_by_their_product(d, base, first, second):
    once = scaled("linear", d, base, 256, 256, factor=first * second, dtype=F64).inv_freq
    twice = scaled("linear", d, base, 256, 256, factor=first, dtype=F64).inv_freq / second
    torch.testing.assert_close(once, twice, rtol=1e-15, atol=0)


@settings(max_examples=50, deadline=None)
@given(d=HEADS, base=BASES, first=st.integers(0, 5), second=st.integers(0, 5))
def test_linear_composes_bitwise_in_float32_for_powers_of_two(d, base, first, second):
    once = scaled("linear", d, base, 256, 256 * 2 ** (first + second)).inv_freq
    twice = scaled("linear", d, base, 256, 256 * 2**first).inv_freq / 2**second
    assert torch.equal(once, twice)


@settings(max_examples=50, deadline=None)
@given(d=HEADS, base=BASES, first=FACTORS, second=FACTORS)
def test_ntk_by_k1_then_k2_is_ntk_by_their_product(d, base, first, second):
    assert ntk_base(d, ntk_base(d, base, first), second) == pytest.approx(ntk_base(d, base, first * second))


@settings(max_examples=50, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS, lengths=st.lists(st.integers(1, 10**6), min_size=2))
def test_dynamic_is_plain_up_to_the_window_then_slows_as_the_text_grows(d, base, window, k, lengths):
    plain = inverse_frequencies(d, base, F64)
    previous = plain
    for length in sorted(lengths):
        got = scaled("dynamic", d, base, window, 64 * window, factor=k, length=length, dtype=F64).inv_freq
        assert (got <= previous).all()
        if length <= window:
            assert torch.equal(got, plain)
        previous = got


def test_longrope_with_equal_factors_is_position_interpolation_bitwise():
    linear = scaled("linear", 64, 10000.0, 2048, 8192)
    as_longrope = scaled(
        "longrope",
        64,
        10000.0,
        2048,
        8192,
        short_factor=[4.0] * 32,
        long_factor=[4.0] * 32,
        attention_factor=1.0,
    )
    assert torch.equal(linear.inv_freq, as_longrope.inv_freq)
    assert linear.attention_factor == as_longrope.attention_factor == 1.0


def test_proportional_leaves_the_last_pairs_standing():
    got = scaled("proportional", 64, 1e6, 4096, 8192, partial=0.25).inv_freq
    assert torch.equal(got[:8], inverse_frequencies(64, 1e6)[:8] / 2)
    assert (got[8:] == 0).all()


def test_length_counts_only_for_the_methods_that_say_so():
    for method in METHODS:
        short, long = (
            scaled(method, 64, 1e4, 2048, 8192, length=length, **own(method, 64, 4.0)).inv_freq
            for length in (100, 5000)
        )
        assert torch.equal(short, long) == (method not in LENGTH_DEPENDENT), method
        assert ("length" in method_settings(method)) == (method in LENGTH_DEPENDENT)


def test_a_pair_completes_one_turn_in_its_own_wavelength():
    inv_freq = inverse_frequencies(8, 10000.0, F64)
    for j, wavelength in enumerate(wavelengths(inv_freq).tolist()):
        assert float(turns(inv_freq, 1000)[j]) == pytest.approx(1000 / wavelength)
    assert float(wavelengths(inv_freq)[0]) == pytest.approx(2 * math.pi)


@pytest.mark.parametrize(
    ("arguments", "settings_", "says"),
    [
        (("linear", 64, 1e4, 4096, 2048), {}, "L' must be at least L"),
        (("linear", 64, 1e4, 4096, 8192), {"factor": 0.5}, "factor 0.5"),
        (("linear", 64, 1e4, 4096, 8192), {"factor": math.nan}, "factor nan"),
        (("linear", 63, 1e4, 4096, 8192), {}, "d = 63"),
        (("linear", 64, 1.0, 4096, 8192), {}, "base 1"),
        (("ntk", 2, 1e4, 4096, 8192), {}, "d = 2"),
        (("dynamic", 2, 1e4, 4096, 8192), {}, "d = 2"),
        (("linaer", 64, 1e4, 4096, 8192), {}, "choose from none, linear"),
        (("yarn", 64, 1e4, 4096, 8192), {"beta_fsat": 3}, "unknown setting beta_fsat; it has beta_fast"),
        (("linear", 64, 1e4, 4096, 8192), {"beta_fast": 3}, "it has none of its own"),
        (("yarn", 64, 1e4, 4096, 8192), {"beta_fast": 1, "beta_slow": 2}, "beta_fast 1"),
        (("yarn", 64, 1e4, 4, 8), {}, "use linear"),
        (("llama3", 64, 1e4, 4096, 8192), {"low_freq_factor": 4}, "high_freq_factor 4"),
        (("longrope", 64, 1e4, 4096, 8192), {"short_factor": [1.0] * 32}, "long_factor has 0 values"),
        (("proportional", 64, 1e4, 4096, 8192), {"partial": 0}, "partial 0"),
    ],
)
def test_what_a_method_cannot_do_is_said_in_one_line(arguments, settings_, says):
    with pytest.raises(UserError) as caught:
        scaled(*arguments, **settings_)
    assert says in str(caught.value) and "\n" not in str(caught.value)
