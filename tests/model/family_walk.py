"""Tiny random models of every family in transformers: is a config-only extension exact?

    python tests/model/family_walk.py            all families; writes family_support.json and docs/families.md
    python tests/model/family_walk.py llama phi  print these rows

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
from ropewalk.model.config import read_state
from ropewalk.model.quiet import quiet
from ropewalk.model.scaling import extended_config

WINDOW, FACTOR, LENGTH = 64, 4, 24
BOUND = 2e-5
"""Of the largest logit: float32 rounding of a frequency divided once more (longrope composition)."""

INTRODUCTION = """\
Which families of causal language models in transformers {transformers} `ropewalk extend` lengthens: **{n}**,
{exact} of them bit for bit. For each a tiny random model was saved, extended ×{factor} by its config alone
and reloaded; its logits at positions m were compared with the original's at positions m/{factor}. A family
counts as supported when the largest difference is at most {bound:g} of the largest logit (float32 rounding)
and the extension moves the logits at all.

*ships*: a scaling that the family's default config already has, and which is composed.
*written as*: the rope type that carries Position Interpolation.
*layer types*: families whose layer types have rope parameters of their own; only the global ones are scaled
unless `--all-layers` is given (this test scales all).
*rotated*: share of a head's dimensions that RoPE rotates."""

TABLE = Path(__file__).with_name("family_support.json")
PAGE = Path(__file__).parents[2] / "docs" / "families.md"

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
    "image_size": 28,
    "patch_size": 14,
    "depth": 1,
    "encoder_layers": 1,
    "num_blocks": 1,
    "attention_dim": 64,
    "max_source_positions": 32,
}

DERIVED = ("head_dim", "num_key_value_heads")
"""Fields that some families leave open by default and then cannot build."""

EXTRA: dict[str, dict[str, Any]] = {
    "axk2": {"num_key_value_heads": 4},
    "bailing_hybrid": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "bamba": {"attn_layer_indices": [1, 3], "attn_rotary_emb": 8},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots3_note_text": {"shared_experts_intermediate_size": 32},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "position_embedding_type": "rope",
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2, "use_mem_rope": True},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family needs besides being small."""

SWITCHES = ("position_embedding_type", "use_mem_rope")
"""Keys that turn rotary positions on."""


def tiny_config(family: str) -> Any:
    """A transformers configuration of ``family`` with a few thousand parameters."""
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[family]
    default = cls()
    text = default.get_text_config(decoder=True)
    if text is default:
        return cls(**shrunk(family, default.to_dict()))
    parts = {k: v for k, v in default.to_dict().items() if isinstance(v, dict) and "model_type" in v}
    return cls(**{name: shrunk(part["model_type"], part) for name, part in parts.items()})


def shrunk(family: str, full: dict[str, Any]) -> dict[str, Any]:
    """The fields to set so that this configuration becomes tiny; depth-dependent lists are cut to match."""
    depth = full.get("num_hidden_layers")
    small: dict[str, Any] = {}
    for name, value in full.items():
        if isinstance(value, list) and isinstance(depth, int) and len(value) == depth:
            small[name] = _four(value)
        elif isinstance(value, dict) and "model_type" in value:
            small[name] = shrunk(value["model_type"], value)
        elif name in SMALL and (isinstance(value, int | float) or (value is None and name in DERIVED)):
            small[name] = SMALL[name]
    if full.get("kv_lora_rank") or "qk_rope_head_dim" in full:
        small["num_key_value_heads"] = 4  # latent attention has one key head for each query head
    if isinstance(full.get("rope_parameters"), dict):
        small["rope_parameters"] = _rope(copy.deepcopy(full["rope_parameters"]))
    return {**small, **EXTRA.get(family, {})}


def _four(values: list[Any]) -> list[Any]:
    """Four of many layers' entries, every kind among them, in order."""
    kinds = list(dict.fromkeys(json.dumps(v) for v in values))
    first = sorted(next(i for i, v in enumerate(values) if json.dumps(v) == kind) for kind in kinds)
    rest = [i for i in range(len(values)) if i not in first]
    return [values[i] for i in sorted((first + rest)[:4])]


def _rope(parameters: dict[str, Any]) -> dict[str, Any]:
    """The family's own rope parameters, a shipped scaling cut to the tiny window."""
    for own in [parameters, *(v for v in parameters.values() if isinstance(v, dict))]:
        if "original_max_position_embeddings" in own:
            own["original_max_position_embeddings"] = 16
            own["factor"] = WINDOW / 16
            own.pop("max_position_embeddings", None)
    return parameters


def build(config: Any) -> Any:
    """A random model whose logits depend clearly on its input."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(copy.deepcopy(config)).parameters())
    assert size < 30_000_000, f"not tiny: {size:,} parameters"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2 and parameter.is_floating_point():
                parameter.copy_(torch.randn_like(parameter) * (2.0 / parameter.shape[-1]) ** 0.5)
    return model.float()


def logits(model: Any, positions: torch.Tensor) -> torch.Tensor:
    """Of one fixed sequence at the positions given; the mask says that it is one sequence."""
    torch.manual_seed(2)
    ids = torch.randint(3, 128, (1, positions.shape[1]))
    with torch.no_grad():
        return model(
            input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False
        ).logits


def examine(family: str) -> dict[str, Any]:
    """One row of the table: how a tiny model of ``family`` fares under extension by ×4.

    error: largest difference of its logits at positions m from the original's at m/4; scale: the largest
    logit; moved: how far the extension moves the logits at all.   no: why it is not supported.
    """
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    try:
        default = CONFIG_MAPPING[family]().to_dict()
        switches = {key: value for key, value in EXTRA.get(family, {}).items() if key in SWITCHES}
        read_state({**default, **switches})
    except UserError as error:
        return {"family": family, "no": str(error)}
    with quiet(), tempfile.TemporaryDirectory() as place:
        config = tiny_config(family)
        raw = json.loads(json.dumps(config.to_dict()))
        state = read_state(raw)
        try:
            extended_config(raw, state.window * FACTOR)
        except UserError as error:
            return {"family": family, "no": str(error)}
        new = extended_config(raw, state.window * FACTOR, all_layers=True)
        model = build(config)
        model.save_pretrained(place)
        positions = torch.arange(LENGTH)[None]
        plain = logits(model, positions)
        wanted = logits(model, positions.float() / FACTOR)
        (Path(place) / "config.json").write_text(json.dumps(new))
        again = AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager", dtype=torch.float32)
        got = logits(again.eval(), positions)
    after = read_state(new)
    return {
        "family": family,
        "text": state.family,
        "shipped": state.method,
        "written": sorted({str(own.get("rope_type")) for own in after.layers.values()}),
        "layers": sorted(state.layers),
        "share": round(state.rotary_dim / state.head_dim, 4),
        "error": float(f"{float((got - wanted).abs().max()):.2g}"),
        "moved": float(f"{float((plain - wanted).abs().max()):.2g}"),
        "scale": float(f"{float(wanted.abs().max()):.2g}"),
    }


def supported(row: dict[str, Any]) -> bool:
    """Exact, or within float32 rounding; and the extension did something."""
    return "no" not in row and row["error"] <= BOUND * row["scale"] and row["moved"] > 1e-3 * row["scale"]


def walk() -> dict[str, Any]:
    """All families of causal language models in the installed transformers."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    rows = []
    for family in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        try:
            rows.append(examine(family))
        except Exception as error:  # a family whose tiny model cannot be built is listed as not tried
            reason = " ".join(str(error).split())[:120]
            rows.append({"family": family, "no": f"not tried: {type(error).__name__}: {reason}"})
        print(json.dumps(rows[-1]), flush=True)
    return {"transformers": transformers.__version__, "factor": FACTOR, "rows": rows}


def page(found: dict[str, Any]) -> str:
    """docs/families.md."""
    good = [row for row in found["rows"] if supported(row)]
    exact = sum(row["error"] == 0 for row in good)
    rope = [r for r in found["rows"] if not supported(r) and "has no rotary positions" not in r.get("no", "")]
    plain = [r["family"] for r in found["rows"] if "has no rotary positions" in r.get("no", "")]
    lines = [
        "# Families",
        "",
        "<!-- written by tests/model/family_walk.py; do not edit -->",
        "",
        INTRODUCTION.format(n=len(good), exact=exact, bound=BOUND, **found),
        "",
        "| family | ships | written as | layer types | rotated | largest difference |",
        "|---|---|---|---|---:|---:|",
    ]
    for row in good:
        layers = ", ".join(name for name in row["layers"] if name) or "–"
        error = "0" if row["error"] == 0 else f"{row['error']:.1g}"
        name = row["family"] if row["text"] == row["family"] else f"{row['family']} ({row['text']})"
        lines.append(
            f"| {name} | {row['shipped'] if row['shipped'] != 'none' else '–'} | {', '.join(row['written'])} "
            f"| {layers} | {row['share']:.0%} | {error} |"
        )
    lines += ["", "## With rotary positions, not supported", "", "| family | why |", "|---|---|"]
    for row in rope:
        why = row.get("no") or _doubt(row)
        lines.append(f"| {row['family']} | {why} |")
    lines += ["", "## Without rotary positions", "", ", ".join(plain) + ".", ""]
    return "\n".join(lines)


def _doubt(row: dict[str, Any]) -> str:
    if row["moved"] <= 1e-3 * row["scale"]:
        return "not shown: the logits of its tiny model hardly depend on positions"
    return f"not exact: largest difference {row['error']:g}, largest logit {row['scale']:g}"


def main(names: list[str]) -> None:
    """Rows of the families named, or the whole walk into its two files."""
    if names:
        for family in names:
            print(json.dumps(examine(family)), flush=True)
        return
    found = walk()
    TABLE.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main(sys.argv[1:])
