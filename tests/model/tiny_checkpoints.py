"""Tiny checkpoints, adapters and GGUF files for the tests: written in milliseconds, broken on request."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 64
SPECIAL = ["<s>", "</s>"]


def alphabet() -> list[str]:
    """The 256 byte symbols of byte-level BPE, sorted, after the special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    return SPECIAL + sorted(ByteLevel.alphabet())


@functools.cache
def _original() -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ropewalk.model.quiet import quiet

    place = Path(tempfile.mkdtemp(prefix="tiny-llama-"))
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=258,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.5,
    )
    with quiet():
        LlamaForCausalLM(config).save_pretrained(place)
    write_tokenizer(place)
    return place


def write_tokenizer(place: Path, *, bos: bool = True) -> None:
    """A byte-level tokenizer of 258 tokens that puts BOS in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    built = Tokenizer(models.BPE({token: i for i, token in enumerate(alphabet())}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    if bos:
        built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    built.save(str(place / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos_token": bos,
        "model_max_length": WINDOW,
    }
    (place / "tokenizer_config.json").write_text(json.dumps(settings))


def llama(place: Path, **changes: Any) -> Path:
    """A tiny Llama of window 64 and base 50,000; ``changes`` go into its config.json (None removes)."""
    shutil.copytree(_original(), place)
    edit(place / "config.json", **changes)
    return place


def edit(file: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes a key."""
    found = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value
    file.write_text(json.dumps(found))


def read(file: Path) -> dict[str, Any]:
    """A JSON file."""
    return json.loads(file.read_text())


def gguf(path: Path, *, scaling: float | None = None, pre: str = "smollm", adds_bos: bool = False) -> Path:
    """A GGUF file of the same tiny architecture with a byte-level vocabulary of 260 tokens, float32."""
    from gguf import GGUFWriter, RopeScalingType

    hidden, layers, heads, kv, ffn, vocab = 32, 2, 4, 2, 64, 260
    writer = GGUFWriter(str(path), "llama")
    writer.add_block_count(layers)
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(50_000.0)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_vocab_size(vocab)
    if scaling is not None:
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([*alphabet(), "lo", "12"])
    writer.add_token_types([3, 3] + [1] * 258)
    writer.add_token_merges(["l o", "1 2"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(adds_bos)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    random = np.random.default_rng(0)

    def matrix(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.standard_normal(shape).astype(np.float32) * 0.5)

    matrix("token_embd.weight", vocab, hidden)
    matrix("output_norm.weight", hidden)
    for i in range(layers):
        matrix(f"blk.{i}.attn_norm.weight", hidden)
        matrix(f"blk.{i}.ffn_norm.weight", hidden)
        matrix(f"blk.{i}.attn_q.weight", hidden, hidden)
        matrix(f"blk.{i}.attn_k.weight", kv * hidden // heads, hidden)
        matrix(f"blk.{i}.attn_v.weight", kv * hidden // heads, hidden)
        matrix(f"blk.{i}.attn_output.weight", hidden, hidden)
        matrix(f"blk.{i}.ffn_gate.weight", ffn, hidden)
        matrix(f"blk.{i}.ffn_up.weight", ffn, hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, ffn)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
