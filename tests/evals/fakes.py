"""A language model in ten lines, and a tiny real one on disk."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch


class FakeLM:
    """Characters are tokens; every token has probability 1/V; the answer is the key seen, or none."""

    name, window, device, dtype = "fake", 64, "cpu", "float32"
    stops = ()

    def __init__(self, bos: int | None = None, vocab: int = 256, sight: int = 10**9) -> None:
        self.bos, self.vocab, self.sight = bos, vocab, sight
        self.calls: list[tuple[int, int, int]] = []

    def encode(self, text):
        return [ord(c) % self.vocab for c in text]

    def decode(self, ids):
        return "".join(chr(int(i)) for i in ids if i != self.bos)

    def log_probs(self, windows, scored):
        self.calls.append((*windows.shape, scored))
        return torch.full((len(windows), scored), -math.log(self.vocab))

    def generate(self, prompts, new_tokens, decoding=None):
        """Finds the key when its first digit is at most ``sight`` tokens before prompt and answer end."""
        answers = []
        for row in prompts.tolist():
            seen = self.decode(row[max(0, len(row) + new_tokens - self.sight) :])
            key = re.search(r"(\d{5})\. Remember", seen)
            text = f" {key[1]}" if key else " 0 no idea"
            answers.append([ord(c) for c in text[:new_tokens].ljust(new_tokens)])
        return torch.tensor(answers)

    def describe(self):
        return {"name": self.name, "hash": "0" * 16, "window": self.window}


class HashLM(FakeLM):
    """Log-probabilities that depend on the token and on how many stand before it in the window."""

    def log_probs(self, windows, scored):
        self.calls.append((*windows.shape, scored))
        length = windows.shape[1]
        seen = torch.arange(length - scored, length)
        ids = windows[:, -scored:].double()
        return (-1 - (ids * 0.37 % 1) - 5 / (seen + 1)).float()


TEXT = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
    "There is an important info hidden inside a lot of irrelevant text. What is the pass key? "
)


def tiny_tokenizer(vocab: int = 300, bos: bool = False):
    """A byte-level BPE tokenizer trained on a few sentences, digits apart."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT] * 3, trainer)
    if bos:
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>")


def tiny_checkpoint(path: Path, window: int = 128, bos: bool = False) -> Path:
    """A random Llama of 2 layers with its tokenizer, saved as a checkpoint directory."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(bos=bos)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
