"""An adapter that lies on the disk, added to the base model it was trained on, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .. import console
from ..errors import UserError
from ..files import to_json, write_atomic
from ..model.config import read_state
from ..model.engines import in_words
from ..model.inspect import same_positions
from ..model.load import load_model, read_config
from ..model.quiet import quiet
from ..model.weights import weights_hash
from ..starving import told
from .lora import merge

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base.json"
"""Beside an adapter: name and hash of the weights it was trained on."""


def write_base(adapter: Path, base: Path, name: str) -> None:
    """Put beside an adapter what adapter_config.json has no room for: its base's config and weights' hash.

    The config carries the scaling that the adapter was trained under.
    """
    shutil.copyfile(base / "config.json", adapter / "config.json")
    write_atomic(adapter / BASE, to_json({"name": name, "weights": weights_hash(base)}))


def require_fits(adapter: Path, base: Path) -> None:
    """Refuse an adapter that is not whole, or was trained on other positions or weights than ``base`` has.

    peft would load it without a word: what adapter_config.json has no room for lies beside it.
    """
    for name in (CONFIG, WEIGHTS):
        if not (adapter / name).is_file():
            raise UserError(f"{adapter} is not a LoRA adapter (no {name})")
    try:
        kind = json.loads((adapter / CONFIG).read_text(encoding="utf-8")).get("peft_type")
    except (OSError, ValueError, AttributeError, RecursionError):
        raise UserError(f"{adapter / CONFIG} cannot be read as JSON") from None
    if kind != "LORA":
        raise UserError(f"{adapter} is an adapter of kind {kind}; only LORA can be merged")
    if not (adapter / "config.json").is_file():
        raise UserError(
            f"adapter {adapter} does not say under which scaling it was trained: put the config.json of the "
            "model that it was trained on beside it"
        )
    trained, now = read_config(adapter), read_config(base)
    if not same_positions(trained, now):
        mine, theirs = read_state(trained), read_state(now)
        raise UserError(
            f"adapter {adapter} was trained under scaling {in_words(mine.parameters)}, base "
            f"{mine.base:,.10g}, window {mine.window:,}, and {base} has {in_words(theirs.parameters)}, base "
            f"{theirs.base:,.10g}, window {theirs.window:,}: `ropewalk extend` it alike first, then merge"
        )
    _require_same_weights(adapter, base)


def _require_same_weights(adapter: Path, base: Path) -> None:
    """Refuse a base of other weights, such as one that has the adapter already; where unknown, say so."""
    try:
        trained = json.loads((adapter / BASE).read_text(encoding="utf-8"))
        name, wanted = trained["name"], trained["weights"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        console.say(
            f"note: adapter {adapter} does not say on which weights it was trained (no {BASE}); "
            f"make sure that {base} is its base, without the adapter in it"
        )
        return
    found = weights_hash(base)
    if found != wanted:
        raise UserError(
            f"adapter {adapter} was trained on the weights {wanted} of {name}, and {base} has the weights "
            f"{found}: give the base that it was trained on"
        )


def merged_model(base: Path, adapter: Path, dtype: Any) -> Any:
    """The model ``base`` with the adapter in its weights: summed in float32, rounded once to ``dtype``.

    Raises UserError for an adapter of another model.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise UserError("merging an adapter needs peft: pip install 'ropewalk[lora]'") from None
    model = load_model(base)
    with quiet():
        try:
            adapted = PeftModel.from_pretrained(model, str(adapter))
        except Exception as error:  # peft raises whatever an odd adapter_config.json leads it to
            reason = told(error) or " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"adapter {adapter} does not fit {base}: {reason}") from None
        _require_all(adapted, adapter, base)
        return merge(adapted, dtype)


def _require_all(adapted: Any, adapter: Path, base: Path) -> None:
    """Every adapter weight of the file must have found its place: peft only warns."""
    from peft import get_peft_model_state_dict

    from ..model.weights import read_header

    wanted = set(read_header(adapter / WEIGHTS))
    found = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    if wanted != found:
        strange = sorted(wanted ^ found)
        raise UserError(
            f"adapter {adapter} does not fit {base}: {len(strange)} weights differ, such as {strange[0]}"
        )
