"""Things worth knowing about a checkpoint's positions that are not wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .config import RopeState, as_read, text_part
from .inspect import gather, json_or_nothing


def notes_about(directory: Path | None, config: dict[str, Any], state: RopeState) -> list[str]:
    """One line each; directory None for a GGUF file."""
    notes = []
    sliding = as_read(config).get("sliding_window")
    if (
        isinstance(sliding, int)
        and 0 < sliding < state.window
        and as_read(config).get("use_sliding_window", True)
    ):
        notes.append(f"some layers look back {sliding:,} tokens only (sliding_window), whatever the window")
    part = text_part(config)
    if state.method not in ("none", "longrope") and "rope_scaling" not in part and not state.per_layer_type:
        notes.append(
            "transformers 4 and tools of its time read rope_scaling and would not scale this checkpoint"
        )
    if directory is None:
        return notes
    evidence = gather(directory)
    if evidence.tokenizer is None:
        notes.append("the tokenizer states no length: nothing warns of a text longer than the window")
    elif evidence.tokenizer > state.window:
        notes.append(
            f"the tokenizer's model_max_length is {evidence.tokenizer:,}, longer than the window "
            f"of {state.window:,}"
        )
    if evidence.adds_bos and _template_has_bos(directory):
        notes.append(
            "the chat template writes BOS and the tokenizer adds it too: "
            "pass add_special_tokens=False with the template"
        )
    return notes


def _template_has_bos(directory: Path) -> bool:
    file = directory / "chat_template.jinja"
    if file.is_file():
        return "bos_token" in file.read_text(encoding="utf-8", errors="replace")
    found = json_or_nothing(directory / "tokenizer_config.json")
    return "bos_token" in json.dumps(found.get("chat_template"))
