"""The commands that make a report's results again, from what the results files say of their making."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from typing import Any

from .collection import Collection, Model, Series, number
from .phrasing import clean

COMMANDED = 8
"""Models for which commands are shown at most."""
TRAINED_WITH: tuple[tuple[str, str, Any], ...] = (
    ("peak_rate", "--rate", None),
    ("batch", "--batch", None),
    ("warmup", "--warmup", 20),
    ("schedule", "--schedule", "constant"),
    ("average", "--average", 0),
    ("packing", "--packing", "joined"),
    ("short_share", "--short-share", 0),
    ("short_share_end", "--short-share-end", None),
    ("repeats", "--repeats", 0),
    ("repeats_end", "--repeats-end", None),
    ("clip", "--clip", 1),
    ("only", "--only", []),
)
"""Keys of a training's protocol, the flag of each, and the value that needs no flag."""
ASKED_FOR = (
    ("passkey-choice", "--passkey-choice"),
    ("passkey-map", "--passkey-grid"),
    ("benchmark", "--benchmark"),
    ("ruler", "--ruler"),
    ("summarization", "--summarization"),
)
"""Evaluations that one flag asks for."""


def commands(found: Collection) -> list[str]:
    """Commands that make these results again: as recorded with them, else put together from the files.

    Files are named as the results name them, without their directories.
    """
    lines: list[str] = []
    start = _place(found, found.baseline) if found.baseline else "MODEL"
    without = replace(found, series=[s for s in found.series if not _recorded(s)])
    for model in found.models[:COMMANDED]:
        place = _place(found, model)
        lines += _made(found, model, start, place)
        lines += dict.fromkeys(_recorded(s) for s in found.series if s.model.key == model.key)
        flags = _evaluations(without, model)
        lines += [f"ropewalk evaluate {shlex.quote(place)}{flags}"] if flags else []
    return [*filter(None, lines), "ropewalk report RESULTS --out REPORT"]


def _recorded(series: Series) -> str:
    """The command that stands in a results file; empty where none does."""
    said = series.provenance.get("command")
    return clean_command(said) if isinstance(said, str) else ""


def _place(found: Collection, model: Model) -> str:
    """What commands call a model: as those recorded with its results do, else its name in them."""
    for series in found.series:
        match = re.match(r"ropewalk evaluate ([\w./@-]+)( |$)", _recorded(series))
        if match and series.model.key == model.key:
            return match[1]
    return model.label


def clean_command(command: str) -> str:
    """A recorded command as one printable line."""
    return " ".join(clean(word) for word in command.split())[:2000]


def _made(found: Collection, model: Model, start: str, place: str) -> list[str]:
    """How a model is made from the one before.  place: its directory."""
    if model.role == "original":
        return []
    name, start = shlex.quote(place), shlex.quote(start)
    method = "" if model.method == "linear" else f" --method {shlex.quote(model.method or 'none')}"
    longer = shlex.quote(f"{place}-start") if model.steps else name
    lines = [f"ropewalk extend {start} {longer} --to {model.window}{method}"]
    if model.steps:
        how = _training(found.get(model, "training"))
        lines.append(f"ropewalk finetune {longer} {name} --steps {model.steps}{how}")
    return lines


def _training(log: Series | None) -> str:
    """The flags of a training, as far as its log is here."""
    if log is None:
        return " --data FILES"
    names = [clean(block.get("name", "FILE")) for block in log.data] or ["FILES"]
    shares = log.protocol.get("shares")
    parts = list(shares.values()) if isinstance(shares, dict) else []
    if len(parts) == len(names) > 1 and all(number(part) for part in parts):
        names = [f"{name}:{part:g}" for name, part in zip(names, parts)]
    flags = f" --data {' '.join(map(shlex.quote, names))}"
    for key, flag, usual in TRAINED_WITH:
        value = log.protocol.get(key)
        if value is None or value == usual or isinstance(value, dict):
            continue
        words = value if isinstance(value, list) else [f"{value:g}" if isinstance(value, float) else value]
        flags += f" {flag} {' '.join(shlex.quote(clean(word)) for word in words)}"
    return flags + (" --lora" if log.protocol.get("lora") else "")


def _evaluations(found: Collection, model: Model) -> str:
    """The flags that ask for a model's evaluations again."""
    texts, contexts = _texts(found, model, "perplexity")
    flags = f" --perplexity{texts} --contexts {' '.join(map(str, sorted(contexts)))}" if texts else ""
    places, _ = _texts(found, model, "position-loss")
    flags += f" --position-loss{places}" if places else ""
    flags += _sample(found, model)
    passkey = found.get(model, "passkey")
    target = number(passkey.protocol.get("target")) if passkey else None
    if passkey:
        flags += " --passkey" + (" --shared-keys" if "same" in str(passkey.protocol.get("keys")) else "")
    flags += "".join(f" {flag}" for name, flag in ASKED_FOR if found.get(model, name))
    scores = found.get(model, "attention")
    if scores:
        flags += f" --attention {_names(scores)}"
        target = number(scores.protocol.get("to")) or target
    return flags + (f" --target {target:g}" if flags and target and target != model.window else "")


def _texts(found: Collection, model: Model, evaluation: str) -> tuple[str, set[int]]:
    """``GROUP=FILES`` of an evaluation of texts, and its context sizes."""
    flags, contexts = "", set()
    for group in found.of(evaluation):
        series = found.get(model, evaluation, group)
        if series:
            named = f"{shlex.quote(clean(group))}=" if group else ""
            flags += f" {named}{_names(series)}"
            contexts |= {int(row["context"]) for row in series.rows if "context" in row}
    return flags, contexts


def _sample(found: Collection, model: Model) -> str:
    """``--windows`` and ``--stride`` where they are not the usual ones."""
    group = next(iter(found.of("perplexity")), "")
    protocol: dict[str, Any] = getattr(found.get(model, "perplexity", group), "protocol", {})
    windows, stride = number(protocol.get("most_windows")), number(protocol.get("stride"))
    flags = f" --windows {windows:g}" if windows else ""
    return flags + (f" --stride {stride:g}" if stride and stride != 256 else "")


def _names(series: Series) -> str:
    return " ".join(shlex.quote(clean(block.get("name", "FILE"))) for block in series.data) or "FILES"
