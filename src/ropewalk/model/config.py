"""What a config.json says about positions: read as transformers reads it, told in the paper's words.

Pure knowledge about dictionaries; nothing here touches a file or a weight.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from .quiet import quiet
from .sane import check_parameters, check_sizes, check_whole, shown

ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
"""The rope types that ropewalk reads; all are transformers' own."""

LOCAL_LAYERS = ("sliding_attention", "chunked_attention", "local_attention", "linear_attention")
"""Layer types that never look further back than their own small window."""

REFUSED = {
    "gptj": "computes its own sinusoids and reads no rope_parameters",
    "codegen": "computes its own sinusoids and reads no rope_parameters",
    "blt": "is several models in one, each with positions of its own",
    "cohere_compass_text": "has positions along two axes",
    "deepseek_v4": "counts some of its positions in compressed blocks, which a config cannot interpolate",
}
"""Families with rotary positions that no config can interpolate, and why."""


SWITCHES = (
    ("alibi", True, "ALiBi"),
    ("position_embedding_type", "nope", "no positions"),
    ("use_mem_rope", False, "no positions"),
)
"""Keys with which a family that can have rotary positions goes without."""


@dataclass(frozen=True)
class RopeState:
    """The positions of one checkpoint: which window, which base, which scaling, and who says so.

    family: transformers' ``model_type``.
    window: L', tokens: what the checkpoint states that it can read, scaling included.
    original_window: L, tokens: the window before the scaling.
    method: none, linear, dynamic, yarn, llama3, longrope or proportional.
    factor: by what the scaling stretches, 1.0 for none.
    base: θ, of the global layers.   head_dim: d.   rotary_dim: how many of the d are rotated.
    attention_factor: what cos and sin are multiplied by; None when transformers derives it.
    layers: layer type -> its rope parameters; {"": parameters} when one set serves all layers.
    where: which key of config.json it was read from.
    stated: ``max_position_embeddings`` as it stands there, tokens.
    head_dims: layer type -> d, as `layers`.
    """

    family: str
    window: int
    original_window: int
    method: str
    factor: float
    base: float
    head_dim: int
    rotary_dim: int
    attention_factor: float | None
    layers: dict[str, dict[str, Any]]
    where: str
    stated: int
    head_dims: dict[str, int] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The rope parameters of the global layers."""
        return self.layers[main_layer(self.layers)]

    @property
    def per_layer_type(self) -> bool:
        """Do layer types have rope parameters of their own?"""
        return "" not in self.layers


def text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config.json that describes the language model (``text_config`` of a multimodal one)."""
    nested = config.get("text_config")
    if isinstance(nested, dict) and "hidden_size" not in config and "rope_parameters" not in config:
        return nested
    return config


def as_read(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's config with every default in place, exactly as transformers takes it.

    Raises UserError for a family that transformers does not know and for a config that it refuses.
    """
    from transformers import CONFIG_MAPPING, __version__

    family = config.get("model_type")
    if not isinstance(family, str) or not family:
        raise UserError("config.json names no model_type: not a transformers checkpoint")
    if family not in CONFIG_MAPPING:
        code = ", and code shipped with a model is never run" if config.get("auto_map") else ""
        raise UserError(f"family {family[:60]!r} is not known to transformers {__version__}{code}")
    check_sizes(config)
    for parameters in _rope_dicts(text_part(config)):
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        if kind not in (*ROPE_TYPES, "mrope", "axial", "su"):
            raise UserError(
                f"config.json has rope type {shown(kind)}, which is none of {', '.join(ROPE_TYPES)}: "
                "its scaling is not known here"
            )
        check_parameters({"": parameters})
    with quiet():
        try:
            built = CONFIG_MAPPING[family].from_dict(copy.deepcopy(config))
            text = built.get_text_config(decoder=True)
            found: dict[str, Any] = text.to_dict()
        except Exception as error:  # configuration classes raise whatever they like on bad values
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"transformers refuses this config.json: {reason[:300]}") from None
    found.setdefault("model_type", text.model_type)
    for name in ("max_position_embeddings", "hidden_size", "num_attention_heads"):
        if name not in found:  # some families store these under names of their own
            found[name] = getattr(text, name, None)
    other = str(getattr(type(text), "attribute_map", {}).get("head_dim"))
    if found.get("head_dim") is None and isinstance(found.get(other), int):
        found["head_dim"] = found[other]
    return found


def window_key(config: dict[str, Any]) -> str:
    """The key in which this family's config.json states its window."""
    from transformers import CONFIG_MAPPING

    kind = str(text_part(config).get("model_type") or config["model_type"])
    names = getattr(CONFIG_MAPPING[kind], "attribute_map", {}) if kind in CONFIG_MAPPING else {}
    return str(names.get("max_position_embeddings", "max_position_embeddings"))


def read_state(config: dict[str, Any]) -> RopeState:
    """What transformers makes of the positions in ``config`` (a parsed config.json).

    Raises UserError for a model without rotary positions, naming the family and the reason.
    """
    read = as_read(config)
    family = str(read["model_type"])
    raw = read.get("rope_parameters")
    for key, value, what in SWITCHES:
        if read.get(key) == value:
            raise UserError(
                f"family {family}: this checkpoint has {what} ({key}: {str(value).lower()}) instead of "
                "rotary positions: there is nothing to interpolate"
            )
    if family in REFUSED:
        raise UserError(f"family {family} {REFUSED[family]}: it is not supported")
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"family {family} has no rotary positions (RoPE): there is nothing to interpolate")
    layers = split_layers(raw)
    if not layers:
        raise UserError(f"family {family} has no layer with rotary positions in this checkpoint")
    mixed = sorted(name for name, value in layers.get("", {}).items() if isinstance(value, dict))
    if mixed:
        raise UserError(
            f"config.json has one scaling for all layers beside others for {', '.join(mixed)[:100]}, and "
            f"family {family} takes one a layer type; keep one of the two"
        )
    check_parameters(layers)
    main = main_layer(layers)
    parameters = layers[main]
    head_dim = _head_dim(read, main)
    share = float(parameters.get("partial_rotary_factor") or 1.0)
    head_dims = {name: _head_dim(read, name) for name in layers}
    check_whole(layers, head_dims)
    stated = read.get("max_position_embeddings")
    if not isinstance(stated, int) or stated < 2:
        raise UserError(
            f"family {family}: config.json states no window (max_position_embeddings is {shown(stated)})"
        )
    method, factor, window, original = _scaling(parameters, stated)
    if min(window, original) < 2:
        raise UserError(
            f"config.json: {method} scaling by {factor:g} at a window of {stated:,} tokens means less "
            "than two tokens before or after it; copy the model's own config.json again"
        )
    attention = parameters.get("attention_factor")
    return RopeState(
        family=family,
        window=window,
        original_window=original,
        method=method,
        factor=factor,
        base=float(parameters.get("rope_theta") or 10_000.0),
        head_dim=head_dim,
        rotary_dim=int(head_dim * share),
        attention_factor=None if attention is None else float(attention),
        layers=layers,
        where=_where(text_part(config)),
        stated=stated,
        head_dims=head_dims,
    )


def split_layers(parameters: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Layer type -> rope parameters; flat ones become {"": parameters}; layers without RoPE are left out."""
    nested = {name: value for name, value in parameters.items() if isinstance(value, dict)}
    if nested and "rope_type" not in parameters and "type" not in parameters:
        return nested
    if any(value is None for name, value in parameters.items() if name.endswith("_attention")):
        return nested
    return {"": parameters} if parameters else {}


def main_layer(layers: dict[str, dict[str, Any]]) -> str:
    """The layer type whose scaling decides how far the model reads: a global one, where there is one."""
    for name in ("", "full_attention", "main"):
        if name in layers:
            return name
    for name in layers:
        if name not in LOCAL_LAYERS:
            return name
    return next(iter(layers))


def _rope_dicts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Every dictionary of rope parameters that a raw config.json holds."""
    found: list[dict[str, Any]] = []
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key)
        if isinstance(value, dict):
            found.extend(split_layers(value).values())
        elif value is not None:
            raise UserError(f"config.json has {key} {shown(value)}; it must be a mapping")
    return found


def _where(config: dict[str, Any]) -> str:
    """Which key of a raw config.json the scaling comes from (transformers prefers rope_scaling)."""
    for key in ("rope_scaling", "rope_parameters"):
        if config.get(key):
            return key
    for key in ("rope_theta", "rotary_emb_base"):
        if key in config:
            return key
    return "the family's defaults"


def _head_dim(read: dict[str, Any], layer: str) -> int:
    """d of the rotated heads, as transformers' rotary tables take it."""
    exceptions = read.get("per_layer_config")  # {"5": {"head_dim": 512}, ...}: layers unlike the others
    if isinstance(exceptions, dict):
        for i, kind in enumerate(read.get("layer_types") or []):
            own = exceptions.get(str(i), exceptions.get(i))
            if kind == layer and isinstance(own, dict) and isinstance(own.get("head_dim"), int):
                return int(own["head_dim"])
    if layer == "full_attention" and isinstance(read.get("global_head_dim"), int):
        return int(read["global_head_dim"])
    if isinstance(read.get("head_dim"), int) and read["head_dim"] > 0:
        return int(read["head_dim"])
    hidden, heads = read.get("hidden_size"), read.get("num_attention_heads")
    if not (isinstance(hidden, int) and isinstance(heads, int) and heads > 0):
        raise UserError("config.json does not say how large a head is (hidden_size, num_attention_heads)")
    return hidden // heads


def _scaling(parameters: dict[str, Any], stated: int) -> tuple[str, float, int, int]:
    """(method, factor, L', L) of one set of rope parameters beside the stated window."""
    kind = str(parameters.get("rope_type", "default"))
    if kind == "default":
        return "none", 1.0, stated, stated
    factor = parameters.get("factor")
    original = int(parameters.get("original_max_position_embeddings") or stated)
    if factor is None:
        factor = stated / original if kind in ("longrope", "yarn") else 1.0
    factor = float(factor)
    if kind in ("linear", "proportional"):
        return kind, factor, stated, round(stated / factor)
    if kind == "dynamic":  # the stated window is where its stretching begins
        return kind, factor, round(stated * factor), stated
    if kind == "yarn":
        return kind, factor, round(original * factor), original
    if kind == "longrope" and original == stated and factor > 1:  # one table at every length
        return kind, factor, stated, round(stated / factor)
    return kind, factor, stated, original
