"""A tiny random Llama, stretched fourfold from 16 to 64 tokens, with a byte-level tokenizer."""

from __future__ import annotations

from pathlib import Path


def write_tiny_model(path: Path, **more) -> Path:
    """Write the checkpoint; ``more`` are fields of its LlamaConfig."""
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
