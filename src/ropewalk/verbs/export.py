"""`ropewalk export`: an adapter merged into its base, or a GGUF file for llama.cpp."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import __version__, console
from ..errors import UserError
from ..files import (
    beside_directory,
    fingerprint,
    locked,
    new_directory,
    new_file,
    read_record,
    require_ours,
    write_record,
)
from ..settings import option, to_record, verb

EXAMPLE = """ropewalk export longer-model gguf-model --gguf
  ropewalk export longer-model model.gguf --type f16
  ropewalk export longer-base merged-model --adapter tuned-model/adapter"""


@dataclass(frozen=True)
class Export:
    """Write a model for others to use: an adapter merged into its base, or GGUF with the right rope keys.

    An adapter is refused on a base with another scaling or other weights than it was trained on.
    GGUF is written for Llama and Mistral models; for others llama.cpp's own converter is named.
    """

    model: str = option(help="checkpoint directory, Hub id, or 'embedded'", positional=True)
    out: Path = option(help="directory to write, with a model card; or a file named .gguf", positional=True)
    gguf: bool = option(False, help="write a GGUF file (understood when OUT ends in .gguf)")
    adapter: Path | None = option(None, help="directory of a LoRA adapter to merge into MODEL")
    type: Literal["stored", "f32", "f16", "bf16"] = option(
        "stored", help="of the matrices in the GGUF file; stored = as in the checkpoint"
    )


@verb(Export)
def export(settings: Export) -> dict[str, Any]:
    """Write ``settings.out``; returns its record and where it lies."""
    from ..model.card import origin
    from ..model.checkpoint import require_other
    from ..model.source import resolve

    single = settings.out.suffix == ".gguf"
    gguf = settings.gguf or single
    if settings.type != "stored" and not gguf:
        raise UserError(f"type is {settings.type}, and that is for GGUF; add --gguf")
    if not gguf and settings.adapter is None:
        raise UserError("nothing to export: give --gguf, or --adapter DIRECTORY to merge one")
    if single and settings.out.exists():
        raise UserError(f"{settings.out} is there already; remove it, or name another file")
    if not single:
        require_other(Path(settings.model), settings.out)
        require_ours(settings.out, "export")
    source = resolve(settings.model)
    _require_checkpoint(source, settings)
    with _checkpoint(source, settings, gguf) as directory:
        if not gguf:
            record = _write_merged(source, settings)
        elif single:
            record = _record(settings, source, directory)
            record["gguf"] = _write_file(directory, settings, settings.out, settings.out.stem, origin(source))
        else:
            record = _write_directory(source, settings, directory, origin(source))
    console.say(f"wrote {settings.out}")
    return {**record, "out": str(settings.out)}


def _require_checkpoint(source: Any, settings: Export) -> None:
    """Refuse what cannot be exported before anything is written."""
    from ..model.checkpoint import require_model, require_other
    from ..model.gguf_out import require_exportable
    from ..model.load import load_state, load_tokenizer, read_config
    from ..model.weights import check_weights
    from ..train.adapters import CONFIG, require_fits

    if source.kind == "gguf":
        raise UserError(f"{settings.model} is GGUF already; `ropewalk extend` makes a checkpoint of it")
    if (source.path / CONFIG).is_file() and not (source.path / "model.safetensors").is_file():
        raise UserError(
            f"{settings.model} is an adapter; name its base: ropewalk export BASE {settings.out} "
            f"--adapter {settings.model}"
        )
    require_model(source.path)
    require_other(source.path, settings.out)
    if settings.gguf or settings.out.suffix == ".gguf":
        require_exportable(source.path, read_config(source.path), load_state(source.path))
    check_weights(source.path)
    load_tokenizer(source.path)
    if settings.adapter is not None:
        require_fits(settings.adapter, source.path)
        require_other(settings.adapter, settings.out)


@contextlib.contextmanager
def _checkpoint(source: Any, settings: Export, gguf: bool) -> Iterator[Path]:
    """The checkpoint to write as GGUF: the model itself, or a merged one that is removed afterwards."""
    if settings.adapter is None or not gguf:
        yield source.path
        return
    with locked(settings.out), beside_directory(settings.out) as place:
        _merge(source, settings.adapter, place)
        yield place


def _merge(source: Any, adapter: Path, place: Path) -> None:
    """Fill ``place`` with the merged checkpoint, its config and tokenizer as the base has them."""
    import shutil

    import torch

    from ..model.checkpoint import same_companions
    from ..model.convert import readable
    from ..model.load import load_config
    from ..model.quiet import quiet
    from ..train.adapters import merged_model

    console.say(f"merging {adapter} into {source.name}")
    model = merged_model(source.path, adapter, load_config(source.path).dtype or torch.float32)
    with quiet():
        model.save_pretrained(place)
    (place / "generation_config.json").unlink(missing_ok=True)
    same_companions(source.path, place)
    shutil.copyfile(source.path / "config.json", place / "config.json")
    readable(place)


def _write_merged(source: Any, settings: Export) -> dict[str, Any]:
    """OUT: the merged checkpoint, with its card and record."""
    from ..model.card import origin, write_card
    from ..model.inspect import inspect_directory

    assert settings.adapter is not None
    with new_directory(settings.out, "export") as place:
        _merge(source, settings.adapter, place)
        record = _record(settings, source, place)
        write_card(place, record, origin(source))
        write_record(place, record)
        findings = inspect_directory(place)
    for finding in findings:
        console.say(f"! {finding.text}; {finding.cure}")
    return {**record, "findings": [finding.as_dict() for finding in findings]}


def _write_directory(source: Any, settings: Export, directory: Path, known: dict[str, Any]) -> dict[str, Any]:
    """OUT: one GGUF file, with its card and record."""
    from ..model.card import write_card

    with new_directory(settings.out, "export") as place:
        record = _record(settings, source, directory)
        beside = place / "model.gguf"
        name = source.path.resolve().name if source.kind == "directory" else source.name.replace("/", "-")
        record["gguf"] = _write_file(directory, settings, beside, name, known)
        file = place / f"{name}-{record['gguf']['type']}.gguf"
        beside.rename(file)
        record["gguf"]["file"] = file.name
        write_card(place, record, known)
        write_record(place, record)
    return record


def _write_file(
    directory: Path, settings: Export, file: Path, name: str, known: dict[str, Any]
) -> dict[str, Any]:
    """The GGUF file, written beside and renamed; what was written, said in a line."""
    from ..model.gguf_out import write_gguf

    with new_file(file) as beside:
        kind = None if settings.type == "stored" else settings.type
        done = write_gguf(directory, beside, kind=kind, name=name, about=known)
    console.say(f"GGUF: {done['tensors']} tensors, {done['type']}, {done['bytes']:,} bytes")
    return done


def _record(settings: Export, source: Any, directory: Path) -> dict[str, Any]:
    """ropewalk.json of what is written; ``directory`` is the checkpoint it holds."""
    from ..model.load import model_block

    before = model_block(source.path, source.name)
    block = model_block(directory, settings.out.stem if settings.out.suffix == ".gguf" else settings.out.name)
    for key in ("original_window", "factor", "method", "trained"):  # what a config cannot say
        block[key] = before[key]
    if settings.adapter is not None:
        made = read_record(settings.adapter.parent) or {}
        trained = (made.get("model") or {}).get("trained")
        block["trained"] = trained if (trained or {}).get("lora") else before["trained"]
    return {
        "verb": "export",
        "ropewalk": __version__,
        "settings": to_record(settings),
        "fingerprint": fingerprint({"settings": to_record(settings), "from": before}),
        "model": block,
        "from": before,
        **({"adapter": settings.adapter.name} if settings.adapter else {}),
    }
