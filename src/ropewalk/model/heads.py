"""Queries and keys of a loaded model's heads before rotation, caught on their way by forward hooks.

Families differ in what lies between projection and rotation (norms, the order of dimensions, scales). What
is caught is therefore rotated here and compared with the attention weights that the model itself gives;
a family for which they differ is refused by name instead of being shown wrongly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import UserError
from ..rope.rotate import rotary_table, rotate_half_split
from .swap import rotary_places

CHECKED = 48
"""Tokens on which the caught queries and keys are compared with the model's own attention weights."""


class Heads(NamedTuple):
    """One layer's queries (T, H, d) and keys (T, H_kv, d) before rotation, float32; its score's scale."""

    q: Tensor
    k: Tensor
    scale: float


class Rotary(NamedTuple):
    """What the model rotates by: θ_j (r/2,) of r rotated dimensions, and the factor of cos and sin."""

    inv_freq: Tensor
    attention_factor: float


def rotary_of(model: Any) -> Rotary:
    """The one rotary table of a model. Raises UserError where there are several, or none that is known."""
    family = model.config.get_text_config(decoder=True).model_type
    places = rotary_places(model)
    tables = [place.module.inv_freq for place in places if hasattr(place.module, "inv_freq")]
    if len(tables) < len(places) or len({tuple(one.tolist()) for one in tables}) != 1:
        raise UserError(
            f"family {family}: its layers do not share one rotary table, so attention scores cannot be shown"
        )
    module = places[0].module
    return Rotary(tables[0].detach().float().cpu(), float(getattr(module, "attention_scaling", 1.0)))


@torch.inference_mode()
def caught(model: Any, ids: Tensor) -> dict[int, Heads]:
    """Layer number -> its heads on the text ``ids`` (1, T), for every layer whose rotation is understood.

    Layers without rotary positions are not among them: their weights do not follow from a rotation.
    Raises UserError for a family without ``q_proj`` and ``k_proj`` modules, and for one in which the
    attention weights of no layer can be computed from what they give.
    """
    sliding = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    checked = ids[:, : min(CHECKED, sliding or CHECKED)]
    layers = _understood(model, checked, _attention_layers(model))
    with _hooked(layers) as store:
        model.base_model(input_ids=ids, use_cache=False)
    return {i: _heads(layers[i], store[i], ids.shape[1]) for i in sorted(store)}


def _family(model: Any) -> str:
    return str(model.config.get_text_config(decoder=True).model_type)


def _attention_layers(model: Any) -> dict[int, Any]:
    """Layer number -> its attention module."""
    found: dict[int, Any] = {}
    for module in model.base_model.modules():
        if hasattr(module, "q_proj") and hasattr(module, "k_proj") and hasattr(module, "head_dim"):
            index = getattr(module, "layer_idx", None)
            if index is not None:
                found[int(index)] = module
    if not found:
        raise UserError(
            f"family {_family(model)} has no q_proj and k_proj modules in its attention, so its queries and "
            "keys cannot be seen"
        )
    return found


@contextlib.contextmanager
def _hooked(layers: dict[int, Any]) -> Iterator[dict[int, dict[str, Tensor]]]:
    """Inside, a forward pass leaves what goes into the rotation: of the norm where there is one."""
    store: dict[int, dict[str, Tensor]] = {}
    hooks = []
    for i, module in layers.items():
        for name in ("q", "k"):

            def keep(_: Any, __: Any, out: Tensor, i: int = i, name: str = name) -> None:
                store.setdefault(i, {})[name] = out.detach().float().cpu()

            norm = getattr(module, f"{name}_norm", None)
            source = norm if isinstance(norm, torch.nn.Module) else getattr(module, f"{name}_proj")
            hooks.append(source.register_forward_hook(keep))
    try:
        yield store
    finally:
        for hook in hooks:
            hook.remove()


def _heads(module: Any, pair: dict[str, Tensor], length: int) -> Heads:
    """(1, T, H·d), (1, T, H, d) or (1, H, T, d) as (T, H, d)."""
    d = int(module.head_dim)

    def shaped(x: Tensor) -> Tensor:
        x = x[0]
        if x.ndim == 3 and x.shape[0] != length:
            x = x.transpose(0, 1)
        return x.reshape(length, -1, d)

    scale = float(getattr(module, "scaling", d**-0.5))
    return Heads(shaped(pair["q"]), shaped(pair["k"]), scale)


def _understood(model: Any, ids: Tensor, layers: dict[int, Any]) -> dict[int, Any]:
    """The layers in which softmax(rotated q · rotated k) is what transformers' plain attention gives."""
    before = model.config.get_text_config(decoder=True)._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with _hooked(layers) as store:
            own = model.base_model(input_ids=ids, use_cache=False, output_attentions=True).attentions
    finally:
        model.set_attn_implementation(before)
    length, rotary = ids.shape[1], rotary_of(model)
    exact = next(model.parameters()).dtype == torch.float32
    found = {}
    for i in sorted(store):
        weights = attention_weights(_heads(layers[i], store[i], length), rotary)
        given = own[i] if own is not None and i < len(own) else None
        if given is None or given[0].shape != weights.shape:
            continue
        if torch.allclose(given[0].float().cpu(), weights, rtol=0, atol=1e-3 if exact else 3e-2):
            found[i] = layers[i]
    if not found:
        raise UserError(
            f"family {_family(model)}: its attention weights do not follow from q_proj, k_proj and the "
            "rotary table as they do in Llama, so its scores cannot be shown"
        )
    return found


def attention_weights(heads: Heads, rotary: Rotary) -> Tensor:
    """Causal softmax of the scaled scores: (H, T, T). The first 2·len(θ) dimensions are rotated."""
    length, count, _ = heads.q.shape
    r = 2 * len(rotary.inv_freq)
    cos, sin = rotary_table(torch.arange(length), rotary.inv_freq, rotary.attention_factor)

    def turned(x: Tensor) -> Tensor:
        x = x.transpose(0, 1)
        return torch.cat([rotate_half_split(x[..., :r], cos, sin), x[..., r:]], dim=-1)

    q, k = turned(heads.q), turned(heads.k).repeat_interleave(count // heads.k.shape[1], dim=0)
    scores = q @ k.transpose(1, 2) * heads.scale
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    return scores.masked_fill(future, float("-inf")).softmax(-1)
