"""Safetensors files without loading them: are they whole, what is in them, what identifies them."""

from __future__ import annotations

import functools
import json
import math
import os
import struct
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import fingerprint, sha256

MOST_DIMENSIONS = 16
"""Of a tensor; more of them, or endless ones, would take long to multiply."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_model.safetensors"
BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of a number by safetensors' name of its type."""


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, sorted: one, or the shards that its index names.

    Raises UserError when there is none (only pickles: no pickle is ever loaded), or when a shard is
    missing or the index is broken.
    """
    if (directory / INDEX).is_file():
        try:
            names = set(json.loads((directory / INDEX).read_text())["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            names = set()
        if not names or not all(isinstance(name, str) and "\0" not in name for name in names):
            raise UserError(f"{directory / INDEX} is broken (no weight_map); copy the model again") from None
        files = [directory / name for name in sorted(names)]
        for file in files:
            if file.suffix != ".safetensors":
                raise UserError(
                    f"{directory / INDEX} names {file.name}, which is not a safetensors file; no pickle is "
                    "ever loaded: convert the weights to safetensors first"
                )
            if file.parent != directory:
                raise UserError(f"{directory / INDEX} names a file outside its directory: {file}")
            if not file.is_file():
                raise UserError(f"{directory}: weights file {file.name} is missing; copy the model again")
        return files
    if (directory / SINGLE).is_file():
        return [directory / SINGLE]
    others = sorted(p for p in directory.glob("*.safetensors") if p.name != ADAPTER)
    if len(others) == 1:
        return others
    if others:
        raise UserError(
            f"{directory} has {len(others)} safetensors files but no {INDEX}; copy the model again, whole"
        )
    require_no_adapter(directory)
    if list(directory.glob("*.bin")) or list(directory.glob("*.pt")) or list(directory.glob("*.pth")):
        raise UserError(
            f"{directory} has its weights only as pickles (.bin, .pt), and no pickle is ever loaded: "
            "convert them to safetensors first"
        )
    raise UserError(f"{directory} has no weights (no {SINGLE}, no {INDEX})")


def require_no_adapter(directory: Path) -> None:
    """Raises UserError for the directory of a LoRA adapter, which holds no model of its own."""
    if (directory / "adapter_config.json").is_file() or (directory / ADAPTER).is_file():
        raise UserError(
            f"{directory} is a LoRA adapter, not a model; merge it first: ropewalk export BASE MERGED "
            f"--adapter {directory}"
        )


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Tensor name -> {dtype, shape, data_offsets}, after checking that the file is as long as it says.

    Raises UserError for a file that is cut off, too long or not safetensors.
    """
    size = path.stat().st_size
    with open(path, "rb") as stream:
        first = stream.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise UserError(f"weights file {path} is cut off or is not safetensors ({size:,} bytes)")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
            for entry in header.values():
                entry["shape"] = [int(n) for n in entry["shape"][: MOST_DIMENSIONS + 1]]
                if len(entry["shape"]) > MOST_DIMENSIONS or max(entry["shape"], default=0) > 1 << 48:
                    raise ValueError
            _require_sound(header, path)
        except UserError:
            raise
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
            raise UserError(f"weights file {path} has a broken header; copy the model again") from None
    if 8 + length + end != size:
        raise UserError(
            f"weights file {path} is corrupt: its header describes {8 + length + end:,} bytes, "
            f"the file has {size:,}; copy the model again"
        )
    return header


def _require_sound(header: dict[str, dict[str, Any]], path: Path) -> None:
    """Every tensor of a known type, as large as its shape says, one behind the other. Raises UserError."""
    at = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = (int(n) for n in entry["data_offsets"])
        dtype, shape = entry["dtype"], entry["shape"]
        if dtype not in BITS:
            known = str(dtype)[:20]
            raise UserError(f"weights file {path}: tensor {name[:80]} has dtype {known!r}, not known here")
        if begin != at or min(shape, default=0) < 0 or 8 * (end - begin) != math.prod(shape) * BITS[dtype]:
            raise UserError(
                f"weights file {path} is corrupt: tensor {name[:80]}, {dtype} of shape {shape}, does not fit "
                f"its bytes {begin:,} to {end:,}; copy the model again"
            )
        at = end


def check_weights(directory: Path) -> dict[str, dict[str, Any]]:
    """The headers of all weights files, each checked against its file's size. Raises UserError."""
    tensors: dict[str, dict[str, Any]] = {}
    for file in weight_files(directory):
        tensors.update(read_header(file))
    if not tensors:
        raise UserError(f"{directory} has a weights file without a single tensor")
    return tensors


def count_parameters(directory: Path) -> int:
    """Parameters on the disk; tied ones are stored, and counted, once."""
    return sum(math.prod(entry["shape"]) for entry in check_weights(directory).values())


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, remembered for as long as the file's size and time stay."""
    stat = os.stat(path)
    return _content_hash(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


def weights_hash(directory: Path) -> str:
    """Sixteen hex digits over a checkpoint's weights files alone, whatever its config says."""
    return fingerprint([content_hash(file) for file in weight_files(directory)])


@functools.lru_cache(maxsize=1024)
def _content_hash(path: str, size: int, modified: int) -> str:
    return sha256(path)
