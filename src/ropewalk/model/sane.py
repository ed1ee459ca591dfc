"""Is a strange config.json of a size and kind that can be computed with? Asked before it is built."""

from __future__ import annotations

import math
from typing import Any

from ..errors import UserError

MOST_PARTS = 100_000
"""Largest plausible number of heads, experts or labels: configurations make lists of that length."""

MOST_TOKENS = 1 << 40
"""Largest plausible window or vocabulary, tokens."""

MOST_DIMENSIONS = 1 << 16
"""Largest plausible dimension of one head: a list of that length is made for its frequencies."""

MOST_LAYERS = 2_000
"""Largest plausible number of layers (known: 130); `doctor` lays them all out, some milliseconds each."""

DEEPEST = 40
"""Deepest plausible nesting; what walks through a config calls itself so often."""

PARTS = (
    *((word, MOST_LAYERS) for word in ("layer", "block", "depth", "stage")),
    *((word, MOST_PARTS) for word in ("head", "expert", "label")),
)
"""Words in the names of settings that count parts of a model, and the most that there are."""

NUMBERS = {
    "rope_theta": (1.001, 1e30),
    "factor": (1.0, float(MOST_TOKENS)),
    "original_max_position_embeddings": (2.0, float(MOST_TOKENS)),
    "partial_rotary_factor": (1e-6, 1.0),
    "attention_factor": (1e-6, 1e6),
    "short_mscale": (1e-6, 1e6),
    "long_mscale": (1e-6, 1e6),
    "mscale": (0.0, 1e6),
    "mscale_all_dim": (0.0, 1e6),
    "beta_fast": (1e-6, 1e9),
    "beta_slow": (1e-6, 1e9),
    "low_freq_factor": (1e-6, 1e9),
    "high_freq_factor": (1e-6, 1e9),
}
"""Rope parameter -> the smallest and the largest value that it can have; all are finite numbers."""

DIVISORS = (1e-6, 1e15)
"""Bounds of each number in LISTS; lengthening multiplies them."""

LISTS = ("short_factor", "long_factor")
REQUIRED = {
    "longrope": LISTS,
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Rope type -> the parameters without which it means nothing."""


def check_sizes(config: dict[str, Any]) -> None:
    """Refuse whole numbers and depths that no model has, anywhere in a parsed config.json. Raises UserError.

    transformers builds lists of these lengths while it reads, so that a single number could fill the memory.
    """
    stack: list[tuple[Any, int]] = [(config, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > DEEPEST:
            raise UserError(f"config.json nests deeper than {DEEPEST} levels; copy the model's own again")
        if isinstance(item, list):
            stack.extend((value, depth + 1) for value in item if isinstance(value, dict | list))
        if not isinstance(item, dict):
            continue
        for name, value in item.items():
            if isinstance(value, dict | list):
                stack.append((value, depth + 1))
            elif isinstance(value, int) and not isinstance(value, bool):
                limit = next((most for word, most in PARTS if word in str(name)), MOST_TOKENS)
                limit = MOST_TOKENS if any(word in str(name) for word in ("dim", "size")) else limit
                if abs(value) > limit:
                    raise UserError(
                        f"config.json has {str(name)[:60]} {shown(value)}, and no model has more than "
                        f"{limit:,}; copy the model's own config.json again"
                    )


def check_parameters(layers: dict[str, dict[str, Any]]) -> None:
    """The one gate for rope parameters, of any layer type: each is of the kind and size it stands for.

    What passes can be computed with in float64 without an overflow, a division by zero or a wrong type.
    Raises UserError.
    """
    for layer, own in layers.items():
        where = f"config.json, rope parameters{f' of {layer[:60]}' if layer else ''}:"
        if "rope_theta" in own and own["rope_theta"] is None:
            raise UserError(f"{where} rope_theta is null; it must be a number above 1, such as 10000")
        for name, (low, high) in NUMBERS.items():
            value = own.get(name)
            if value is not None and not _is_number(value, low, high):
                raise UserError(
                    f"{where} {name} is {shown(value)}; it must be a number from {low:g} to {high:,.13g}"
                )
        for name in LISTS:
            values = own.get(name)
            if values is not None and not (
                isinstance(values, list) and values and all(_is_number(v, *DIVISORS) for v in values)
            ):
                raise UserError(f"{where} {name} is {shown(values)}; it must be a list of numbers above 0")
        if not isinstance(own.get("truncate", True), bool | None):
            raise UserError(f"{where} truncate is {shown(own['truncate'])}; it must be true or false")
        for name, value in own.items():
            if not isinstance(name, str) or len(name) > 200:
                raise UserError(f"{where} {shown(name)} is no name of a parameter")
            if not _finite(value):
                raise UserError(f"{where} {name[:60]} is {shown(value)}; it must be a finite number")


def check_whole(layers: dict[str, dict[str, Any]], head_dims: dict[str, int]) -> None:
    """Refuse heads of no size, parameters without a base, lists without one divisor a frequency.

    layers: with every default that transformers fills in.
    """
    for layer, own in layers.items():
        if not 1 <= head_dims[layer] <= MOST_DIMENSIONS:
            raise UserError(
                f"config.json gives heads of {head_dims[layer]:,} dimensions (head_dim, or hidden_size over "
                f"num_attention_heads), and no model has more than {MOST_DIMENSIONS:,}"
            )
        kind = str(own.get("rope_type", "default"))
        for name in ("rope_theta", *REQUIRED.get(kind, ())):
            if own.get(name) is None:
                where = f" of {layer[:60]}" if layer else ""
                raise UserError(f"config.json, rope parameters{where}: {kind} scaling needs {name}, absent")
        need = int(head_dims[layer] * float(own.get("partial_rotary_factor") or 1.0)) // 2
        for name in LISTS:
            values = own.get(name)
            if own.get("rope_type") == "longrope" and values is not None and len(values) != need:
                raise UserError(
                    f"config.json, rope parameters: {name} has {len(values)} numbers; this model has {need} "
                    "frequencies: copy its own config.json again"
                )


def _finite(value: Any) -> bool:
    """No NaN and no infinity in a value, however deep."""
    if isinstance(value, dict | list):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def usable(name: str, value: Any) -> float | None:
    """A number that may stand for the rope parameter ``name``, None where it may not."""
    return float(value) if _is_number(value, *NUMBERS[name]) else None


def _is_number(value: Any, low: float, high: float) -> bool:
    """A finite number between these bounds, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def shown(value: Any) -> str:
    """A value as part of a line: its first characters."""
    if isinstance(value, int) and abs(value) > 10**30:
        return f"a number of {int(abs(value).bit_length() * 0.30103) + 1:,} digits"
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
