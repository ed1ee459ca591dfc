"""extend: a checkpoint of window L becomes one of window L', by its config alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import __version__, console
from ..errors import UserError
from ..files import fingerprint, new_directory, require_ours, sha256, write_record
from ..settings import option, to_record, tokens, verb

EXAMPLE = """ropewalk extend path/to/llama longer-llama --to 32k
  ropewalk extend model.gguf longer-model --to 16k
  ropewalk extend path/to/model longer-model --to 32k --method yarn"""


@dataclass(frozen=True)
class Extend:
    """Lengthen a checkpoint's window by its config alone: the same weights, Position Interpolation.

    The result is a Hugging Face checkpoint that transformers, vLLM, SGLang and llama.cpp load as it is.
    It needs a short fine-tuning (ropewalk finetune) to read its new window well.
    """

    model: str = option(
        help="checkpoint directory, Hub id, GGUF file, 'embedded' or 'smollm2'", positional=True
    )
    out: Path = option(help="directory to write", positional=True)
    to: int = option(help="target window L', tokens (32k = 32,768)", parse=tokens)
    method: Literal["linear", "ntk", "dynamic", "yarn", "llama3", "longrope", "none"] = option(
        "linear", help="linear (Position Interpolation), ntk, dynamic, yarn, llama3, longrope, or none"
    )
    all_layers: bool = option(
        False,
        help="also scale layers with a small sliding window, where layer types have their own parameters",
    )
    window: int | None = option(
        None, help="window L that the model really has, where its config is wrong about it", parse=tokens
    )
    factors: Path | None = option(
        None, help="JSON file with a method's own parameters (longrope: short_factor, long_factor)"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = option(
        "float32", help="for weights dequantised from GGUF; float32 is exact"
    )


@verb(Extend)
def extend(settings: Extend) -> dict[str, Any]:
    """Write ``settings.out`` and return its record, with what the doctor found and where it lies."""
    from ..model.checkpoint import read_json, require_other
    from ..model.config import read_state
    from ..model.scaling import extended_config
    from ..model.source import resolve

    more = _method_settings(settings.factors, read_json)
    require_other(Path(settings.model), settings.out)
    require_ours(settings.out, "extend")
    found = resolve(settings.model)
    before = _config(found, settings.out)
    after = extended_config(
        before,
        settings.to,
        settings.method,
        all_layers=settings.all_layers,
        window=settings.window,
        settings=more,
    )
    state = read_state(before)
    _check(found)
    record, findings = _write(found, state, after, settings)
    _tell(found.name, state, after, record["model"], settings)
    for finding in findings:
        console.say(f"! {finding.text}; {finding.cure}")
    return {**record, "out": str(settings.out), "findings": [f.as_dict() for f in findings]}


def _config(found: Any, out: Path) -> dict[str, Any]:
    """The source's config.json; a source that is not a model, or is OUT itself, is refused."""
    from ..model.checkpoint import require_model, require_other
    from ..model.gguf_in import gguf_config, read_gguf
    from ..model.load import read_config

    if found.kind == "gguf":
        return gguf_config(read_gguf(found.path))
    require_model(found.path)
    require_other(found.path, out)
    return read_config(found.path)


def _check(found: Any) -> None:
    """Refuse weights that are not whole and a tokenizer that does not match; GGUF checks its own."""
    from ..model.load import load_tokenizer
    from ..model.weights import check_weights

    if found.kind != "gguf":
        check_weights(found.path)
        load_tokenizer(found.path)


def _write(
    found: Any, state: Any, after: dict[str, Any], settings: Extend
) -> tuple[dict[str, Any], list[Any]]:
    """The new checkpoint, whole or not at all; (its record, findings about it)."""
    from ..model import card, convert
    from ..model.checkpoint import same_companions, same_weights, set_window, write_config
    from ..model.inspect import inspect_directory
    from ..model.load import model_block

    with new_directory(settings.out, "extend") as place:
        if found.kind == "gguf":
            console.say(f"reading {found.path.name}: dequantising its weights to {settings.dtype}")
            after["dtype"] = convert.fill(found, place, settings.dtype)["dtype"]
            origin: dict[str, Any] = {
                "name": found.name,
                "file": found.path.name,
                "sha256": sha256(found.path),
            }
        else:
            same_weights(found.path, place)
            same_companions(found.path, place)
            origin = model_block(found.path, found.name)
        write_config(place, after)
        set_window(place, state.window, settings.to)
        record = {
            "verb": "extend",
            "ropewalk": __version__,
            "settings": to_record(settings),
            "fingerprint": fingerprint({"settings": to_record(settings), "from": origin}),
            "model": _block(model_block(place, settings.out.name), settings, state, origin),
            "from": origin,
        }
        card.write_card(place, record, card.origin(found))
        write_record(place, record)
        return record, inspect_directory(place)


def _method_settings(path: Path | None, read: Any) -> dict[str, Any]:
    """The method's own parameters from the file named, checked to be numbers or lists of numbers."""
    if path is None:
        return {}
    found: dict[str, Any] = read(path)
    for name, value in found.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(isinstance(n, int | float) for n in numbers):
            raise UserError(
                f"{path}: {name} must be a number or a list of numbers, not {json.dumps(value)[:60]}"
            )
    return found


def _block(block: dict[str, Any], settings: Extend, state: Any, origin: dict[str, Any]) -> dict[str, Any]:
    """The model block, with what a config cannot say: a changed base, a window raised without scaling."""
    block["trained"] = origin.get("trained")
    if settings.method in ("ntk", "none"):
        start = settings.window or state.window
        block["method"], block["original_window"] = settings.method, origin.get("original_window") or start
        block["factor"] = 1.0 if settings.method == "none" else settings.to / start
    return block


def _tell(name: str, state: Any, after: dict[str, Any], block: dict[str, Any], settings: Extend) -> None:
    """Say what was, what is, and with which flags servers are right about it."""
    from ..model.config import read_state
    from ..model.engines import in_words, serving_lines

    new = read_state(after)
    start = settings.window or state.window
    console.say(
        f"{name}: window {start:,} -> {settings.to:,} tokens, factor {settings.to / start:g}, "
        f"method {settings.method} ({state.family}, base {new.base:,.10g})"
    )
    console.say(f"scaling: {in_words(state.parameters)} -> {in_words(new.parameters)}")
    if state.method == settings.method and state.factor > 1:
        console.say(
            f"composed: ×{state.factor:g} it had, times ×{settings.to / start:g} now, "
            f"= ×{new.factor:g} on the original {new.original_window:,} tokens"
        )
    elif state.method != "none":
        console.say(
            f"composed: every frequency of the shipped {state.method} scaling is divided by "
            f"{settings.to / start:g}; its attention factor is kept"
        )
    if new.per_layer_type:
        for layer, own in new.layers.items():
            console.say(f"  {layer or 'all layers'}: {in_words(own)}, base {float(own['rope_theta']):,.10g}")
    console.say(f"wrote {settings.out}: {block['parameters']:,} parameters, weights unchanged")
    console.say("to serve it at this window:")
    for line in serving_lines(after):
        console.say(f"  {line}")
