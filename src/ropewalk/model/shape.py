"""The sizes of a model that decide what its training costs, read from a config alone."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .config import as_read
from .quiet import quiet


@dataclass(frozen=True)
class Shape:
    """A decoder as arithmetic sees it.

    hidden: D, numbers in a token's state.   layers: blocks.   inner: I, width of the feed-forward part.
    heads, kv_heads: query heads, key-value heads.   head_dim: d.   vocab: V, words.
    tied: are the embeddings the output head too?   gated: has the feed-forward part a gate (3 matrices)?
    experts, active: feed-forward parts in a layer, and how many of them a token goes through.
    window: L', tokens.
    """

    hidden: int
    layers: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    window: int
    gated: bool = True
    experts: int = 1
    active: int = 1

    @property
    def query(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    @property
    def attention_weights(self) -> int:
        """Weights of one layer's four attention projections."""
        return 2 * self.hidden * (self.query + self.key)

    @property
    def inner_weights(self) -> int:
        """Weights of one feed-forward part."""
        return (3 if self.gated else 2) * self.hidden * self.inner

    @property
    def head_weights(self) -> int:
        """Weights of the output head."""
        return self.hidden * self.vocab


PLAIN = ("gpt_neox", "phi", "falcon", "starcoder2", "nemotron", "persimmon", "stablelm_epoch")
"""Families whose feed-forward part is two matrices, without a gate."""


def shape_of(config: dict[str, Any]) -> Shape:
    """The sizes that a parsed config.json states. Raises UserError when it states none."""
    return shape_from(as_read(config))


def shape_from(read: dict[str, Any]) -> Shape:
    """The sizes in a config as transformers reads it (`as_read`). Raises UserError when it states none.

    What a family does not state is taken as Llama has it: heads of 64, a feed-forward part four times wide.
    """
    for name in ("hidden_size", "num_hidden_layers"):
        if _first(read, name) is None:
            raise UserError(
                f"family {read.get('model_type')}: config.json states no {name} ({read.get(name)!r})"
            )
    hidden, layers = int(read["hidden_size"]), int(read["num_hidden_layers"])
    heads = _first(read, "num_attention_heads") or max(1, hidden // 64)
    experts = _first(read, "num_local_experts", "num_experts", "n_routed_experts") or 1
    inner = _first(read, "intermediate_size", "ffn_hidden_size", "ffn_dim", "n_inner") or 4 * hidden
    if experts > 1:
        inner = _first(read, "moe_intermediate_size") or inner
    return Shape(
        hidden=hidden,
        layers=layers,
        inner=inner,
        heads=heads,
        kv_heads=_first(read, "num_key_value_heads", "num_kv_heads") or heads,
        head_dim=_first(read, "head_dim") or max(1, hidden // heads),
        vocab=_first(read, "vocab_size") or 32_000,
        tied=bool(read.get("tie_word_embeddings")),
        window=_first(read, "max_position_embeddings") or 0,
        gated=read.get("model_type") not in PLAIN,
        experts=experts,
        active=(_first(read, "num_experts_per_tok", "top_k_experts") or 1) if experts > 1 else 1,
    )


def empty_model(config: dict[str, Any]) -> Any:
    """The language model that a parsed config.json describes, without weights (on the meta device).

    Raises UserError when transformers cannot lay it out.
    """
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    as_read(config)
    with quiet():
        try:
            built = CONFIG_MAPPING[str(config["model_type"])].from_dict(copy.deepcopy(config))
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(built)
        except Exception as error:  # model classes raise whatever they like
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"transformers cannot lay out this model from its config: {reason}") from None


def _first(read: dict[str, Any], *names: str) -> int | None:
    """The first of these keys that holds a positive whole number."""
    for name in names:
        value = read.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
