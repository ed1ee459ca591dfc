"""A Llama-architecture checkpoint as a GGUF file whose rope keys give llama.cpp the right positions.

Tensors go one at a time from the safetensors files into the GGUF file, so the model never lies in memory.
The layout is that of llama.cpp's converter (gguf's writer and tensor names): q and k rows are reordered,
because llama.cpp rotates neighbouring pairs where transformers rotates halves.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import sync_file
from ..starving import refusal
from .config import RopeState, as_read, read_state, text_part
from .gguf_vocab import Vocabulary, read_vocabulary
from .load import load_tokenizer, read_config
from .scaling import attention_of, divisors_of
from .weights import check_weights, weight_files

FAMILIES = ("llama", "mistral")
TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16"}
STORED = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
ROPE_TABLE = "rope_freqs.weight"
"""One divisor a frequency: how llama.cpp takes llama3's scaling, and any other fixed table."""


def write_gguf(
    directory: Path, file: Path, *, kind: str | None = None, name: str, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Write the checkpoint ``directory`` as the GGUF file ``file``; returns {"type", "tensors", "bytes"}.

    kind: f32, f16 or bf16 of the matrices (vectors are f32 always); None keeps the checkpoint's own.
    name: of the model.   about: "license" where known.
    Everything that can be refused is refused, with a UserError, before a weight is read.
    """
    config = read_config(directory)
    state = read_state(config)
    read = require_exportable(directory, config, state)
    headers = check_weights(directory)
    kind = kind or STORED.get(headers[max(headers, key=lambda n: len(headers[n]["shape"]))]["dtype"], "f32")
    names = tensor_names(directory, read, headers)
    words = read_vocabulary(directory, load_tokenizer(directory), int(read["vocab_size"]))
    try:
        _write(directory, file, (read, state, words, names, headers), kind, name, about or {})
    except FileNotFoundError as error:  # so safetensors says that it may open no more files
        raise UserError(
            f"the weights cannot be opened ({error}): raise the limit on open files (ulimit -n), then run "
            "the same command again"
        ) from None
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise UserError(_short(file, str(error))) from None
        raise OSError(refused[0], os.strerror(refused[0]), refused[1] or str(file)) from None
    return {"type": kind, "tensors": len(names), "bytes": file.stat().st_size}


def converter_command(directory: Path) -> str:
    """How llama.cpp's own converter does it: the checkpoint's config.json is right already."""
    return f"python convert_hf_to_gguf.py {directory} --outfile {directory.name}.gguf --outtype f16"


def require_exportable(directory: Path, config: dict[str, Any], state: RopeState) -> dict[str, Any]:
    """The config as transformers reads it, of a model that can be written here. Raises UserError."""
    command = converter_command(directory)
    read = as_read(config)
    family = str(read["model_type"])
    if family not in FAMILIES or text_part(config) is not config:
        raise UserError(
            f"GGUF is written here for {' and '.join(FAMILIES)} models, and this is {family}; its "
            f"config.json is right already, so use llama.cpp's own converter: {command}"
        )
    if config.get("quantization_config"):
        raise UserError(f"{directory} is quantized already; export the model it was made from")
    if state.method == "dynamic":
        raise UserError("llama.cpp has no dynamic scaling of positions; extend with --method linear instead")
    sliding = read.get("sliding_window")
    if isinstance(sliding, int) and sliding < state.window:
        raise UserError(
            f"this {family} model looks back {sliding:,} tokens only (sliding_window), and llama.cpp's llama "
            "architecture has no such limit: its answers would differ"
        )
    if read["hidden_act"] != "silu" or state.rotary_dim != state.head_dim:
        raise UserError(
            f"activation {read['hidden_act']}, {state.rotary_dim} of {state.head_dim} dimensions rotated: "
            f"not llama.cpp's llama architecture; use its own converter: {command}"
        )
    rope_keys(state)
    return read


def rope_keys(state: RopeState) -> tuple[dict[str, Any], list[float] | None]:
    """({type, factor, original}, divisors): the keys of a scaling and, where it takes one, its table.

    Raises UserError for a scaling that llama.cpp's keys cannot say.
    """
    own, method = state.parameters, state.method
    if method in ("none", "linear"):
        keys = {"type": "LINEAR", "factor": state.factor, "original": state.original_window}
        return (keys if method == "linear" else {}), None
    attention = attention_of(state, own, "")
    if method == "yarn":
        usual = own.get("beta_fast") in (None, 32, 32.0) and own.get("beta_slow") in (None, 1, 1.0)
        derived = abs(attention - (0.1 * math.log(state.factor) + 1.0)) < 1e-6
        if usual and derived and own.get("truncate") is not False:
            return {"type": "YARN", "factor": state.factor, "original": state.original_window}, None
        raise UserError("yarn with parameters of its own is not the same in every llama.cpp; not written")
    one_table = method == "llama3" or (method == "longrope" and own["short_factor"] == own["long_factor"])
    if one_table and abs(attention - 1.0) < 1e-9:
        return {}, [float(value) for value in divisors_of(state, own, "")]
    raise UserError(
        f"{method} with two tables or an attention factor is not written here; use llama.cpp's own converter"
    )


def tensor_names(directory: Path, read: dict[str, Any], headers: dict[str, Any]) -> dict[str, str]:
    """Tensor name in the checkpoint -> name in the GGUF file. Raises UserError for an unknown tensor."""
    from gguf import MODEL_ARCH, get_tensor_name_map

    table = get_tensor_name_map(MODEL_ARCH.LLAMA, int(read["num_hidden_layers"]))
    found = {}
    for tensor in headers:
        if tensor.endswith("rotary_emb.inv_freq"):
            continue
        if tensor == "lm_head.weight" and read.get("tie_word_embeddings"):
            continue
        new = table.get_name(tensor, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise UserError(
                f"tensor {tensor} has no place in llama.cpp's llama architecture; use its own converter: "
                f"{converter_command(directory)}"
            )
        found[tensor] = new
    return found


def reordered(tensor: Any, heads: int) -> Any:
    """Rows of a q or k projection (or its bias), from halves to neighbouring pairs, head by head.

    Row j of a head's first half comes to 2j, row j of its second half to 2j + 1.
    """
    shape = tensor.shape
    return tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def _write(directory: Path, file: Path, model: Any, kind: str, name: str, about: dict[str, Any]) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

    read, state, words, names, headers = model
    writer = GGUFWriter(str(file), "llama")
    writer.add_type("model")
    writer.add_name(name)
    if about.get("license"):
        writer.add_license(str(about["license"]))
    writer.add_file_type(LlamaFileType[TYPES[kind]])
    _add_architecture(writer, read, state)
    divisors = _add_rope(writer, state)
    _add_vocabulary(writer, words)
    if divisors is not None:
        table = np.asarray(divisors, dtype=np.float32)
        writer.add_tensor_info(ROPE_TABLE, table.shape, table.dtype, table.nbytes)
    for tensor, new in names.items():
        shape = headers[tensor]["shape"]
        stored = kind if len(shape) > 1 else "f32"
        size = math.prod(shape) * (4 if stored == "f32" else 2)
        raw = GGMLQuantizationType[stored.upper()]
        writer.add_tensor_info(new, shape, np.dtype(np.float32), size, raw_dtype=raw)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        if divisors is not None:
            writer.write_tensor_data(table)
        for tensor, data in _tensors(directory, names):
            heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(
                tensor.split(".")[-2]
            )
            data = reordered(data, int(read[heads])) if heads else data
            writer.write_tensor_data(_stored(data, kind if data.ndim > 1 else "f32", tensor))
    finally:
        writer.close()
    _require_whole(file)
    sync_file(file)


def _require_whole(file: Path) -> None:
    """Read back where the last tensor ends: numpy's writing does not say when the last bytes do not fit."""
    from gguf import GGUFReader

    try:
        ends = [tensor.data_offset + tensor.n_bytes for tensor in GGUFReader(file).tensors]
    except (ValueError, IndexError):
        ends = []
    if not ends or file.stat().st_size < max(ends):
        raise UserError(_short(file, f"it ended after {file.stat().st_size:,} bytes"))


def _short(file: Path, why: str) -> str:
    return (
        f"{file} cannot be written whole ({why}): free some space or raise the limit on a file's size, then "
        "run the same command again"
    )


def _add_architecture(writer: Any, read: dict[str, Any], state: RopeState) -> None:
    """The numbers of the architecture."""
    writer.add_vocab_size(int(read["vocab_size"]))
    writer.add_context_length(state.window)
    writer.add_embedding_length(int(read["hidden_size"]))
    writer.add_block_count(int(read["num_hidden_layers"]))
    writer.add_feed_forward_length(int(read["intermediate_size"]))
    writer.add_head_count(int(read["num_attention_heads"]))
    writer.add_head_count_kv(int(read["num_key_value_heads"]))
    writer.add_key_length(state.head_dim)
    writer.add_value_length(state.head_dim)
    writer.add_layer_norm_rms_eps(float(read["rms_norm_eps"]))


def _add_rope(writer: Any, state: RopeState) -> list[float] | None:
    """The keys of the positions; returns the divisors that go into `ROPE_TABLE`, if any."""
    from gguf import RopeScalingType

    writer.add_rope_dimension_count(state.rotary_dim)
    writer.add_rope_freq_base(state.base)
    keys, divisors = rope_keys(state)
    if keys:
        writer.add_rope_scaling_type(RopeScalingType[keys["type"]])
        writer.add_rope_scaling_factor(keys["factor"])
        writer.add_rope_scaling_orig_ctx_len(keys["original"])
    return divisors


def _add_vocabulary(writer: Any, words: Vocabulary) -> None:
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.pre)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    if words.merges:
        writer.add_token_merges(words.merges)
    if words.model == "llama":
        writer.add_token_scores(words.scores)
        writer.add_add_space_prefix(words.prefix)
    for role, number in words.special.items():
        getattr(writer, f"add_{role}_token_id")(number)
    writer.add_add_bos_token(words.adds_bos)
    writer.add_add_eos_token(words.adds_eos)
    if words.template:
        writer.add_chat_template(words.template)


def _tensors(directory: Path, names: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """(name, tensor) in the order of ``names``, one at a time in memory."""
    from safetensors import safe_open

    where = {}
    for file in weight_files(directory):
        handle = safe_open(str(file), framework="pt")
        where.update(dict.fromkeys(handle.keys(), handle))
    for tensor in names:
        yield tensor, where[tensor].get_tensor(tensor)


def _stored(data: Any, kind: str, name: str) -> Any:
    """A tensor as numpy holds it in the file. Raises UserError when float16 cannot hold it."""
    import torch

    if kind == "bf16":
        return data.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    made = data.to(torch.float16 if kind == "f16" else torch.float32).contiguous()
    if kind == "f16" and bool(made.isinf().any()):
        raise UserError(f"tensor {name} has numbers beyond float16 (65,504); export with --type bf16 or f32")
    return made.numpy()
