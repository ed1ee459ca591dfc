"""The tokenizer inside a GGUF file as a tokenizer.json that gives llama.cpp's ids.

Byte-level BPE (``tokenizer.ggml.model`` = gpt2) is built here from the file's own tokens, merges and
pre-tokenizer name: transformers' conversion drops the pre-tokenizer, so digits would no longer stand
alone. SentencePiece vocabularies (llama) go through transformers' conversion, which fits them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import to_json, write_atomic
from .quiet import quiet

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

DIGITS_ALONE = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
PLAIN = ("gpt-2", "gpt2", "default", "phi-2", "olmo", "jina-en", "mpt")
PATTERNS = {
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "stablelm2": QWEN2,
}

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
"""Token types of ``tokenizer.ggml.token_type``."""


def write_tokenizer(path: Path, meta: dict[str, Any], out: Path, window: int) -> None:
    """Write tokenizer.json and tokenizer_config.json for the GGUF file ``path`` into ``out``.

    window: what ``model_max_length`` says, tokens.
    BOS is put in front of a text exactly when the file says that the model was trained so.
    Raises UserError for a vocabulary or a pre-tokenizer that is not known.
    """
    kind = meta.get("tokenizer.ggml.model")
    tokens = meta.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise UserError(f"{path} holds no tokenizer (no tokenizer.ggml.tokens)")
    special = special_tokens(meta, tokens)
    adds_bos = meta.get("tokenizer.ggml.add_bos_token")
    if kind == "gpt2":
        built = json.loads(_byte_level(path, meta, tokens).to_str())
        bos = (
            bool(adds_bos)
            if adds_bos is not None
            else meta.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3")
        )
    elif kind == "llama":
        built = _converted(path)
        bos = True if adds_bos is None else bool(adds_bos)
    else:
        raise UserError(
            f"{path}: tokenizer kind {kind!r} is not known here; known: gpt2 (byte-level BPE), llama"
        )
    eos = bool(meta.get("tokenizer.ggml.add_eos_token"))
    front, back = special.get("bos_token") if bos else None, special.get("eos_token") if eos else None
    ids = {token: tokens.index(token) for token in (front, back) if token is not None}
    built["post_processor"] = post_processor(front, back, ids, byte_level=kind == "gpt2")
    write_atomic(out / "tokenizer.json", json.dumps(built, ensure_ascii=False))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": window,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bos,
        "add_eos_token": eos,
        **special,
    }
    if isinstance(meta.get("tokenizer.chat_template"), str):
        config["chat_template"] = meta["tokenizer.chat_template"]
    write_atomic(out / "tokenizer_config.json", to_json(config))


def special_tokens(meta: dict[str, Any], tokens: list[str]) -> dict[str, str]:
    """bos, eos, unk and pad as the file names them; a model without padding pads with its eos."""
    found = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = meta.get(f"tokenizer.ggml.{key}_token_id")
        if isinstance(number, int) and 0 <= number < len(tokens):
            found[f"{role}_token"] = tokens[number]
    if "pad_token" not in found and "eos_token" in found:
        found["pad_token"] = found["eos_token"]
    return found


def _byte_level(path: Path, meta: dict[str, Any], tokens: list[str]) -> Any:
    """Byte-level BPE from the file's tokens and merges, with the pre-tokenizer that it names."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = [tuple(merge.split(" ", 1)) for merge in meta.get("tokenizer.ggml.merges") or []]
    # Llama 3's tokenizer takes a piece that is a token as it is, before any merge (as llama.cpp does too).
    whole_pieces = meta.get("tokenizer.ggml.pre") in ("llama-bpe", "llama3")
    try:
        vocabulary = {token: i for i, token in enumerate(tokens)}
        built = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=whole_pieces))
    except Exception as error:  # tokenizers raises plain Exception for merges that do not fit the vocabulary
        raise UserError(f"the tokenizer in {path} is broken: {error}") from None
    pre = str(meta.get("tokenizer.ggml.pre", "default"))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre in DIGITS_ALONE:
        built.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    elif pre in PATTERNS:
        pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre_tokenizers.Split(Regex(PATTERNS[pre]), behavior="isolated")
        built.pre_tokenizer = pre_tokenizers.Sequence([split, pieces])
        if PATTERNS[pre] is QWEN2:
            built.normalizer = normalizers.NFC()
    elif pre in PLAIN:
        built.pre_tokenizer = whole
    else:
        known = ", ".join(sorted((*DIGITS_ALONE, *PLAIN, *PATTERNS)))
        raise UserError(
            f"{path}: pre-tokenizer {pre!r} is not known here (known: {known}); use its safetensors"
        )
    built.decoder = decoders.ByteLevel()
    types = meta.get("tokenizer.ggml.token_type") or []
    for i, kind in enumerate(types):
        if kind in (CONTROL, USER_DEFINED) and i < len(tokens):
            token = AddedToken(tokens[i], special=kind == CONTROL, normalized=False)
            built.add_special_tokens([token]) if kind == CONTROL else built.add_tokens([token])
    return built


def _converted(path: Path) -> dict[str, Any]:
    """A SentencePiece vocabulary through transformers' own conversion: the contents of a tokenizer.json."""
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(path.parent), gguf_file=path.name, trust_remote_code=False
            )
        except Exception as error:  # the conversion raises whatever it stumbles over
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"the tokenizer in {path} cannot be read: {reason}") from None
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def post_processor(
    bos: str | None, eos: str | None, ids: dict[str, int], *, byte_level: bool
) -> dict[str, Any] | None:
    """What tokenizer.json puts around a text: BOS and EOS where asked, nothing else.

    ids: the number of each of them.
    """
    if bos is None and eos is None:
        plain = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        return plain if byte_level else None

    def around(letter: str, type_id: int) -> list[dict[str, Any]]:
        inner: list[dict[str, Any]] = [{"Sequence": {"id": letter, "type_id": type_id}}]
        front = [{"SpecialToken": {"id": bos, "type_id": type_id}}] if bos is not None else []
        back = [{"SpecialToken": {"id": eos, "type_id": type_id}}] if eos is not None else []
        return front + inner + back

    return {
        "type": "TemplateProcessing",
        "single": around("A", 0),
        "pair": around("A", 0) + around("B", 1),
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in ids.items()},
    }
