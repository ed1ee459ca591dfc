"""Shapes of well-known models, so that a plan needs no download: what their config.json files say."""

from __future__ import annotations

from typing import Any

SIZES = {
    "smollm2-135m": (49152, 576, 1536, 30, 9, 3, 8192, 1e5),
    "llama-7b": (32000, 4096, 11008, 32, 32, 32, 2048, 1e4),
    "llama-13b": (32000, 5120, 13824, 40, 40, 40, 2048, 1e4),
    "llama-33b": (32000, 6656, 17920, 60, 52, 52, 2048, 1e4),
    "llama-65b": (32000, 8192, 22016, 80, 64, 64, 2048, 1e4),
    "llama-2-7b": (32000, 4096, 11008, 32, 32, 32, 4096, 1e4),
    "llama-2-13b": (32000, 5120, 13824, 40, 40, 40, 4096, 1e4),
    "llama-2-70b": (32000, 8192, 28672, 80, 64, 8, 4096, 1e4),
    "llama-3-8b": (128256, 4096, 14336, 32, 32, 8, 8192, 5e5),
    "llama-3-70b": (128256, 8192, 28672, 80, 64, 8, 8192, 5e5),
    "mistral-7b": (32000, 4096, 14336, 32, 32, 8, 32768, 1e6),
}
"""name: vocabulary, hidden size, feed-forward width, layers, heads, key-value heads, window L, base θ."""


def known_config(name: str) -> dict[str, Any] | None:
    """The config.json of a model known by ``name`` (in any case), as a Llama; None for another name."""
    sizes = SIZES.get(name.lower())
    if sizes is None:
        return None
    vocabulary, hidden, inner, layers, heads, key_heads, window, base = sizes
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": window,
        "rope_theta": base,
        "tie_word_embeddings": name.lower() == "smollm2-135m",
    }
