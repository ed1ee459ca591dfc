"""A checkpoint directory made from another: the same weights, a changed config, a tokenizer that fits it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import RECORD, link_or_copy, to_json, write_atomic
from .weights import INDEX, weight_files

COMPANIONS = (
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "tokenizer*",
    "spiece.model",
    "*.tiktoken",
    "chat_template.*",
    "additional_chat_templates/*",
    "preprocessor_config.json",
    "processor_config.json",
    "LICENSE*",
    "NOTICE*",
)
"""What goes with the weights. Not: pickles, code, other formats, model cards (they state the old window)."""


def same_weights(source: Path, place: Path) -> None:
    """Put the weights files of ``source`` into ``place``: hard links where possible, the same bytes."""
    for file in weight_files(source):
        link_or_copy(file, place / file.name)
    if (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, place / INDEX)


def same_companions(source: Path, place: Path) -> None:
    """Copy tokenizer, generation config and licence files; small, so copied: editing one edits one."""
    for pattern in COMPANIONS:
        for file in sorted(source.glob(pattern)):
            target = place / file.relative_to(source)
            if (
                file.is_file()
                and file.suffix not in (".bin", ".pt", ".pth", ".pkl", ".pickle", ".py")
                and not target.exists()
            ):
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)


def set_window(place: Path, before: int, window: int) -> None:
    """Let tokenizer and generation config state the window ``window`` where they stated ``before``.

    ``model_max_length`` is always set; a truncation inside tokenizer.json shorter than the window goes.
    """
    file = place / "tokenizer_config.json"
    config = read_json(file) if file.is_file() else {}
    has_tokenizer = config or any(place.glob("tokenizer*")) or any(place.glob("vocab.*"))
    if has_tokenizer:
        write_atomic(file, to_json({**config, "model_max_length": window}, allow_nan=True))
    file = place / "tokenizer.json"
    if file.is_file():
        tokenizer = read_json(file)
        cut = tokenizer.get("truncation")
        length = cut.get("max_length") if isinstance(cut, dict) else window
        if not isinstance(length, int | float) or length < window:
            tokenizer["truncation"] = None
            write_atomic(file, json.dumps(tokenizer, ensure_ascii=False))
    file = place / "generation_config.json"
    if file.is_file():
        generation = read_json(file)
        if generation.get("max_length") == before:
            write_atomic(file, to_json({**generation, "max_length": window}, allow_nan=True))


def write_config(place: Path, config: dict[str, Any]) -> None:
    """Write config.json."""
    write_atomic(place / "config.json", to_json(config, allow_nan=True))


def read_json(file: Path) -> dict[str, Any]:
    """A JSON mapping from a checkpoint's file. Raises UserError naming the file."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} is not a mapping")
    return found


def require_other(source: Path, out: Path) -> None:
    """Refuse to write a checkpoint over the one it is made from, or into it.

    source: may be a name that is no directory here; then nothing is refused.
    """
    if not source.is_dir():
        return
    inside, outside = source.resolve(), out.resolve()
    if inside == outside or inside in outside.parents:
        raise UserError(f"output {out} is the model itself or lies inside it; name another directory")


def require_model(directory: Path) -> None:
    """Refuse a directory that holds only an adapter: its base model decides the positions."""
    if (directory / "config.json").is_file():
        return
    if (directory / "adapter_config.json").is_file():
        raise UserError(f"{directory} is a LoRA adapter without its base model; merge it into the base first")
    if (directory / RECORD).is_file():
        raise UserError(f"{directory} was made by ropewalk but has no config.json: the step was not finished")
