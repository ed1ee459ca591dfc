"""A recipe with everything in it, small: a random Llama, texts, questions and summaries, all made here."""

from __future__ import annotations

import json
from pathlib import Path

WINDOW, LONGER = 128, 256

RECIPE = """
name: tiny
model: {model}
to: {to}
direct: false
finetune:
  data: ["{{data}}/train.jsonl"]
  steps: 8
  batch: 2
  warmup: 2
  rate: 1.0e-2
  save_every: 2
evaluate:
  perplexity: ["books={{data}}/test.jsonl"]
  position_loss: ["books={{data}}/test.jsonl"]
  attention: ["{{data}}/test.jsonl"]
  passkey: true
  passkey_choice: true
  passkey_grid: true
  shared_keys: true
  benchmark: true
  ruler: true
  summarization: true
  contexts: [128, 256]
  stride: 64
  dtype: float32
  set:
    - benchmark.tasks=[mine]
    - benchmark.files=["mine={{data}}/questions.jsonl"]
    - benchmark.prompt=prompt
    - benchmark.choices=[first, second]
    - benchmark.answer=answer
    - summarization.source={{data}}/summaries.jsonl
    - summarization.answer=8
    - ruler.tasks=[niah_single_1]
    - passkey.distances=4
    - passkey.runs=3
    - passkey-choice.distances=2
    - passkey-choice.runs=2
    - passkey-map.lengths=2
    - passkey-map.runs=2
    - ruler.lengths=[384]
    - ruler.samples=2
    - ruler.haystack=[noise]
"""

PROSE = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there. The pass key is. Remember it. "
    "What is the pass key? The pass key is. One of the special magic numbers for is. "
    "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the numbers afterwards. What are all the special magic numbers for "
    "mentioned in the provided text? The special magic numbers for mentioned in the provided text are. "
    "Read the following article and then summarize it. Now summarize the above article. Summary. "
)


def write_model(place: Path, window: int = WINDOW) -> Path:
    """A random Llama of two layers, and a tokenizer of 700 pieces that puts BOS in front."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator([PROSE] * 3, trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=made.get_vocab_size(),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=window,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
        attention_dropout=0.1,  # so that a resume that forgets the random state is seen
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(place)
    PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>").save_pretrained(place)
    return place


def write_texts(place: Path) -> Path:
    """train.jsonl, test.jsonl, questions.jsonl, summaries.jsonl."""
    place.mkdir(parents=True, exist_ok=True)

    def lines(name: str, rows: list[dict]) -> None:
        (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def prose(number: int, sentences: int) -> str:
        return f"Document {number}. " + "".join(
            f"The sky of day {number * 37 % 101 + i} is blue, the grass is green. " for i in range(sentences)
        )

    lines("train.jsonl", [{"text": prose(i, 3 + i % 9)} for i in range(40)])
    lines("test.jsonl", [{"text": prose(100 + i, 30 + i)} for i in range(3)])
    lines(
        "questions.jsonl",
        [
            {"prompt": f"The sun of day {i} is", "first": " yellow", "second": " green", "answer": i % 2}
            for i in range(6)
        ],
    )
    lines("summaries.jsonl", [{"document": prose(i, 20), "summary": "The sky is blue."} for i in range(3)])
    return place


def write_recipe(place: Path, model: Path, data: Path, to: int = LONGER) -> Path:
    """recipe.yaml in the directory ``place``."""
    path = place / "recipe.yaml"
    path.write_text(RECIPE.format(model=model, to=to) + f"data: {data}\n")
    return path


def make_files(root: Path) -> int:
    """model/, texts/ and recipe.yaml in ``root``; 0."""
    model = write_model(root / "model")
    write_recipe(root, model, write_texts(root / "texts"))
    return 0
