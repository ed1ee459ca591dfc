"""The methods that treat frequencies by band: fast ones kept, slow ones interpolated, a ramp between.

Same form as the rest; see `scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import UserError
from .frequencies import Scaled, exponents, inverse_frequencies, powers, scale_factor, wavelengths


def yarn(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    attention_factor: float | None = None,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """YaRN      (Peng et al. 2023, arXiv:2309.00071, Sec. 3.2 and 3.4)

    θ'_j = (1 − γ_j)·θ_j/k + γ_j·θ_j,  attention factor 0.1·ln k + 1 (the paper's √(1/t))
    γ_j falls from 1 to 0 between the pairs that make beta_fast and beta_slow turns in L. The paper's ramp is
    linear in the number of turns; its code and transformers, followed here, make it linear in j:
    γ_j = 1 − clamp((j − low)/(high − low), 0, 1), low = j(beta_fast), high = j(beta_slow),
    j(β) = d·ln(L/(2πβ)) / (2 ln base).

    beta_fast, beta_slow: turns in L, beta_fast > beta_slow > 0 (the paper's β and α).
    attention_factor: overrides. mscale, mscale_all_dim: both given, the quotient of two such (DeepSeek).
    truncate: round low down and high up, as the paper's code does.
    Raises UserError when L and base leave no ramp (fewer than beta_slow turns of the fastest pair).
    """
    k = scale_factor(original, extended, factor)
    if not beta_fast > beta_slow > 0:
        raise UserError(
            f"yarn: beta_fast {beta_fast:g} must be larger than beta_slow {beta_slow:g}, and both > 0"
        )
    plain = 1.0 / powers(d, base, dtype)
    divided = 1.0 / (k * powers(d, base, dtype))
    low, high = (
        d * math.log(original / (2 * math.pi * b)) / (2 * math.log(base)) for b in (beta_fast, beta_slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d - 1)
    if low > high:
        raise UserError(
            f"yarn: a window of {original} tokens at base {base:g} has no frequencies between "
            f"{beta_fast:g} and {beta_slow:g} turns; use linear, or move beta_fast and beta_slow"
        )
    width = high - low or 0.001  # transformers' own guard against a ramp of no width
    ramp = ((torch.arange(d // 2, dtype=dtype) - low) / width).clamp(0, 1)
    kept = 1 - ramp
    inv_freq = divided * (1 - kept) + plain * kept
    if attention_factor is None:
        whole = bool(mscale) and bool(mscale_all_dim)
        attention_factor = _mscale(k, mscale) / _mscale(k, mscale_all_dim) if whole else _mscale(k, 1.0)
    return Scaled(inv_freq, float(attention_factor))


def _mscale(factor: float, weight: float | None) -> float:
    """0.1·weight·ln k + 1      (Peng et al. 2023, Sec. 3.4; the weight is DeepSeek's)."""
    return 0.1 * (weight or 0.0) * math.log(factor) + 1.0


def llama3(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """Llama 3.1's scaling      (Meta, llama-models, models/llama3/reference_impl/model.py, apply_scaling)

    With wavelength λ_j = 2π/θ_j:
    θ_j               where λ_j < L/high_freq_factor   (more than high_freq_factor turns in L)
    θ_j/k             where λ_j > L/low_freq_factor    (fewer than low_freq_factor turns)
    (1 − s)·θ_j/k + s·θ_j  between, s = (L/λ_j − low_freq_factor)/(high_freq_factor − low_freq_factor)
    """
    k = scale_factor(original, extended, factor)
    if not high_freq_factor > low_freq_factor > 0:
        raise UserError(
            f"llama3: high_freq_factor {high_freq_factor:g} must be larger than low_freq_factor "
            f"{low_freq_factor:g}, and both > 0"
        )
    inv_freq = inverse_frequencies(d, base, dtype)
    wavelength = wavelengths(inv_freq)
    smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
    between = (1 - smooth) * inv_freq / k + smooth * inv_freq
    slow = torch.where(wavelength > original / low_freq_factor, inv_freq / k, between)
    return Scaled(torch.where(wavelength < original / high_freq_factor, inv_freq, slow), 1.0)


def longrope(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    short_factor: Sequence[float] = (),
    long_factor: Sequence[float] = (),
    attention_factor: float | None = None,
    length: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """LongRoPE: one divisor a frequency      (Ding et al. 2024, arXiv:2402.13753; Phi-3's attention factor)

    θ'_j = θ_j/f_j, f = long_factor once the text is longer than L, else short_factor;
    attention factor √(1 + ln k/ln L) for k > 1, else 1.

    short_factor, long_factor: d/2 numbers > 0 each, found by search, and not by us.
    f_j = k for all j with attention_factor 1 is Position Interpolation: how Phi-3 configs can hold it.
    length: tokens seen so far; None means short, as when a model is built.
    """
    k = scale_factor(original, extended, factor)
    long = length is not None and length > original
    inv_freq = 1.0 / (_divisors(d, short_factor, long_factor, long, dtype) * powers(d, base, dtype))
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(k) / math.log(original)) if k > 1 else 1.0
    return Scaled(inv_freq, float(attention_factor))


def _divisors(
    d: int, short: Sequence[float], long: Sequence[float], use_long: bool, dtype: torch.dtype
) -> Tensor:
    """The LongRoPE divisors in use, (d/2,), after a look at both lists."""
    for name, values in (("short_factor", short), ("long_factor", long)):
        if len(values) != d // 2 or not all(value > 0 for value in values):
            raise UserError(
                f"longrope: {name} has {len(values)} values; it needs d/2 = {d // 2} of them, every one > 0"
            )
    return torch.tensor(list(long if use_long else short), dtype=dtype)


def proportional(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    partial: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """Gemma 4's global layers: the first pairs turn, interpolated, and the rest stand still.

    θ'_j = base^(−2j/d)/k for j < ⌊partial·d/2⌋, else 0      (transformers, rope type "proportional")

    d: the whole head here, not its rotary part. partial: the fraction of pairs that turn, in (0, 1].
    factor: k; 1 when L' = L.
    """
    if not 0 < partial <= 1:
        raise UserError(f"proportional: partial {partial:g} must lie in (0, 1]")
    turning = int(partial * d // 2)
    inv_freq = 1.0 / (base ** exponents(d, dtype)[:turning])
    still = torch.zeros(d // 2 - turning, dtype=dtype)
    return Scaled(torch.cat((inv_freq, still)) / scale_factor(original, extended, factor), 1.0)
