"""Checkpoints into memory, and what identifies them. No pickle is ever loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import fingerprint, read_record
from ..starving import told
from .config import RopeState, as_read, read_state
from .quiet import quiet
from .source import display_name
from .weights import check_weights, content_hash, count_parameters, require_no_adapter, weight_files

DTYPES = ("float32", "bfloat16", "float16")


def read_config(path: Path | str) -> dict[str, Any]:
    """The parsed config.json of a checkpoint directory, as it stands there. Raises UserError."""
    file = Path(path) / "config.json"
    if not Path(path).is_dir():
        raise UserError(f"no such model: {path} is not a checkpoint directory")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        require_no_adapter(Path(path))
        raise UserError(f"{path} has no config.json: not a transformers checkpoint") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{file} is not a mapping: not a transformers configuration")
    return found


def load_config(path: Path | str) -> Any:
    """transformers' configuration of a checkpoint directory (a PreTrainedConfig). Raises UserError."""
    from transformers import AutoConfig

    as_read(read_config(path))
    with quiet():
        return AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)


def load_state(path: Path | str) -> RopeState:
    """The positions of a checkpoint directory. Raises UserError."""
    return read_state(read_config(path))


def load_tokenizer(path: Path | str) -> Any:
    """The tokenizer of a checkpoint directory, checked against the model's vocabulary. Raises UserError."""
    from transformers import AutoTokenizer

    directory = Path(path)
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json", "spiece.model")
    if not any((directory / name).is_file() for name in names):
        raise UserError(f"{path} has no tokenizer (no tokenizer.json); put the model's own beside it")
    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(path), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # tokenizers raise bare Exception on a broken file
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise UserError(f"the tokenizer in {path} cannot be loaded: {reason}") from None
    rows = as_read(read_config(path)).get("vocab_size")
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if isinstance(rows, int) and largest >= rows:
        raise UserError(
            f"the tokenizer in {path} does not match the model: its largest token id is {largest:,}, "
            f"the model has {rows:,} embedding rows"
        )
    return tokenizer


def load_model(
    path: Path | str, *, dtype: str = "float32", device: str = "cpu", attention: str | None = None
) -> Any:
    """The causal language model of a checkpoint directory, in evaluation mode.

    dtype: float32, bfloat16 or float16 of the weights; rotary tables stay float32.
    attention: transformers' ``attn_implementation``, None for its default.
    Raises UserError for weights that are missing, cut off or do not fit the config.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}")
    read_config(path)
    check_weights(Path(path))
    more = {} if attention is None else {"attn_implementation": attention}
    with quiet():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(path),
                dtype=getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **more,
            )
        except (ValueError, OSError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
            reason = told(error) or " ".join(str(error).split())[:300]
            raise UserError(f"model {path} cannot be loaded: {reason}") from None
        model, report = loaded
        missing = sorted(report.get("missing_keys") or [])
        if missing:
            raise UserError(
                f"model {path}: {len(missing)} weights that its config asks for are not in its files "
                f"({missing[0]}, ...): config and weights do not belong together"
            )
        return model.to(device).eval()


def model_block(path: Path | str, name: str | None = None) -> dict[str, Any]:
    """What identifies a checkpoint in a results file.

    {"name", "hash", "window", "original_window", "factor", "method", "base", "parameters", "trained"}; the
    hash is sixteen hex digits over the config as transformers reads it and the weights files' contents.
    A checkpoint that ropewalk made also says what a config cannot: that a base was changed (ntk), or a
    window raised without scaling.
    """
    directory = Path(path)
    config = read_config(directory)
    state = read_state(config)
    made = _made(directory)
    block = {
        "name": name or display_name(directory),
        "hash": model_hash(directory),
        "window": state.window,
        **_lengthened(made, state),
        "base": state.base,
        "parameters": count_parameters(directory),
        "trained": made.get("trained"),
    }
    return block


def original_window(path: Path | str) -> int:
    """L, tokens: the window before it was lengthened; the record says it where the config cannot."""
    directory = Path(path)
    return int(_lengthened(_made(directory), read_state(read_config(directory)))["original_window"])


def _made(directory: Path) -> dict[str, Any]:
    """What ropewalk's record says of the model, where it made it."""
    found = (read_record(directory) or {}).get("model")
    return found if isinstance(found, dict) else {}


def _lengthened(made: dict[str, Any], state: RopeState) -> dict[str, Any]:
    """How the window was lengthened: by the config, and by the record what a config cannot say."""
    found = {"original_window": state.original_window, "factor": state.factor, "method": state.method}
    if state.method == "none" and made.get("window") == state.window:
        found = {key: made.get(key, value) for key, value in found.items()}
    return found


def model_hash(path: Path | str) -> str:
    """Sixteen hex digits over what computes: the config as transformers reads it, and every weights file."""
    directory = Path(path)
    config = as_read(read_config(directory))
    ignored = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "architectures")
    kept = {key: value for key, value in config.items() if key not in ignored}
    kept = json.loads(json.dumps(kept, default=str))
    weights = [content_hash(file) for file in weight_files(directory)]
    return fingerprint({"config": _finite(kept), "weights": weights})


def _finite(value: Any) -> Any:
    """JSON without NaN and infinities, which some configs hold as defaults."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return str(value)
    return value


def bos_of(tokenizer: Any) -> int | None:
    """The BOS id when the tokenizer itself puts it in front of a text: then the model was trained so."""
    ids = tokenizer("a")["input_ids"]
    bos = tokenizer.bos_token_id
    return bos if bos is not None and ids[:1] == [bos] else None
