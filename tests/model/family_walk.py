"""Tiny random models of every family in transformers: is a config-only extension exact?

    python tests/model/family_walk.py            walk all families, print the table
    python tests/model/family_walk.py llama phi  walk these

For each family a random model of a few thousand parameters is saved, extended by config alone, saved and
reloaded; its logits at positions m must be those of the original at positions m/k.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ropewalk.errors import UserError
from ropewalk.model.config import as_read, read_state
from ropewalk.model.quiet import quiet
from ropewalk.model.scaling import extended_config

WINDOW, FACTOR, LENGTH = 64, 4, 24

SMALL: dict[str, Any] = {
    "hidden_size": 64,
    "n_embd": 64,
    "d_model": 64,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "num_hidden_layers": 4,
    "n_layer": 4,
    "n_layers": 4,
    "num_layers": 4,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 16,
    "global_head_dim": 16,
    "kv_channels": 16,
    "vocab_size": 128,
    "max_position_embeddings": WINDOW,
    "max_seq_len": WINDOW,
    "n_positions": WINDOW,
    "model_max_length": WINDOW,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "o_lora_rank": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "qk_head_dim": 32,
    "v_head_dim": 16,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "moe_topk": 2,
    "top_k": 2,
    "n_group": 1,
    "topk_group": 1,
    "num_expert_group": 1,
    "sliding_window": 8,
    "attention_chunk_size": 8,
    "local_attention": 8,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": 128,
    "num_kv_shared_layers": 0,
    "laurel_rank": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 32,
    "mamba_d_ssm": 128,
    "mamba_d_state": 16,
    "mamba_n_groups": 1,
    "mamba_num_heads": 4,
    "mamba_head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "index_head_dim": 16,
    "index_n_heads": 2,
    "index_topk": 256,
    "index_topk_freq": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
}


def tiny_config(family: str) -> Any:
    """A transformers configuration of ``family`` with a few thousand parameters."""
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[family]
    default = cls()
    text = default.get_text_config(decoder=True)
    small = shrunk(text.to_dict())
    if text is default:
        return cls(**small)
    name = next(
        key
        for key, part in default.to_dict().items()
        if isinstance(part, dict) and key != "x" and part.get("model_type") == text.model_type
    )
    return cls(**{name: small})


def shrunk(full: dict[str, Any]) -> dict[str, Any]:
    """The fields to set so that this configuration becomes tiny; depth-dependent lists are cut to match."""
    depth = full.get("num_hidden_layers")
    small: dict[str, Any] = {}
    for name, value in full.items():
        if name in SMALL and value is not None and not isinstance(value, (list, dict)):
            small[name] = SMALL[name]
        elif isinstance(value, list) and isinstance(depth, int) and len(value) == depth:
            small[name] = _four(value)
    if isinstance(full.get("rope_parameters"), dict):
        small["rope_parameters"] = _rope(copy.deepcopy(full["rope_parameters"]))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if isinstance(full.get(name), list):
            small[name] = [SMALL[name]]
    return small


def _four(values: list[Any]) -> list[Any]:
    """Four of many layers' entries, every kind among them, in order."""
    kinds = list(dict.fromkeys(json.dumps(v) for v in values))
    first = sorted(next(i for i, v in enumerate(values) if json.dumps(v) == kind) for kind in kinds)
    rest = [i for i in range(len(values)) if i not in first]
    return [values[i] for i in sorted((first + rest)[:4])]


def _rope(parameters: dict[str, Any]) -> dict[str, Any]:
    for own in [parameters, *(v for v in parameters.values() if isinstance(v, dict))]:
        if "original_max_position_embeddings" in own:
            own["original_max_position_embeddings"] = max(int(WINDOW / own["factor"]), 8)
    return parameters


def build(config: Any) -> Any:
    """A random model whose logits depend clearly on its input."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    if size > 20_000_000:
        raise ValueError(f"not tiny: {size:,} parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and parameter.is_floating_point():
                parameter.copy_(torch.randn_like(parameter) * (2.0 / parameter.shape[-1]) ** 0.5)
    return model.float()


def logits(model: Any, positions: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(2)
    ids = torch.randint(3, 128, (1, positions.shape[1]))
    with torch.no_grad():
        return model(
            input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False
        ).logits


def examine(family: str) -> dict[str, Any]:
    """One row of the table: how a tiny model of ``family`` fares under extension by ×4."""
    from transformers import AutoConfig, AutoModelForCausalLM

    with quiet(), tempfile.TemporaryDirectory() as place:
        config = tiny_config(family)
        raw = json.loads(json.dumps(config.to_dict()))
        state = read_state(raw)
        new = extended_config(raw, state.window * FACTOR, "linear", all_layers=True)
        model = build(config)
        model.save_pretrained(place)
        positions = torch.arange(LENGTH)[None]
        plain = logits(model, positions)
        wanted = logits(model, positions.float() / FACTOR)
        (Path(place) / "config.json").write_text(json.dumps(new))
        AutoConfig.from_pretrained(place)
        again = AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager", dtype=torch.float32)
        got = logits(again.eval(), positions)
    return {
        "family": family,
        "rope": state.family,
        "method": state.method,
        "layers": sorted(state.layers),
        "share": state.rotary_dim / state.head_dim,
        "error": float((got - wanted).abs().max()),
        "moved": float((plain - wanted).abs().max()),
        "scale": float(wanted.abs().max()),
    }


def main(names: list[str]) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    for family in names or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            row = examine(family)
            print(family, json.dumps(row), flush=True)
        except UserError as error:
            print(family, "NO:", str(error)[:150], flush=True)
        except Exception as error:
            print(family, "FAIL", type(error).__name__, " ".join(str(error).split())[:200], flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
