"""Synthetic retrieval documents in the embedded model's training mix (never in the demo's fine-tuning).

Two kinds, both inside the window of 512 tokens: the paper's passkey prompt with its answer, and code that
assigns names to numbers and reads one of them back.
"""

from __future__ import annotations

import random

PREAMBLE = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there."
)
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
QUESTION = "What is the pass key? The pass key is"


def passkey(rng: random.Random, most_fillers: int) -> str:
    """The paper's prompt and its answer, with filler of up to ``most_fillers`` repeats cut at a sentence.

    In four of ten the key comes first and all filler after it: the distances that are hardest to fill.
    """
    key = rng.randint(10000, 99999)
    sentences = [part.rstrip(".") + "." for part in FILLER.split(". ")]
    total = rng.randint(0, most_fillers * len(sentences))
    before = 0 if rng.random() < 0.4 else rng.randint(0, total)
    filler = [sentences[i % len(sentences)] for i in range(total)]
    parts = [
        PREAMBLE,
        " ".join(filler[:before]),
        f"The pass key is {key}. Remember it. {key} is the pass key.",
        " ".join(filler[before:]),
        f"{QUESTION} {key}",
    ]
    return "\n".join(part for part in parts if part)


def recall(rng: random.Random, names: list[str], body: str) -> str:
    """Assignments among lines of real code, then prints of some of the names with their values."""
    chosen = rng.sample(names, rng.randint(2, 6))
    values = {name: rng.randint(1000, 99999) for name in chosen}
    lines = body.splitlines()
    for name in chosen:
        lines.insert(rng.randint(0, len(lines)), f"{name} = {values[name]}")
    asked = rng.sample(chosen, rng.randint(1, min(3, len(chosen))))
    return "\n".join(lines + [f"assert {name} == {values[name]}" for name in asked])
