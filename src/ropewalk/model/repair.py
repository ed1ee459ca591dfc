"""A corrected checkpoint from one with findings: the same weights, the config that was meant."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_atomic
from .checkpoint import read_json, same_companions, same_weights, set_window, write_config
from .config import RopeState, main_layer, read_state, split_layers, text_part
from .gguf_tokenizer import post_processor
from .inspect import Evidence, Finding, true_factor, true_window
from .scaling import rewritten, scaled_layers, stretched


def repaired_config(
    config: dict[str, Any], evidence: Evidence, findings: list[Finding], base: float | None = None
) -> dict[str, Any]:
    """A copy of ``config`` without what the findings name.

    base: the model's own rope_theta, where it is lost and no file states it.
    Raises UserError when the files do not say what was meant.
    """
    codes = {finding.code for finding in findings}
    result = copy.deepcopy(config)
    part = text_part(result)
    known = _stated_base(part)
    if "two-scalings" in codes:
        part.pop("rope_scaling")
    state = read_state(result)
    layers = copy.deepcopy(state.layers)
    if "theta-lost" in codes or base is not None:
        right = base or evidence.base or known
        if right is None:
            raise UserError(
                "the base (rope_theta) is lost and no file of this checkpoint states it: pass the model's "
                "own with --base (10000 in LLaMA, 500000 in Llama 3, 1000000 in Qwen2)"
            )
        layers[main_layer(layers)]["rope_theta"] = float(right)
    window, _ = true_window(part, state, evidence)
    factor = true_factor(part, state, evidence)
    if codes & {"not-scaled", "scaled-twice"} and factor is not None:
        layers = _scaled(state, layers, factor, window, evidence)
    for own in layers.values():
        if own.get("factor") is not None:
            own["factor"] = float(own["factor"])
    stated = state.stated if state.method == "dynamic" else window
    return rewritten(result, state, layers, stated, {state.stated})


def write_repaired(
    source: Path, place: Path, config: dict[str, Any], evidence: Evidence, findings: list[Finding]
) -> None:
    """Fill ``place`` with the checkpoint ``source`` under the corrected config."""
    same_weights(source, place)
    same_companions(source, place)
    write_config(place, config)
    state = read_state(config)
    codes = {finding.code for finding in findings}
    if evidence.tokenizer is None or codes & {"stale-window", "tokenizer-length"}:
        set_window(place, evidence.tokenizer or state.window, state.window)
    if "bos" in codes:
        _agree_on_bos(place, bool(evidence.says_bos))


def _scaled(
    state: RopeState, layers: dict[str, dict[str, Any]], factor: float, window: int, evidence: Evidence
) -> dict[str, dict[str, Any]]:
    """The layers with the factor that was meant."""
    chosen = scaled_layers(state)
    if state.method != "none":
        return {name: {**own, "factor": factor} if name in chosen else own for name, own in layers.items()}
    start = round(window / factor)
    if start < 2:
        raise UserError(
            f"this checkpoint's files state a window of {window:,} tokens and a factor of {factor:g}, which "
            "leave no window before the scaling; correct config.json by hand"
        )
    method = evidence.method or "linear"
    return {
        name: stretched(state, name, method, start, window, {}) if name in chosen else own
        for name, own in layers.items()
    }


def _stated_base(part: dict[str, Any]) -> float | None:
    """A rope_theta that stands somewhere in the config, used or not."""
    for key in ("rope_scaling", "rope_parameters"):
        layers = split_layers(part.get(key) or {})
        value = layers[main_layer(layers)].get("rope_theta") if layers else None
        if isinstance(value, int | float):
            return float(value)
    return float(part["rope_theta"]) if isinstance(part.get("rope_theta"), int | float) else None


def _agree_on_bos(place: Path, adds: bool) -> None:
    """Let tokenizer.json do what tokenizer_config.json says about BOS."""
    file = place / "tokenizer.json"
    tokenizer, config = read_json(file), read_json(place / "tokenizer_config.json")
    bos = config.get("bos_token")
    bos = str(bos.get("content") if isinstance(bos, dict) else bos)
    added = tokenizer.get("added_tokens")
    tokens = [one for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    ids = {str(one.get("content")): one["id"] for one in tokens if isinstance(one.get("id"), int)}
    if bos not in ids:
        raise UserError(
            f"{file}: its BOS token {bos!r} is not among its added tokens; this cannot be repaired"
        )
    byte_level = "ByteLevel" in json.dumps(tokenizer.get("pre_tokenizer"))
    only = {bos: ids[bos]}
    tokenizer["post_processor"] = post_processor(
        bos if adds else None, None, only if adds else {}, byte_level=byte_level
    )
    write_atomic(file, json.dumps(tokenizer, ensure_ascii=False))
