"""The command that makes one results file again, to stand in it: of the flags those that matter to it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from .result_file import safe

READING = ("documents", "cut", "column")
FLAGS: dict[str, tuple[str, ...]] = {
    "perplexity": ("contexts", "target", "stride", "protocol", "sample", "windows", *READING, "small"),
    "position-loss": ("target", "windows", *READING, "small"),
    "passkey": ("shared_keys", "target", "small"),
    "passkey-choice": ("shared_keys", "target", "small"),
    "passkey-map": ("target", "small"),
    "benchmark": ("small",),
    "ruler": ("contexts", "target", "small"),
    "summarization": ("target", "small"),
    "attention": ("target", "column"),
}
"""By evaluation, the settings of `evaluate` that change its results; and for all ``seed`` and ``dtype``."""
ASKED_BY = {"passkey-map": "passkey-grid"}
"""Evaluations whose flag has another name."""


def command(settings: Any, evaluation: str, texts: str, model: str, name: str, window: int) -> str:
    """The command line of one evaluation.

    settings: of `evaluate`.  texts: its texts as the flag has them, already quoted; empty for none.
    model: what to call it on the command line.  name: what results call it.  window: its own, tokens.
    Files are named without the directories of this machine: results are published, and the same on others.
    """
    words = ["ropewalk evaluate", shlex.quote(model), f"--{ASKED_BY.get(evaluation, evaluation)}"]
    words += [texts] if texts else []
    for flag in (*FLAGS[evaluation], "seed", "dtype"):
        value = getattr(settings, flag)
        usual = type(settings).__dataclass_fields__[flag].default
        if value == usual or (flag == "target" and value == window):
            continue
        words.append("--" + flag.replace("_", "-"))
        if value is not True:
            words += [shlex.quote(str(one)) for one in (value if isinstance(value, tuple) else (value,))]
    changes = [_local(one) for one in settings.set if one.startswith(f"{evaluation}.")]
    words += ["--set", *map(shlex.quote, changes)] if changes else []
    words += ["--name", shlex.quote(name)] if name != model else []
    return " ".join(words)


def text_words(group: str, sources: tuple[str, ...]) -> str:
    """A group of texts as ``--perplexity`` has it: ``NAME=FILE FILE``, quoted; of no name, without it."""
    names = [source if source.startswith("hub:") else Path(source).name for source in sources]
    if group not in ("", safe(Path(names[0].removeprefix("hub:")).stem)):
        names[0] = f"{group}={names[0]}"
    return " ".join(map(shlex.quote, names))


def _local(change: str) -> str:
    """One ``--set`` without this machine's directories: ``benchmark.files=[piqa=piqa.parquet]``."""
    return re.sub(r"(?<![\w.:/~-])[~/][^\s,\]\"']*/(?=[^/\s])", "", change)
