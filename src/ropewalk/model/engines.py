"""What each engine makes of a checkpoint: the window it will allow, the scaling it will apply.

Read from the engines' sources (docs/limits.md says which); nothing is asked of an installed engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .config import RopeState, read_state, text_part

VLLM_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length")
SGLANG_KEYS = (
    "max_sequence_length",
    "seq_length",
    "max_seq_len",
    "model_max_length",
    "max_position_embeddings",
)


@dataclass(frozen=True)
class View:
    """One engine's reading of a checkpoint.

    window: tokens it allows when told nothing.   scaling: in words.   right: is the window the intended one?
    flag: what to pass so that it is right, "" when nothing is needed.
    """

    engine: str
    window: int | None
    scaling: str
    right: bool
    flag: str


def views(config: dict[str, Any]) -> list[View]:
    """What transformers, vLLM, SGLang and llama.cpp take from this config.json."""
    state = read_state(config)
    return [_transformers(state), _vllm(config, state), _sglang(config, state), _llama_cpp(state)]


def serving_lines(config: dict[str, Any]) -> list[str]:
    """The flags with which each server is right, one line each."""
    return [f"{view.engine:14} {view.flag or 'no flag needed'}" for view in views(config)]


def in_words(parameters: dict[str, Any]) -> str:
    """``linear ×4``, ``none``, ``yarn ×2 of 8,192``."""
    kind = str(parameters.get("rope_type", "default"))
    if kind == "default":
        return "none"
    words = kind
    if parameters.get("factor") is not None:
        words += f" ×{float(parameters['factor']):g}"
    if parameters.get("original_max_position_embeddings") and kind in ("yarn", "llama3"):
        words += f" of {int(parameters['original_max_position_embeddings']):,}"
    return words


def _transformers(state: RopeState) -> View:
    """States the window and never enforces it for rotary models."""
    return View("transformers", state.stated, in_words(state.parameters), state.stated == state.window, "")


def _vllm(config: dict[str, Any], state: RopeState) -> View:
    """Takes the smallest stated length as the original one and multiplies it by the factor."""
    length = _smallest(config, state, VLLM_KEYS)
    if "gemma3" not in state.family:
        factor = 1.0
        for own in state.layers.values():
            kind = own.get("rope_type", "default")
            if kind not in ("su", "longrope", "llama3"):
                factor = float(own.get("factor") or factor)
            if kind == "yarn":
                length = int(own["original_max_position_embeddings"])
        length = int(length * factor)
    right = length == state.window
    scaling = in_words(state.parameters)
    if scaling.startswith("longrope") and (state.attention_factor or 1.0) != 1.0:
        scaling += ", its own attention factor"
    return View("vLLM", length, scaling, right, "" if right else f"--max-model-len {state.window}")


def _sglang(config: dict[str, Any], state: RopeState) -> View:
    """Multiplies the first length it finds, unless an original length stands beside the factor."""
    part = text_part(config)
    length = next((int(part[k]) for k in SGLANG_KEYS if isinstance(part.get(k), int)), state.stated)
    if not state.per_layer_type:
        own = state.parameters
        if own.get("rope_type") != "llama3" and not own.get("original_max_position_embeddings"):
            length = int(length * float(own.get("factor") or 1.0))
    right = length == state.window
    scaling = in_words(state.parameters)
    return View("SGLang", length, scaling, right, "" if right else f"--context-length {state.window}")


def _llama_cpp(state: RopeState) -> View:
    """Its converter takes the stated window as it is, and knows linear, yarn, llama3 and Phi-3's longrope."""
    kind = str(state.parameters.get("rope_type", "default"))
    known = kind in ("default", "linear", "yarn", "llama3") or (kind == "longrope" and "phi" in state.family)
    scaling = in_words(state.parameters) if known else f"none ({kind} is not converted)"
    right = known and state.stated == state.window
    return View("llama.cpp", state.stated, scaling, right, "" if right else f"-c {state.window}")


def _smallest(config: dict[str, Any], state: RopeState, keys: tuple[str, ...]) -> int:
    part = text_part(config)
    found = [
        int(part[k]) for k in (*keys, "max_sequence_length", "max_seq_length") if isinstance(part.get(k), int)
    ]
    return min([*found, state.stated])
