"""Is a strange config.json of a size and kind that can be computed with? Asked before it is built."""

from __future__ import annotations

import math
from typing import Any

from ..errors import UserError

MOST_PARTS = 100_000
"""Largest plausible number of layers, heads, experts or labels: configurations make lists of that length."""

MOST_TOKENS = 1 << 40
"""Largest plausible window or vocabulary, tokens."""

MOST_DIMENSIONS = 1 << 16
"""Largest plausible dimension of one head: a list of that length is made for its frequencies."""

PARTS = ("layer", "head", "expert", "label", "block", "depth", "stage")
"""Words in the names of settings that count parts of a model."""

POSITIVE = ("rope_theta", "attention_factor", "original_max_position_embeddings")
NUMBERS = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "low_freq_factor", "high_freq_factor")
LISTS = ("short_factor", "long_factor")
REQUIRED = {
    "longrope": LISTS,
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Rope type -> the parameters without which it means nothing."""


def check_sizes(config: dict[str, Any]) -> None:
    """Refuse whole numbers that no model has, anywhere in a parsed config.json. Raises UserError.

    transformers builds lists of these lengths while it reads, so that a single number could fill the memory.
    """
    stack: list[Any] = [config]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(value for value in item if isinstance(value, dict | list))
        if not isinstance(item, dict):
            continue
        for name, value in item.items():
            if isinstance(value, dict | list):
                stack.append(value)
            elif isinstance(value, int) and not isinstance(value, bool):
                limit = MOST_PARTS if any(word in str(name) for word in PARTS) else MOST_TOKENS
                limit = MOST_TOKENS if "dim" in str(name) or "size" in str(name) else limit
                if abs(value) > limit:
                    raise UserError(
                        f"config.json has {str(name)[:60]} {shown(value)}, and no model has more than "
                        f"{limit:,}; copy the model's own config.json again"
                    )


def check_parameters(layers: dict[str, dict[str, Any]]) -> None:
    """Refuse rope parameters, of any layer type, that are not numbers of the kind they stand for."""
    for layer, own in layers.items():
        where = f"config.json, rope parameters{f' of {layer}' if layer else ''}:"
        for name in POSITIVE:
            value = own.get(name)
            if name == "rope_theta" and name in own and value is None:
                raise UserError(f"{where} {name} is null; it must be a number above 0, such as 10000")
            if value is not None and not (_is_number(value) and value > 0):
                raise UserError(f"{where} {name} is {shown(value)}; it must be a number above 0")
        original = own.get("original_max_position_embeddings")
        if original is not None and not 2 <= original <= MOST_TOKENS:
            raise UserError(
                f"{where} original_max_position_embeddings is {shown(original)}; a window has 2 to "
                f"{MOST_TOKENS:,} tokens"
            )
        share = own.get("partial_rotary_factor")
        if share is not None and not (_is_number(share) and 0 <= share <= 1):
            raise UserError(f"{where} partial_rotary_factor is {shown(share)}; it must be from 0 to 1")
        if own.get("rope_type", "default") != "default" and own.get("factor") is not None:
            _check_factor(own["factor"])
        for name in NUMBERS:
            value = own.get(name)
            if value is not None and not (_is_number(value) and (value == 0 or 1e-9 <= abs(value) <= 1e9)):
                raise UserError(f"{where} {name} is {shown(value)}; it must be a number of common size")
        for name in LISTS:
            values = own.get(name)
            if values is not None and not (
                isinstance(values, list) and values and all(_is_number(v) and v > 0 for v in values)
            ):
                raise UserError(f"{where} {name} is {shown(values)}; it must be a list of numbers above 0")


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


def _check_factor(factor: Any) -> None:
    if not _is_number(factor) or factor < 1:
        raise UserError(f"config.json has rope factor {shown(factor)}; it must be a number of at least 1")
    if factor > MOST_TOKENS:
        raise UserError(f"config.json has rope factor {shown(factor)}; no window is stretched so far")


def _is_number(value: Any) -> bool:
    """A finite number that a float holds, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 2**1000 and math.isfinite(value)


def shown(value: Any) -> str:
    """A value as part of a line: its first characters."""
    if isinstance(value, int) and abs(value) > 10**30:
        return f"a number of {int(abs(value).bit_length() * 0.30103) + 1:,} digits"
    text = f"{value:g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
