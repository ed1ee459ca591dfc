"""RULER: retrieval, tracing and counting at growing lengths, on prompts made here (`data.ruler_tasks`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import console
from ..data.ruler_tasks import TASKS, Sample, TooShort, sample, sentences
from ..data.text import describe, documents, require_readable
from ..errors import UserError
from ..metrics.accuracy import matches
from ..metrics.intervals import wilson
from ..model.decoding import Decoding
from ..model.lm import LanguageModel
from ..results.cells import Cells
from ..settings import option, tokens

NAME = "ruler"
REFERENCE = "python-reference"
NOISE = "noise"
ENOUGH = 0.856
"""RULER's bar for an effective length: what Llama-2-7B scores at 4,096 tokens over its 13 tasks."""


@dataclass(frozen=True)
class RulerSettings:
    """RULER's synthetic tasks, greedy, scored by the share of the answers that are found."""

    tasks: tuple[str, ...] = option((), help=f"default all that need no download: {' '.join(TASKS)}")
    lengths: tuple[int, ...] = option(
        (), help="tokens of prompt and answer (default: doubling from 4k to the window)", parse=tokens
    )
    samples: int = option(20, help="prompts a task and length (RULER: 500)")
    haystack: tuple[str, ...] = option(
        (REFERENCE,),
        help="text around the needles: files, or python-reference (Python's language reference), or noise",
    )
    column: str | None = option(None, help="text column of the haystack's files")
    threshold: float = option(ENOUGH, help="score that a length must reach to count as usable")
    seed: int = option(0, help="of the prompts")


def data(settings: RulerSettings) -> list[dict[str, Any]]:
    """The "data" block of the haystack; none for noise. Raises UserError for settings that cannot be."""
    _tasks(settings)
    if settings.haystack == (NOISE,):
        return []
    if settings.haystack == (REFERENCE,):
        digest = hashlib.sha256(_reference().encode()).hexdigest()
        return [{"name": REFERENCE, "sha256": digest, "documents": 1}]
    require_readable(settings.haystack, settings.column)
    return describe(settings.haystack)


def run(lm: LanguageModel, settings: RulerSettings, cells: Cells) -> dict[str, Any]:
    """One row a task and length, shortest first; one score a length; what did not fit, with the reason."""
    tasks, lengths = _tasks(settings), _lengths(lm, settings)
    text = _sentences(settings, lengths[-1])
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    with console.progress(f"{lm.name}: RULER", len(tasks) * len(lengths), "cells") as progress:
        for length in lengths:
            for task in tasks:
                cell = f"{task}/{length}"
                found = cells.get(cell)
                if found is None:
                    found = _cell(lm, task, length, text, settings)
                    cells.put(cell, found)
                (rows if "score" in found else left_out).append(found)
                progress.advance(note=cell)
    for length in lengths:
        out = [one["task"] for one in left_out if one["length"] == length]
        if rows and out:
            console.say(f"  {length:,} tokens: {len(out)} of {len(tasks)} tasks do not fit: {', '.join(out)}")
    if not rows:
        raise UserError(
            f"no RULER task fits into {lengths[-1]:,} tokens; give longer ones, such as "
            "--set 'ruler.lengths=[4096, 8192]'"
        )
    return {
        "protocol": _protocol(lm, settings),
        "data": data(settings),
        "rows": rows,
        "summary": _summary(rows, left_out, settings.threshold),
    }


def _protocol(lm: LanguageModel, settings: RulerSettings) -> dict[str, Any]:
    return {
        "name": "RULER, made here",
        "decoding": "greedy, to the end of text",
        "scored": "share of the answers contained in the output, letter case aside",
        "samples": settings.samples,
        "seed": settings.seed,
        "haystack": list(settings.haystack),
        "bos": "none" if lm.bos is None else "in front",
        "interval": "95 %, Wilson",
        "not_made": ["qa_1", "qa_2"],
    }


def _tasks(settings: RulerSettings) -> list[str]:
    for task in settings.tasks:
        if task not in TASKS:
            raise UserError(
                f"no RULER task {task!r}; known: {', '.join(TASKS)} (qa_1 and qa_2 need a download)"
            )
    if min(settings.lengths, default=1) < 1:
        raise UserError(f"a RULER length is {min(settings.lengths)} tokens; give 1 or more")
    if settings.samples < 1:
        raise UserError(f"samples is {settings.samples}; at least 1 prompt a task and length is needed")
    chosen = list(dict.fromkeys(settings.tasks)) or list(TASKS)
    if settings.haystack == (NOISE,) and not settings.tasks:
        chosen.remove("niah_single_2")  # in noise it is niah_single_1
    return chosen


def _lengths(lm: LanguageModel, settings: RulerSettings) -> list[int]:
    return sorted(set(settings.lengths)) or doubled(lm.window)


def doubled(window: int) -> list[int]:
    """4,096 tokens (a quarter of a window below 16,384) doubled up to the window."""
    length = min(4096, max(1, window // 4))
    found = []
    while length < window:
        found.append(length)
        length *= 2
    return [*found, window]


def _sentences(settings: RulerSettings, longest: int) -> list[str]:
    """Sentences of the haystack, enough for the longest prompt; they begin anew where they end."""
    if settings.haystack == (NOISE,):
        return []
    if settings.haystack == (REFERENCE,):
        return sentences(_reference())
    found: list[str] = []
    size = 0
    for document in documents(settings.haystack, settings.column):
        found += sentences(document.text)
        size += len(document.text)
        if size > 16 * longest:
            break
    if not found:
        raise UserError(f"haystack {' '.join(settings.haystack)} holds no text")
    return found


def _reference() -> str:
    """Python's language reference as every installation has it (`help()` prints from it)."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError(
            "this Python has no language reference; give a text file, or noise: "
            "--set 'ruler.haystack=[noise]'"
        ) from None
    return "\n".join(topics[name] for name in sorted(topics))


def _cell(
    lm: LanguageModel, task: str, length: int, text: Sequence[str], settings: RulerSettings
) -> dict[str, Any]:
    """The row of one task at one length, or why it does not fit: ``{"task", "length", "reason"}``."""
    made: list[Sample] = []
    for index in range(settings.samples):
        try:
            made.append(
                sample(task, length, index, encode=lm.encode, bos=lm.bos, haystack=text, seed=settings.seed)
            )
        except TooShort as error:
            return {"task": task, "length": length, "reason": str(error)}
    room = TASKS[task].room
    prompts = torch.tensor([one.ids for one in made])
    said = lm.generate(prompts, room, Decoding(stop=tuple(lm.stops)))
    outputs = [lm.decode(ids.tolist()) for ids in said]
    hits = [matches(output, one.answers) for output, one in zip(outputs, made)]
    asked = len(made[0].answers)
    return _scored({"task": task, "length": length, "tokens": length - room, "of": asked, "hits": hits})


def _scored(row: dict[str, Any]) -> dict[str, Any]:
    """Score and interval of a row's hits.

    A sample's score is a share in [0, 1], whose variance is at most that of a yes or no with the same
    mean; so Wilson's interval over the n samples is honest, and wide rather than narrow.
    """
    n = len(row["hits"])
    total = sum(row["hits"]) / row["of"]
    low, high = wilson(total, n)
    return {**row, "n": n, "score": total / n, "low": low, "high": high}


def _summary(rows: list[dict[str, Any]], left_out: list[dict[str, Any]], threshold: float) -> dict[str, Any]:
    """The mean over tasks at each length, and the largest length up to which it reaches the threshold."""
    by_length = []
    for length in sorted({row["length"] for row in rows}):
        here = [row for row in rows if row["length"] == length]
        n = sum(row["n"] for row in here)
        total = sum(row["score"] * row["n"] for row in here)
        low, high = wilson(min(total, n), n)
        by_length.append(
            {"length": length, "score": total / n, "low": low, "high": high, "n": n, "tasks": len(here)}
        )
    usable = None
    for point in by_length:
        if point["score"] < threshold:
            break
        usable = point["length"]
    return {"by_length": by_length, "usable": usable, "threshold": threshold, "left_out": left_out}
