"""What a GGUF file says about itself: is it whole, its metadata, its config with the scaling it asks for.

transformers reads the architecture's numbers from a GGUF file but none of its ``rope.scaling`` keys, so a
scaled file would silently run unscaled; here they become rope parameters.
"""

from __future__ import annotations

import copy
import json
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import UserError
from .gguf_header import check_header
from .quiet import quiet

DIVISORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that scale positions: Llama 3's, and Phi's two."""
MOST_FREQUENCIES = 1 << 16
"""Longest list of divisors, one a frequency of a head."""


@dataclass(frozen=True)
class Gguf:
    """What one reading of a GGUF file gives.

    meta: its keys, as plain Python values. divisors: the tensors that scale positions, a number a frequency.
    """

    path: Path
    meta: dict[str, Any]
    divisors: dict[str, list[float]]

    @property
    def architecture(self) -> str:
        """What the file calls its architecture; it is for messages too, so it is never long."""
        return str(self.meta.get("general.architecture"))[:60]


def read_gguf(path: Path) -> Gguf:
    """A whole GGUF file, its weights left where they are.

    A vocabulary of a quarter of a million takes seconds to read, so the last file is remembered as long as it
    does not change. Raises UserError for one that is cut off, broken or not GGUF.
    """
    return _read(path, *_version(path))


def _version(path: Path) -> tuple[int, int]:
    """(bytes, time of change): what is remembered of a file holds for these only."""
    try:
        found = path.stat()
    except OSError:
        raise UserError(f"no such model: {path}") from None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1)
def _read(path: Path, size: int, changed: int) -> Gguf:
    from gguf import GGUFReader

    try:
        check_header(path)
        reader = GGUFReader(str(path))
        end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
    except UserError:
        raise
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, OSError, struct.error, MemoryError):
        raise UserError(f"{path} is cut off, or not a GGUF file: copy or download it again") from None
    if end > size:
        raise UserError(f"{path} is cut off: it needs {end:,} bytes and has {size:,}")
    if not reader.tensors:
        raise UserError(f"{path} holds no weights: a GGUF file of a vocabulary only cannot be extended")
    divisors = {tensor.name: _numbers(tensor) for tensor in reader.tensors if tensor.name in DIVISORS}
    return Gguf(path, metadata(reader), divisors)


def metadata(reader: Any) -> dict[str, Any]:
    """All keys and values of an open GGUF file, as plain Python values. Raises UserError for broken text."""
    found = {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            try:
                found[name] = field.contents()
            except (ValueError, IndexError):
                raise UserError(
                    f"GGUF key {name[:60]!r} holds bytes that are not text; copy or download the file again"
                ) from None
    return found


def plain_config(path: Path) -> Any:
    """transformers' own reading of a GGUF file's config: an object of one's own, without any scaling.

    Raises UserError for an architecture that transformers cannot read.
    """
    return copy.deepcopy(_plain_config(path, *_version(path)))


@lru_cache(maxsize=1)
def _plain_config(path: Path, size: int, changed: int) -> Any:
    from transformers import AutoConfig, __version__

    with quiet():
        try:
            return AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
        except Exception as error:  # the reader raises whatever its architecture's table lacks
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"GGUF architecture {read_gguf(path).architecture!r} cannot be read by transformers "
                f"{__version__}: {reason}"
            ) from None


def gguf_config(file: Gguf) -> dict[str, Any]:
    """A config.json for a GGUF file: transformers' reading of it, cleaned, with the file's own scaling.

    Raises UserError for an architecture that transformers cannot read.
    """
    found = json.loads(plain_config(file.path).to_json_string())
    raw = {k: _shortest(v) for k, v in found.items() if not k.startswith("_")}
    classes = _causal_class(str(raw.get("model_type")))
    if classes:
        raw["architectures"] = [classes]
    scaling = rope_scaling(file)
    parameters = raw.get("rope_parameters")
    if scaling and isinstance(parameters, dict) and "rope_theta" in parameters:
        raw["rope_parameters"] = {**parameters, **scaling}
    elif scaling:
        raise UserError(
            f"{file.path} asks for {scaling['rope_type']} scaling of its positions, which cannot be written "
            f"for architecture {file.architecture!r}; start from the model's safetensors instead"
        )
    return raw


def rope_scaling(file: Gguf) -> dict[str, Any] | None:
    """The scaling a GGUF file asks for, in transformers' words; None when there is none."""
    meta, architecture = file.meta, str(file.meta.get("general.architecture"))
    key = f"{architecture}.rope.scaling"
    kind = meta.get(f"{key}.type")
    factor = _number(meta, f"{key}.factor") or _number(meta, f"{architecture}.rope.scale_linear") or 1.0
    window = int(_number(meta, f"{architecture}.context_length") or 0)
    original = int(_number(meta, f"{key}.original_context_length") or window)
    divisors, long, short = (file.divisors.get(name) for name in DIVISORS)
    if window < 1 and (divisors or long or kind == "yarn"):
        raise UserError(f"GGUF key {architecture}.context_length is missing: its scaling cannot be told")
    if divisors is not None and max(divisors) > 1:  # Llama 3's scaling, stored as one divisor a frequency
        return _table(divisors, divisors, max(divisors), window)
    if long is not None and short is not None:
        table = _table(short, long, window / original, original)
        attention = _number(meta, f"{key}.attn_factor")
        if attention:
            table["attention_factor"] = _shortest(attention)
        else:
            table.pop("attention_factor")
        return table
    if kind in (None, "none") and factor > 1:
        kind = "linear"
    if kind in (None, "none") or factor == 1.0:
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        found = {"rope_type": "yarn", "factor": factor}
        stated = f"{key}.original_context_length" in meta
        found["original_max_position_embeddings"] = original if stated else round(window / factor)
        return found
    said = str(kind)[:60]
    raise UserError(f"GGUF rope scaling type {said!r} is not known here; known: none, linear, yarn, longrope")


def _table(short: list[float], long: list[float], factor: float, original: int) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "factor": float(factor),
        "attention_factor": 1.0,
        "original_max_position_embeddings": original,
    }


def _numbers(tensor: Any) -> list[float]:
    """A tensor of divisors as numbers. Raises UserError for what is none."""
    if tensor.tensor_type.name != "F32" or tensor.data.ndim != 1 or len(tensor.data) > MOST_FREQUENCIES:
        raise UserError(
            f"GGUF tensor {tensor.name} is not a list of float32 numbers; download the file again"
        )
    values = [_shortest(float(value)) for value in tensor.data]
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise UserError(
            f"GGUF tensor {tensor.name} has a divisor that is not above 0; download the file again"
        )
    return values


def _number(meta: dict[str, Any], key: str) -> float | None:
    """A key's number, or None where it is absent. Raises UserError for what is no number of a scaling."""
    value = meta.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 40:
        raise UserError(f"GGUF key {key} is {str(value)[:60]!r}; it must be a number from 0 to {1 << 40:,}")
    return float(value)


def _shortest(value: Any) -> Any:
    """A float32 stored as float64 (9.999999747378752e-06) as the shortest number that means it (1e-05)."""
    import numpy as np

    if isinstance(value, dict):
        return {key: _shortest(item) for key, item in value.items()}
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    return value


def _causal_class(family: str) -> str | None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(family)
    return found[0] if isinstance(found, tuple | list) else found
