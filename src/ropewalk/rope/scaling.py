"""METHODS: every way of lengthening a window by its frequencies, one pure function a method.

All have one form: method(d, base, original, extended, *, factor=None, ..., dtype) -> Scaled
d         rotary dimensions of a head
base      θ base, the paper's c, of the checkpoint as it was trained
original  L, the window it was trained with, tokens
extended  L', the window wanted, tokens, >= L
factor    k, where it differs from L'/L (a checkpoint may say so)
dtype     float32: the numbers transformers computes, bit for bit; float64: the reference

`scaled` calls one by name and refuses what that method does not know.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .banded import llama3, longrope, proportional, yarn
from .frequencies import Scaled, inverse_frequencies, scale_factor


def none(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """No scaling: past L the angles are extrapolated      (Su et al. 2021, arXiv:2104.09864, Eq. 15)

    θ_j = base^(−2j/d), whatever the target.
    """
    return Scaled(inverse_frequencies(d, base, dtype), 1.0)


def linear(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """Position Interpolation      (Chen et al. 2023, arXiv:2306.15595, Eq. 4)

    θ'_j = θ_j / k, k = L'/L: the same angles as positions m/k under θ_j.
    """
    return Scaled(inverse_frequencies(d, base, dtype) / scale_factor(original, extended, factor), 1.0)


def ntk_base(d: int, base: float, factor: float) -> float:
    """The base of NTK-aware scaling: base' = base · k^(d/(d−2)) (Peng et al. 2023, Sec. 3.1)

    Chosen so that the slowest pair, j = d/2 − 1, is divided by exactly k and the fastest not at all.
    This number is also how such a checkpoint is written: plain RoPE with another base.
    Raises UserError for d = 2, which has one frequency only, and for k < 1.
    """
    if d <= 2:
        raise UserError(f"rotary dimension d = {d}: NTK-aware scaling divides by d − 2; it needs d >= 4")
    if not factor >= 1:
        raise UserError(f"factor {factor:g}: must be >= 1")
    return base * factor ** (d / (d - 2))


def ntk(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """NTK-aware scaling: a larger base      (bloc97 2023; Peng et al. 2023, arXiv:2309.00071, Sec. 3.1)

    θ'_j = (base · k^(d/(d−2)))^(−2j/d) = θ_j · k^(−2j/(d−2))
    """
    k = scale_factor(original, extended, factor)
    return Scaled(inverse_frequencies(d, ntk_base(d, base, k), dtype), 1.0)


def dynamic(
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    length: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scaled:
    """Dynamic NTK: the base grows with the text      (emozilla 2023; Peng et al. 2023, Sec. 3.3)

    base'(s) = base · (k·s/L − (k − 1))^(d/(d−2)), s = max(length, L); θ'_j = base'(s)^(−2j/d)
    (transformers' form; with k = 1 it is the s/L of the YaRN paper)

    length: tokens seen so far; None or anything up to L gives plain RoPE. L is the checkpoint's stated window
    (transformers reads max_position_embeddings, so a file that uses this method must not raise it).
    Keys already in a cache keep the angles of the shorter text: one reason why this is not for training.
    """
    k = scale_factor(original, extended, factor)
    if d <= 2:
        raise UserError(f"rotary dimension d = {d}: dynamic NTK divides by d − 2; it needs d >= 4")
    if length is None or length <= original:
        return Scaled(inverse_frequencies(d, base, dtype), 1.0)
    # the growth is rounded in `dtype` before the power, because transformers holds the length in a tensor
    growth = torch.tensor(float(length), dtype=dtype) * k / original - (k - 1)
    grown: Tensor = base * growth ** (d / (d - 2))
    return Scaled(inverse_frequencies(d, grown, dtype), 1.0)


Method = Callable[..., Scaled]

METHODS: dict[str, Method] = {
    "none": none,
    "linear": linear,
    "ntk": ntk,
    "dynamic": dynamic,
    "yarn": yarn,
    "llama3": llama3,
    "longrope": longrope,
    "proportional": proportional,
}
"""Name, as `--method` has it -> function. "linear" is Position Interpolation, the default and the subject."""

LENGTH_DEPENDENT = frozenset({"dynamic", "longrope"})
"""The methods whose frequencies depend on the tokens seen so far: only they take `length`."""


def method_settings(method: str) -> tuple[str, ...]:
    """The settings a method knows besides (d, base, L, L', factor, dtype); `length` where it counts."""
    common = {"d", "base", "original", "extended", "factor", "dtype"}
    return tuple(name for name in inspect.signature(_known(method)).parameters if name not in common)


def scaled(
    method: str,
    d: int,
    base: float,
    original: int,
    extended: int,
    *,
    factor: float | None = None,
    length: int | None = None,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> Scaled:
    """Inverse frequencies and attention factor of one method by name.

    length: tokens seen so far; used by the methods in LENGTH_DEPENDENT, without effect on the others.
    settings: the method's own, see `method_settings`.
    Raises UserError for an unknown method, or a setting that the method does not have.
    """
    function = _known(method)
    known = method_settings(method)
    if unknown := sorted(set(settings) - set(known)):
        own = [name for name in known if name != "length"]
        has = f"it has {', '.join(own)}" if own else "it has none of its own"
        raise UserError(f"method {method}: unknown setting {', '.join(unknown)}; {has}")
    if method in LENGTH_DEPENDENT:
        settings["length"] = length
    result: Scaled = function(d, base, original, extended, factor=factor, dtype=dtype, **settings)
    assert result.inv_freq.shape == (d // 2,) and math.isfinite(result.attention_factor)
    return result


def _known(method: str) -> Method:
    if method not in METHODS:
        raise UserError(f"method {method!r} is unknown; choose from {', '.join(METHODS)}")
    return METHODS[method]
