"""The layers of a plain Llama-like model, part by part: for scoring, less to compute and to move.

Perplexity scores the last S of T tokens. For that, of the last layer only those S rows are needed beside
its keys and values: 1/layers of nearly all operations is saved. The rest is memory traffic. For each token
and layer of SmolLM2-135M (hidden 576, inner 1,536, bfloat16), in bytes that the parts other than matrix
products and attention read and write:

    transformers' layer, compiled    norm 2,304  rotation 3,072  sum and norm 4,608  gate 9,216  sum 3,456
    here                             norm 2,304  rotation 3,072          norm 2,304  gate 9,216

because the products after attention and feed-forward add to the residual stream themselves; and q, k, v are
one product, gate and up another, which read their input once instead of three times and twice. On Hopper
cards the gate is inside its product too, and its 9,216 bytes fall away (gated.py).

Nothing is inexact: the same sums in another order, some with one rounding where there were two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import linear, scaled_dot_product_attention

from .gated import gated_product

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""Model types whose layers are written alike, but for biases and norms of q and k."""

PARTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
         "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # fmt: skip
NEEDED = {f"{name}.weight" for name in (*PARTS, "input_layernorm", "post_attention_layernorm")}
POSSIBLE = {f"self_attn.{name}" for name in ("q_proj.bias", "k_proj.bias", "v_proj.bias",
                                             "q_norm.weight", "k_norm.weight")}  # fmt: skip
"""Parameters of a layer: a layer with others is not plain."""

CLOSE = {torch.float32: 1e-4}
"""Share of their norm by which hidden states may differ from transformers' own; a tenth in 16 bits."""


ANY = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Kernels that take any length and head size."""

LAST = [SDPBackend.FLASH_ATTENTION, *ANY]
"""For the last layer's rows: the flash kernel needs no mask where there are fewer rows than keys."""


@dataclass(frozen=True)
class Layer:
    """The weights of one layer; those that have the same input are in one tensor."""

    before: Tensor
    qkv: Tensor
    bias: Tensor | None
    of_heads: tuple[Tensor, Tensor] | None  # norms of q and k
    out: Tensor
    between: Tensor
    gate_up: Tensor
    down: Tensor


def plain_decoder(model: Any, *, compiled: bool) -> PlainDecoder | None:
    """The layers of a causal language model of transformers, when they are plain; else None.

    They are when the family is one of `FAMILIES` without sliding windows, no layer has other parameters
    than the known ones, and the hidden states of some tokens are those of the model itself.
    """
    if not _looks_plain(model):
        return None
    base = model.base_model
    ids = (torch.arange(96, device=base.embed_tokens.weight.device) * 7 % model.config.vocab_size).view(2, 48)
    with torch.inference_mode(), sdpa_kernel(ANY):
        expected = base(input_ids=ids, use_cache=False).last_hidden_state[:, -9:-1].float()
        eager = PlainDecoder(model, compiled=False)
        found = [eager(ids, scored) for scored in (8, 40)]
    bound = CLOSE.get(base.dtype, 0.1) * float(expected.norm())
    close = [float((one.view(2, n, -1)[:, -8:] - expected).norm()) <= bound for one, n in zip(found, (8, 40))]
    return PlainDecoder(model, compiled=compiled) if all(close) else None


def _looks_plain(model: Any) -> bool:
    base, config = model.base_model, model.config
    if config.model_type not in FAMILIES or getattr(config, "sliding_window", None) is not None:
        return False
    return all(
        NEEDED <= {name for name, _ in layer.named_parameters()} <= NEEDED | POSSIBLE
        and all(type(layer.get_submodule(part)) is nn.Linear for part in PARTS)
        and getattr(layer.self_attn, "sliding_window", None) is None
        for layer in base.layers
    )


class PlainDecoder:
    """The layers of ``model``, whose own weights become views of the packed ones: no memory is added.

    compiled: torch.compile norms, rotation and gate of whole passes, a few seconds a shape.
    trim: of the last layer compute only what is scored (its attention chooses a kernel of its own, for the
    whole process: not where several threads run).
    """

    def __init__(self, model: Any, *, compiled: bool) -> None:
        self._base = base = model.base_model
        attention = base.layers[0].self_attn
        self._act, self._eps = base.layers[0].mlp.act_fn, float(model.config.rms_norm_eps)
        self._size, self._scale = attention.head_dim, attention.scaling
        self._heads = attention.q_proj.out_features // self._size
        self._groups = self._heads * self._size // attention.k_proj.out_features
        self._kv = self._heads // self._groups
        self._layers = [_pack(layer) for layer in base.layers]
        wrap: Callable[..., Any] = torch.compile(dynamic=False) if compiled else lambda function: function
        self._norm, self._turned, self._gated = wrap(_norm), wrap(_turned), wrap(_gated)
        self._fused = gated_product(self._layers[0].gate_up, self._act)
        self.trim = True

    def __call__(self, ids: Tensor, scored: int) -> Tensor:
        """The last hidden states where the last ``scored`` tokens are foretold: (B, T) -> (B·scored, d)."""
        x = self._base.embed_tokens(ids)
        cos, sin = self._base.rotary_emb(x, torch.arange(ids.shape[1], device=ids.device)[None])
        length, width = x.shape[1:]
        flat = x.view(-1, width)
        trim = self.trim and 4 * scored <= length
        for layer in self._layers[: -1 if trim else None]:
            h = self._norm(flat, layer.before, self._eps)
            flat.addmm_(self._attention(h.view(x.shape), layer, cos, sin), layer.out.t())
            h = self._norm(flat, layer.between, self._eps)
            flat.addmm_(self._inner(h, layer), layer.down.t())
        rows = slice(length - 1 - scored, length - 1)
        few = x[:, rows].reshape(-1, width)
        if trim:
            layer = self._layers[-1]
            h = self._norm(flat, layer.before, self._eps)
            few.addmm_(self._last_attention(h.view(x.shape), layer, cos, sin, rows), layer.out.t())
            both = linear(_norm(few, layer.between, self._eps), layer.gate_up)
            few.addmm_(_gated(both, self._act), layer.down.t())
        return _norm(few, self._base.norm.weight, self._eps)

    def _inner(self, h: Tensor, layer: Layer) -> Tensor:
        """What goes into the last product of the feed-forward part: (n, d) -> (n, inner)."""
        if self._fused is not None:
            return self._fused(h, layer.gate_up)
        return self._gated(linear(h, layer.gate_up), self._act)

    def _attention(self, h: Tensor, layer: Layer, cos: Tensor, sin: Tensor) -> Tensor:
        """Causal attention, before its output product: (B, T, d) -> (B·T, heads · head size)."""
        mixed = linear(h, layer.qkv, layer.bias).unflatten(-1, (-1, self._size))
        q, k, v = mixed.split([self._heads, self._kv, self._kv], dim=2)
        q, k = self._turned(q, k, cos, sin, layer.of_heads, self._eps)
        out = scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2),
            is_causal=True, scale=self._scale, enable_gqa=self._groups > 1,
        )  # fmt: skip
        return out.transpose(1, 2).reshape(-1, self._heads * self._size)

    def _last_attention(self, h: Tensor, layer: Layer, cos: Tensor, sin: Tensor, rows: slice) -> Tensor:
        """The same for these rows alone, over all keys: (B, T, d) -> (B·rows, heads · head size).

        Row i of ``rows`` sees the keys up to its own place: a causal mask in the lower right corner.
        """
        cut = self._heads * self._size
        biases = (None, None) if layer.bias is None else (layer.bias[:cut], layer.bias[cut:])
        q = linear(h[:, rows], layer.qkv[:cut], biases[0]).unflatten(-1, (-1, self._size))
        both = linear(h, layer.qkv[cut:], biases[1]).unflatten(-1, (-1, self._size))
        k, v = both.split([self._kv, self._kv], dim=2)
        norms = layer.of_heads or (None, None)
        q = _rotated(q, cos[:, rows], sin[:, rows], norms[0], self._eps)
        k = _rotated(k, cos, sin, norms[1], self._eps)
        keys = slice(rows.stop)
        with sdpa_kernel(LAST):
            out = scaled_dot_product_attention(
                q.transpose(1, 2), k[:, keys].transpose(1, 2), v[:, keys].transpose(1, 2),
                attn_mask=causal_lower_right(q.shape[1], rows.stop), scale=self._scale,
                enable_gqa=self._groups > 1,
            )  # fmt: skip
        return out.transpose(1, 2).reshape(-1, cut)


def _pack(layer: Any) -> Layer:
    attention, mlp = layer.self_attn, layer.mlp
    heads = (attention.q_proj, attention.k_proj, attention.v_proj)
    biased = attention.q_proj.bias is not None
    norms = hasattr(attention, "q_norm")
    return Layer(
        before=layer.input_layernorm.weight,
        qkv=_together(heads),
        bias=torch.cat([one.bias for one in heads]) if biased else None,
        of_heads=(attention.q_norm.weight, attention.k_norm.weight) if norms else None,
        out=attention.o_proj.weight,
        between=layer.post_attention_layernorm.weight,
        gate_up=_together((mlp.gate_proj, mlp.up_proj)),
        down=mlp.down_proj.weight,
    )


def _together(linears: Sequence[nn.Linear]) -> Tensor:
    """Their weights in one tensor, of which each one's own becomes a view."""
    with torch.inference_mode(False), torch.no_grad():
        whole = torch.cat([one.weight.detach() for one in linears])
        for one, part in zip(linears, whole.split([one.out_features for one in linears])):
            one.weight.data = part
    return whole


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last dimension, as transformers' LlamaRMSNorm."""
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def _turned(
    q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, norms: tuple[Tensor, Tensor] | None, eps: float
) -> tuple[Tensor, Tensor]:
    """`_rotated` of both."""
    a, b = norms or (None, None)
    return _rotated(q, cos, sin, a, eps), _rotated(k, cos, sin, b, eps)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """Half-split rotation, after a norm of each head where there is one: (B, T, heads, head size) -> same."""
    x = x if weight is None else _norm(x, weight, eps)
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * cos[:, :, None] + turned * sin[:, :, None]


def _gated(both: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """act(gate) · up of (n, 2·inner) -> (n, inner)."""
    gate, up = both.chunk(2, dim=-1)
    return act(gate) * up
