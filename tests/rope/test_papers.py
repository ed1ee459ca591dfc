"""Every method against its formula as the papers print it, in plain float64 Python, pair by pair.

No line here comes from the package: the loops below are the papers' equations, nothing is vectorised.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.rope.scaling import scaled

HEADS = st.integers(2, 64).map(lambda half: 2 * half)
BASES = st.floats(1e3, 1e7)
FACTORS = st.floats(1.01, 64)
WINDOWS = st.integers(256, 200_000)


def theta(d, base):
    """Su et al. 2021, section 3.2.2: θ_j = 10000^(−2j/d)."""
    return [base ** (-2 * j / d) for j in range(d // 2)]


def linear(d, base, window, k):
    """Chen et al. 2023, Eq. 4: f'(x, m) = f(x, mL/L')."""
    return [t / k for t in theta(d, base)]


def ntk(d, base, window, k):
    """Peng et al. 2023, Eq. 16: b' = b·s^(|D|/(|D|−2))."""
    return theta(d, base * k ** (d / (d - 2)))


def yarn(d, base, window, k):
    """The authors' implementation of Peng et al. 2023, Eqs. 17-19, α = 1, β = 32: a ramp over the pairs.

    (The paper's γ climbs with the turns r, the code's with the number of the pair between the pairs of 32
    turns and of 1, rounded outwards; every published YaRN checkpoint was trained with the code's.)
    """

    def pair_of(turns):
        return d * math.log(window / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair_of(32)), 0), min(math.ceil(pair_of(1)), d - 1)
    found = []
    for j, t in enumerate(theta(d, base)):
        ramp = min(1, max(0, (j - low) / (high - low if high != low else 0.001)))
        found.append(t * (1 - ramp) + t / k * ramp)
    return found


def llama3(d, base, window, k):
    """Meta's Llama 3.1: low_freq_factor 1, high_freq_factor 4, in wavelengths λ = 2π/θ."""
    found = []
    for t in theta(d, base):
        wavelength = 2 * math.pi / t
        if wavelength < window / 4:
            found.append(t)
        elif wavelength > window / 1:
            found.append(t / k)
        else:
            smooth = (window / wavelength - 1) / (4 - 1)
            found.append((1 - smooth) * t / k + smooth * t)
    return found


@pytest.mark.parametrize("reference", [linear, ntk, yarn, llama3], ids=lambda f: f.__name__)
@settings(max_examples=60, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS)
def test_the_frequencies_are_those_of_the_paper(reference, d, base, window, k):
    got = scaled(reference.__name__, d, base, window, 64 * window, factor=k, dtype=torch.float64)
    assert got.inv_freq.tolist() == pytest.approx(reference(d, base, window, k), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS, times=st.floats(0.1, 64))
def test_dynamic_ntk_has_the_base_of_its_length(d, base, window, k, times):
    """emozilla 2023: base·((s·l/L) − (s − 1))^(d/(d−2)) past L, the plain base up to it."""
    length = max(1, int(times * window))
    grown = base if length <= window else base * (k * length / window - (k - 1)) ** (d / (d - 2))
    got = scaled("dynamic", d, base, window, 64 * window, factor=k, length=length, dtype=torch.float64)
    assert got.inv_freq.tolist() == pytest.approx(theta(d, grown), rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), d=HEADS, base=BASES, window=WINDOWS, k=FACTORS)
def test_longrope_divides_each_pair_by_its_own_number(data, d, base, window, k):
    """Ding et al. 2024, Eq. 3 and section 4.2: θ_j/λ_j, and sqrt(1 + ln s / ln L) on queries and keys."""
    long = data.draw(st.lists(st.floats(1, 64), min_size=d // 2, max_size=d // 2))
    short = data.draw(st.lists(st.floats(1, 2), min_size=d // 2, max_size=d // 2))
    divisors = {"short_factor": short, "long_factor": long}
    for length, used in ((window, short), (window + 1, long)):
        got = scaled(
            "longrope",
            d,
            base,
            window,
            64 * window,
            factor=k,
            length=length,
            dtype=torch.float64,
            **divisors,
        )
        expected = [t / by for t, by in zip(theta(d, base), used)]
        assert got.inv_freq.tolist() == pytest.approx(expected, rel=1e-9)
        assert got.attention_factor == pytest.approx(math.sqrt(1 + math.log(k) / math.log(window)))


@settings(max_examples=60, deadline=None)
@given(d=HEADS, base=BASES, window=WINDOWS, k=FACTORS)
def test_yarn_scales_queries_and_keys_by_the_papers_temperature(d, base, window, k):
    """Peng et al. 2023, Eq. 22: sqrt(1/t) = 0.1 ln s + 1."""
    got = scaled("yarn", d, base, window, 64 * window, factor=k, dtype=torch.float64)
    assert got.attention_factor == pytest.approx(0.1 * math.log(k) + 1)
