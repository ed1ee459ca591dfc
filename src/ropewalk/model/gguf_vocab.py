"""A checkpoint's tokenizer as llama.cpp wants it: tokens, kinds, merges or scores, the pre-tokenizer's name.

The counterpart of `gguf_tokenizer`. What llama.cpp would cut into other tokens is refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .checkpoint import read_json
from .gguf_tokenizer import CONTROL, LLAMA3, QWEN2, UNUSED, USER_DEFINED

NORMAL, UNKNOWN, BYTE = 1, 2, 6
"""More token types of ``tokenizer.ggml.token_type``."""

SPACE = "▁"


@dataclass(frozen=True)
class Vocabulary:
    """model: gpt2 (byte-level BPE) or llama (SentencePiece).   pre: llama.cpp's name of the pre-tokenizer.

    tokens, types: one an embedding row.   merges: of gpt2.   scores: of llama, one a token.
    special: role (bos, eos, unk, pad) -> id.   prefix: llama's space in front of a text.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    special: dict[str, int]
    adds_bos: bool
    adds_eos: bool
    prefix: bool
    template: str | None


def read_vocabulary(directory: Path, tokenizer: Any, rows: int) -> Vocabulary:
    """The vocabulary of a checkpoint directory for a model with ``rows`` embedding rows.

    tokenizer: as `load.load_tokenizer` gives it: it tells what is put around a text.
    Raises UserError for a tokenizer that llama.cpp would not read alike.
    """
    file = directory / "tokenizer.json"
    raw = read_json(file) if file.is_file() else json.loads(tokenizer.backend_tokenizer.to_str())
    model = raw["model"]
    if model.get("type") != "BPE":
        raise UserError(f"{directory}: tokenizer of kind {model.get('type')}: {UNKNOWN_TO_US}")
    byte_level = not model.get("byte_fallback")
    tokens, types = _tokens(raw, rows)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges") or []]
    ids = tokenizer("a")["input_ids"]
    special = {
        role: number
        for role in ("bos", "eos", "unk", "pad")
        if isinstance(number := getattr(tokenizer, f"{role}_token_id", None), int)
    }
    adds_bos = "bos" in special and ids[:1] == [special["bos"]]
    if byte_level:
        pre, scores, prefix = _pre_tokenizer(raw, directory), [], False
    else:
        pre, scores, prefix = "default", _scores(model, tokens, types, directory), _prefix(raw)
    template = tokenizer.chat_template
    return Vocabulary(
        model="gpt2" if byte_level else "llama",
        pre=pre,
        tokens=tokens,
        types=types,
        merges=merges if byte_level else [],
        scores=scores,
        special=special,
        adds_bos=adds_bos,
        adds_eos=len(ids) > 1 and "eos" in special and ids[-1] == special["eos"],
        prefix=prefix,
        template=template if isinstance(template, str) else None,
    )


UNKNOWN_TO_US = "it cannot be written here so that llama.cpp gives the same tokens"


def _tokens(raw: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """(text, type) of every embedding row; rows without a token are unused ones."""
    by_id = {number: token for token, number in raw["model"]["vocab"].items()}
    added = {int(token["id"]): token for token in raw.get("added_tokens") or []}
    bytes_too = bool(raw["model"].get("byte_fallback"))
    unknown = raw["model"].get("unk_token")
    tokens, types = [], []
    for i in range(rows):
        own = added.get(i)
        token = own["content"] if own else by_id.get(i)
        if token is None:
            kind, token = UNUSED, f"[PAD{i}]"
        elif bytes_too and token == unknown:
            kind = UNKNOWN
        elif own:
            kind = CONTROL if own.get("special") else USER_DEFINED
        else:
            kind = BYTE if bytes_too and _is_byte(token) else NORMAL
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _pre_tokenizer(raw: dict[str, Any], directory: Path) -> str:
    """llama.cpp's name of a byte-level pre-tokenizer. Raises UserError for one that it is not sure of."""
    outer = raw.get("pre_tokenizer") or {}
    steps = outer.get("pretokenizers") or [outer]
    normalizer = (raw.get("normalizer") or {}).get("type")
    whole = bool(raw["model"].get("ignore_merges"))
    last = steps[-1]
    plain = last.get("type") == "ByteLevel" and not last.get("add_prefix_space")
    regex = last.get("use_regex", True)
    first = steps[0] if len(steps) == 2 else {}
    if plain and normalizer is None and not whole and regex:
        if len(steps) == 1:
            return "gpt-2"
        if first.get("type") == "Digits" and first.get("individual_digits"):
            return "smollm"
    isolated = first.get("behavior", "").lower() == "isolated" and not first.get("invert")
    if plain and not regex and first.get("type") == "Split" and isolated:
        pattern = (first.get("pattern") or {}).get("Regex")
        if pattern == LLAMA3 and normalizer is None and whole:
            return "llama-bpe"
        if pattern == QWEN2 and normalizer in (None, "NFC") and not whole:
            return "qwen2"
    names = " + ".join(str(step.get("type")) for step in steps)
    raise UserError(f"{directory}: the pre-tokenizer of tokenizer.json ({names}) is none known here: "
                    f"{UNKNOWN_TO_US}")  # fmt: skip


def _scores(model: dict[str, Any], tokens: list[str], types: list[int], directory: Path) -> list[float]:
    """SentencePiece scores: the earlier a piece in the vocabulary, the sooner it is merged.

    tokenizer.json has merges in the order of their score and no scores. Training numbers the pieces in
    that very order, 0, -1, -2, ...; a tokenizer whose merges follow another order is refused.
    """
    vocab = model["vocab"]
    last = -1
    for merge in model.get("merges") or []:
        pair = merge.split(" ") if isinstance(merge, str) else merge
        made = vocab.get("".join(pair), -1)
        if made < last:
            raise UserError(
                f"{directory}: the merges of tokenizer.json do not follow its vocabulary: {UNKNOWN_TO_US}"
            )
        last = made
    first = next((i for i, kind in enumerate(types) if kind == NORMAL), 0)
    return [float(first - i) if kind == NORMAL else 0.0 for i, kind in enumerate(types)]


def _prefix(raw: dict[str, Any]) -> bool:
    """Does the tokenizer put a space in front of a text?"""
    text = json.dumps([raw.get("normalizer"), raw.get("pre_tokenizer")], ensure_ascii=False)
    return f'"Prepend", "prepend": "{SPACE}"' in text or (
        '"Metaspace"' in text and '"prepend_scheme": "never"' not in text
    )
