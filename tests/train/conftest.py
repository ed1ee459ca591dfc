"""A tiny random Llama, stretched fourfold from 16 to 64 tokens, with a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest


def write_tiny_model(path: Path, **more) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: i for i, word in enumerate(["<s>", "</s>", *letters])}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    torch.manual_seed(0)
    settings = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        "bos_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": True,
        "attention_dropout": 0.1,  # so that a resume that forgets the random state is seen
    }
    LlamaForCausalLM(LlamaConfig(**{**settings, **more})).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>").save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """Forty short documents, 6,000 characters in all."""
    import json

    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    lines = [
        json.dumps({"text": f"Document {i}. " + f"Line of number {i * 37 % 101}. " * (2 + i % 9)})
        for i in range(40)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
