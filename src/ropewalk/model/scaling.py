"""A longer config: the rope parameters that make transformers apply a method by itself.

One rule for checkpoints that are already scaled: the same method multiplies its factors, Position
Interpolation divides every frequency whatever was there, and every other mixture is refused by name.
"""

from __future__ import annotations

import copy
from typing import Any

from ..errors import UserError
from .config import LOCAL_LAYERS, RopeState, as_read, main_layer, read_state, text_part, window_key
from .sane import MOST_TOKENS

METHODS = ("linear", "ntk", "dynamic", "yarn", "llama3", "longrope", "none")
"""What `extend --method` offers; linear is Position Interpolation."""

LONGROPE_ONLY = ("phi3", "phi4_multimodal", "phimoe")
"""Families whose config accepts no scaling but longrope."""

METHOD_KEYS = (
    *("type", "rope_type", "factor", "original_max_position_embeddings", "attention_factor"),
    *("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    *("low_freq_factor", "high_freq_factor", "short_factor", "long_factor"),
)
"""Rope parameters that belong to one method; all others (base, share of a head, ...) belong to the model."""

OLD_WINDOW_KEYS = ("max_sequence_length", "model_max_length", "max_seq_len", "seq_length", "max_seq_length")
"""Other keys in which some configs repeat the window; engines take the smallest of them."""


def extended_config(
    config: dict[str, Any],
    to: int,
    method: str = "linear",
    *,
    all_layers: bool = False,
    window: int | None = None,
    settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A copy of ``config`` (a parsed config.json) with the window ``to``.

    to: L', tokens, larger than the window now.
    all_layers: with parameters per layer type, also scale the layers with a small window of their own.
    window: L, where the config states it wrongly.
    settings: further rope parameters of the method (beta_fast, short_factor, ...).
    Linear writes ``rope_type: linear`` with a factor that is a float and the base beside it: an engine
    that reads the factor as a whole number fails, and one that finds no base takes 10,000. A checkpoint with
    one set of parameters for all layers also gets them under ``rope_scaling`` and ``rope_theta``, the names
    before transformers 5.
    Raises UserError when the target is not longer or the method cannot be written for this checkpoint.
    """
    state = read_state(config)
    if method not in METHODS:
        raise UserError(f"method {method!r} is unknown; choose from {', '.join(METHODS)}")
    if window is not None and window < 1:
        raise UserError(f"window is {window}; the window that the model really has is at least 1 token")
    start = window or state.window
    if to > MOST_TOKENS:
        raise UserError(f"target {to:,} is beyond any window; ask for at most {MOST_TOKENS:,} tokens")
    if to <= start:
        raise UserError(
            f"target {to:,} is not longer than the window, which is {start:,} tokens already; "
            f"ask for more than {start:,}"
        )
    chosen = scaled_layers(state, all_layers)
    parameters = {
        name: stretched(state, name, method, start, to, settings or {}) if name in chosen else dict(own)
        for name, own in state.layers.items()
    }
    return rewritten(config, state, parameters, start if method == "dynamic" else to, {start, state.window})


def scaled_layers(state: RopeState, all_layers: bool = False) -> list[str]:
    """The layer types to scale: the global ones, or all. Raises UserError when there is no global one."""
    if not state.per_layer_type or all_layers:
        return list(state.layers)
    chosen = [name for name in state.layers if name not in LOCAL_LAYERS and "sliding" not in name]
    if not chosen:
        raise UserError(
            f"family {state.family}: only its layers with a small window ({', '.join(state.layers)}) have "
            "rotary positions; to scale those, pass --all-layers"
        )
    return chosen


def stretched(
    state: RopeState, layer: str, method: str, start: int, to: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """One layer type's rope parameters, lengthened from ``start`` to ``to`` tokens by ``method``."""
    own = state.layers[layer]
    kind = str(own.get("rope_type", "default"))
    k = to / start
    kept = {key: value for key, value in own.items() if key not in METHOD_KEYS and value is not None}
    if settings and method != "longrope" and method not in ("yarn", "llama3"):
        raise UserError(
            f"method {method} has no settings of its own, but {', '.join(sorted(settings))} given"
        )
    if method == "linear":
        return _linear(state, layer, kept, k, to)
    if kind == method and method in ("yarn", "llama3"):
        before = factor_of(state, own)
        return _derived_attention({**own, **settings, "factor": before * k}, before)
    if kind != "default":
        what = "a checkpoint without scaling" if method != "dynamic" else "one without scaling"
        raise UserError(
            f"method {method} needs {what}, and this one has {kind} already: "
            "only linear (Position Interpolation) composes with every scaling"
        )
    if state.family in LONGROPE_ONLY and method not in ("longrope", "none", "ntk"):
        raise UserError(
            f"family {state.family} accepts only longrope in its config, so method {method} cannot be "
            "written; linear can (as longrope with equal factors)"
        )
    if method == "none":
        return dict(own)
    if method == "ntk":
        from ..rope.scaling import ntk_base

        return {**own, "rope_theta": ntk_base(rotated(state, own, layer), float(own["rope_theta"]), k)}
    return _fresh(method, kept, k, start, settings, rotated(state, own, layer))


def _fresh(
    method: str, kept: dict[str, Any], k: float, start: int, settings: dict[str, Any], d: int
) -> dict[str, Any]:
    """Parameters of dynamic, yarn, llama3 or longrope on an unscaled checkpoint."""
    new: dict[str, Any] = {**kept, "rope_type": method, "factor": float(k)}
    if method == "dynamic":
        return new
    new["original_max_position_embeddings"] = start
    if method == "llama3":
        new |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    new |= settings
    if method == "longrope":
        for name in ("short_factor", "long_factor"):
            values = new.get(name)
            if not isinstance(values, list) or len(values) != d // 2:
                raise UserError(
                    f"method longrope needs {name}: a list of {d // 2} numbers, one a frequency, in --factors"
                )
    return new


def _linear(state: RopeState, layer: str, kept: dict[str, Any], k: float, to: int) -> dict[str, Any]:
    """Position Interpolation on top of whatever was there: every frequency divided by k."""
    own = state.layers[layer]
    kind = str(own.get("rope_type", "default"))
    if kind in ("linear", "proportional"):
        return {**kept, "rope_type": kind, "factor": float(own.get("factor") or 1.0) * k}
    if kind == "default" and state.family not in LONGROPE_ONLY:
        return {**kept, "rope_type": "linear", "factor": float(k)}
    if kind == "dynamic":
        raise UserError(
            f"family {state.family}: this checkpoint has dynamic scaling, whose frequencies depend on the "
            "length of each call; a division on top of it cannot be written into a config"
        )
    if kind == "longrope":
        table = float(own.get("original_max_position_embeddings") or state.original_window)
        more = {
            **own,
            "short_factor": [float(value) * k for value in own["short_factor"]],
            "long_factor": [float(value) * k for value in own["long_factor"]],
            "original_max_position_embeddings": round(table * k),
            "attention_factor": attention_of(state, own, layer),
        }
        if own.get("factor") is not None:
            more["factor"] = float(own["factor"]) * k
        return more
    # default in a longrope-only family, yarn, llama3: one table of divisors, at every length
    divisors, attention = divisors_of(state, own, layer), attention_of(state, own, layer)
    more = {"short_mscale": attention, "long_mscale": attention} if state.family == "phimoe" else {}
    return {
        **kept,
        **more,
        "rope_type": "longrope",
        "factor": to / state.original_window,
        "attention_factor": attention,
        "short_factor": [value * k for value in divisors],
        "long_factor": [value * k for value in divisors],
        "original_max_position_embeddings": to,
    }


def divisors_of(state: RopeState, own: dict[str, Any], layer: str | None = None) -> list[float]:
    """θ_j of plain RoPE over θ_j of this scaling, j = 0 … d/2 − 1: by what each frequency was divided."""
    import torch

    from ..rope.scaling import scaled

    d, base = rotated(state, own, layer), float(own["rope_theta"])
    plain = scaled("none", d, base, 1, 1, dtype=torch.float64).inv_freq
    now = frequencies_of(state, own, dtype=torch.float64, layer=layer).inv_freq
    return [float(value) for value in plain / now]


def attention_of(state: RopeState, own: dict[str, Any], layer: str | None = None) -> float:
    """What cos and sin are multiplied by under these rope parameters."""
    return float(frequencies_of(state, own, layer=layer).attention_factor)


def frequencies_of(
    state: RopeState,
    own: dict[str, Any],
    *,
    length: int | None = None,
    dtype: Any = None,
    layer: str | None = None,
) -> Any:
    """`rope.scaling.Scaled` of one set of rope parameters: what transformers should build from it.

    length: tokens of the call, for the methods that depend on it.   layer: its layer type, None for global.
    """
    import torch

    from ..rope.scaling import scaled

    kind = str(own.get("rope_type", "default"))
    base = float(own["rope_theta"])
    d = rotated(state, own, layer)
    original = int(own.get("original_max_position_embeddings") or state.original_window)
    names = {
        "yarn": ("beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"),
        "llama3": ("low_freq_factor", "high_freq_factor"),
        "longrope": ("short_factor", "long_factor", "attention_factor"),
    }.get(kind, ())
    more = {name: own[name] for name in names if own.get(name) is not None}
    if kind == "proportional":
        d, more = head_dim(state, layer), {"partial": float(own.get("partial_rotary_factor") or 1.0)}
    method = {"default": "none"}.get(kind, kind)
    k = max(factor_of(state, own), 1.0)
    return scaled(
        method,
        d,
        base,
        original,
        max(original, round(original * k)),
        factor=k,
        length=length,
        dtype=dtype or torch.float32,
        **more,
    )


def factor_of(state: RopeState, own: dict[str, Any]) -> float:
    """By what these rope parameters stretch; yarn and longrope may leave it to the windows stated."""
    if own.get("rope_type", "default") == "default":
        return 1.0
    if own.get("factor") is not None:
        return float(own["factor"])
    original = int(own.get("original_max_position_embeddings") or state.original_window)
    return state.stated / original if own.get("rope_type") in ("yarn", "longrope") else 1.0


def head_dim(state: RopeState, layer: str | None = None) -> int:
    """d of a layer type's heads."""
    return state.head_dims.get(layer, state.head_dim) if layer is not None else state.head_dim


def rotated(state: RopeState, own: dict[str, Any], layer: str | None = None) -> int:
    """How many dimensions of a head this set of parameters rotates."""
    share = float(own.get("partial_rotary_factor") or 1.0)
    return int(head_dim(state, layer) * share)


def _derived_attention(parameters: dict[str, Any], before: float) -> dict[str, Any]:
    """Drop an attention factor that was only the formula's value at the old factor: it is derived anew."""
    import math

    stated = parameters.get("attention_factor")
    if stated is not None and abs(float(stated) - (0.1 * math.log(before) + 1.0)) < 1e-6:
        parameters = {key: value for key, value in parameters.items() if key != "attention_factor"}
    return parameters


def rewritten(
    config: dict[str, Any],
    state: RopeState,
    layers: dict[str, dict[str, Any]],
    window: int,
    before: set[int] | None = None,
) -> dict[str, Any]:
    """A copy of the config with these rope parameters and this window, in every name that engines read.

    before: numbers under which other keys (model_max_length, ...) repeat the old window; they follow.
    """
    result = copy.deepcopy(config)
    part = text_part(result)
    read = as_read(config)
    part.pop("rope_scaling", None)
    if state.per_layer_type:
        # layer types without RoPE keep their null
        part["rope_parameters"] = {
            name: layers.get(name, value) for name, value in read["rope_parameters"].items()
        }
    else:
        part["rope_parameters"] = layers[""]
        kind = layers[""].get("rope_type", "default")
        if "rope_theta" in part or kind not in ("default", "longrope"):
            part["rope_theta"] = layers[""]["rope_theta"]
        if kind not in ("default", "longrope", "proportional"):
            part["rope_scaling"] = copy.deepcopy(layers[""])
    part[window_key(result)] = window
    for key in OLD_WINDOW_KEYS:
        if isinstance(part.get(key), int) and part[key] in (before or ()):
            part[key] = window
    main = layers[main_layer(layers)]
    if "original_max_position_embeddings" in read and main.get("rope_type") == "longrope":
        part["original_max_position_embeddings"] = main["original_max_position_embeddings"]
    return result
