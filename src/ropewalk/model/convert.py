"""A GGUF file as a clean Hugging Face checkpoint: weights in safetensors, config, tokenizer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .. import __version__
from ..console import say
from ..errors import UserError
from ..files import new_directory, read_record, sha256, to_json, write_atomic, write_record
from .config import read_state
from .gguf_in import gguf_config, plain_config, read_gguf
from .gguf_tokenizer import write_tokenizer
from .load import DTYPES, model_block
from .quiet import quiet
from .source import Source
from .weights import SINGLE


def to_checkpoint(source: Source, out: Path | str, dtype: str = "float32") -> Path:
    """Write the GGUF model ``source`` as a checkpoint directory ``out``: the original as it is.

    dtype: float32 (exact: every dequantised number fits), bfloat16 or float16.
    A directory or Hub source needs no conversion: its own path is returned and nothing is written.
    Raises UserError for a file that is cut off or of an architecture that cannot be read.
    """
    if source.kind != "gguf":
        return source.path
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    out = Path(out)
    with new_directory(out, "convert") as place:
        fill(source, place, dtype)
        block = model_block(place, source.name)
        write_record(
            place,
            {
                "verb": "convert",
                "settings": {"model": source.name, "dtype": dtype},
                "ropewalk": __version__,
                "fingerprint": block["hash"],
                "model": block,
                "from": {"name": source.name, "file": source.path.name, "sha256": sha256(source.path)},
            },
        )
    return out


def checkpoint_beside(source: Source, out: Path) -> Path:
    """The directory of a model; of a GGUF file, a checkpoint made once in OUT/.checkpoints."""
    if source.kind != "gguf":
        return source.path
    place = out / ".checkpoints" / source.name
    record = read_record(place) or {}
    if record.get("from", {}).get("sha256") != sha256(source.path):
        say(f"{source.path.name} is read into a checkpoint, {place}")
        to_checkpoint(source, place)
    return place


def fill(source: Source, place: Path, dtype: str) -> dict[str, Any]:
    """Put weights, config, generation config and tokenizer of a GGUF model into the directory ``place``.

    Returns the parsed config.json. Everything that can be refused is refused before weights are read.
    """
    file = read_gguf(source.path)
    config = gguf_config(file)
    config["dtype"] = dtype
    state = read_state(config)
    write_tokenizer(source.path, file.meta, place, state.window)
    write_atomic(place / "config.json", to_json(config))
    generation = {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config
    }
    write_atomic(place / "generation_config.json", to_json(generation))
    _write_weights(source.path, place, dtype)
    return config


def _write_weights(path: Path, place: Path, dtype: str) -> None:
    """Dequantise the weights and write them as safetensors, readable by whom the umask allows."""
    import contextlib
    import io
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    config = plain_config(path)
    with quiet(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be turned off
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                str(path.parent),
                config=config,
                gguf_file=path.name,
                trust_remote_code=False,
                quantization_config=GgufConfig(dequantize=True),
                dtype=getattr(torch, dtype),
            )
        except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the weights in {path} cannot be read: {reason}") from None
        with tempfile.TemporaryDirectory(dir=place) as beside:
            model.save_pretrained(beside)
            for file in sorted(Path(beside).iterdir()):
                if file.name.startswith(Path(SINGLE).stem):
                    os.replace(file, place / file.name)
    readable(place)


def readable(place: Path) -> None:
    """Give weights files the mode that the umask allows: some writers leave them at 0600."""
    mask = os.umask(0)
    os.umask(mask)
    for file in place.glob("*.safetensors"):
        if file.stat().st_nlink == 1:
            file.chmod(0o666 & ~mask)
