"""A good world to lie in, and what a lie is: one thing wrong, the command that meets it, its line.

A `Lie` changes a good `World` (a checkpoint, a GGUF file, texts, a recipe, results) in one place. Every
command ends with exit code 2 and one line, before any weights are loaded, and leaves nothing behind.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import readers

EXTEND = "extend m o --to 128"
FINETUNE = "finetune m o --data t.txt --steps 1"
EVALUATE = "evaluate m --perplexity t.txt --contexts 32 --stride 8 --out r"
EXPORT = "export m o --gguf"
DOCTOR = "doctor m"
SWEEP = "sweep m --to 128 --data t.txt --out r"
ASK = "ask m --file t.txt --question who"
REPORT = "report results --out o"
RUN = "run recipe.yaml --out o"
PLAN = "plan m --to 128"
MODEL_COMMANDS = (EXTEND, FINETUNE, EVALUATE, EXPORT, DOCTOR, SWEEP, ASK, PLAN)


@dataclass(frozen=True)
class Lie:
    """name: what is wrong.   make: changes the world.   command: words.   says: regex of its line."""

    name: str
    command: str
    says: str
    make: Callable[[World], None] = lambda world: None
    code: int = 2


class World:
    """Good files in a directory of their own; ``m`` is a checkpoint, ``g.gguf`` a GGUF file."""

    def __init__(self, place: Path, model: Path, gguf: Path) -> None:
        self.place = place
        shutil.copytree(model, place / "m")
        shutil.copyfile(gguf, place / "g.gguf")
        self.text("t.txt", "A rope is laid in a long lane. " * 60)
        self.json("results/one.json", readers.results()[0])
        self.text("recipe.yaml", RECIPE)

    def text(self, name: str, content: str | bytes) -> None:
        file = self.place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))

    def json(self, name: str, value: Any) -> None:
        self.text(name, json.dumps(value))

    def edit(self, name: str, **changes: Any) -> None:
        """Change keys of a JSON file; DROP removes one."""
        found = {**json.loads((self.place / name).read_text()), **changes}
        self.json(name, {key: value for key, value in found.items() if value is not DROP})

    def bytes(self, name: str) -> bytes:
        return (self.place / name).read_bytes()


DROP = object()
RECIPE = """\
name: tiny
model: m
to: 128
direct: false
finetune: {data: [t.txt], steps: 1, batch: 1}
evaluate: {perplexity: [t.txt], contexts: [32], stride: 8}
"""
