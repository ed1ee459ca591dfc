"""Zero-shot benchmarks at the original window (the paper's Table 5): what did the long window cost?

BoolQ, PIQA, RACE-middle, RACE-high and WinoGrande by log-likelihood, with lm-eval's prompts and scores;
any multiple-choice file by its columns; and ``lm-eval:TASK`` for a task of lm-eval's own (the extra
``bench``), run by lm-eval on this model. Every row keeps which questions were right ("items"), so that
two models can be compared on the same questions (`metrics.accuracy.paired_difference`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import console
from ..data.multiple_choice import BENCHMARKS, Columns, Question, questions
from ..data.tables import describe_table
from ..errors import UserError
from ..metrics.accuracy import accuracy, standard_error
from ..metrics.intervals import wilson
from ..model.lm import LanguageModel
from ..results.cells import Cells
from ..settings import option, tokens
from .harness import lm_eval_rows, lm_eval_version
from .likelihood import Pair, encode_pair, log_likelihoods
from .ranges import at_least

NAME = "benchmark"
CELL = 128
"""Questions in a cell: what is computed again after a kill."""


@dataclass(frozen=True)
class BenchmarkSettings:
    """Zero-shot multiple choice by log-likelihood, as lm-eval scores it."""

    tasks: tuple[str, ...] = option(
        tuple(BENCHMARKS),
        help="boolq piqa race-middle race-high winogrande, lm-eval:TASK, or names in files",
    )
    files: tuple[str, ...] = option(
        (),
        help="NAME=FILE: questions from a Parquet or JSON file, not the Hub; a new NAME needs prompt",
    )
    prompt: str | None = option(None, help="text column of the prompts in files of an unknown name")
    choices: tuple[str, ...] = option((), help="column with the list of choices, or one column a choice")
    answer: str | None = option(
        None, help="column of the right choice: index from 0, letter from A, or its text"
    )
    limit: int | None = option(None, help="only the first so many questions of each task")
    window: int | None = option(
        None, help="cut longer questions to this many tokens (default the model's)", parse=tokens
    )


@dataclass(frozen=True)
class Source:
    """Where a task's questions come from; ``columns`` for a file of the user's own."""

    name: str
    place: str
    columns: Columns | None


def run(lm: LanguageModel, settings: BenchmarkSettings, cells: Cells) -> dict[str, Any]:
    """One row a task: n, accuracy with standard error and interval, the same by length, the items."""
    rows = []
    own = [source for source in sources(settings) if not source.name.startswith("lm-eval:")]
    asked = {s.name: questions(s.place, s.name, s.columns, settings.limit) for s in own}
    total = sum(map(len, asked.values()))
    with console.progress(f"{lm.name}: benchmarks", total, "questions") as progress:
        for source in own:
            scores: list[list[float]] = []
            for at in range(0, len(asked[source.name]), CELL):
                part = asked[source.name][at : at + CELL]
                scores += _cell(lm, part, f"{source.name}/{at}", settings, cells)
                progress.advance(len(part), source.name)
            rows.append(_row(source.name, asked[source.name], scores))
    for task in (t.removeprefix("lm-eval:") for t in settings.tasks if t.startswith("lm-eval:")):
        found = cells.get(f"lm-eval:{task}")
        if found is None:
            found = lm_eval_rows(lm, task, settings.limit, settings.window)
            cells.put(f"lm-eval:{task}", found)
        rows += [_interval(row) for row in found]
    return {
        "protocol": {
            "name": "zero-shot log-likelihood, lm-eval's prompts",
            "shots": 0,
            "limit": settings.limit,
            "window": settings.window or lm.window,
        },
        "data": data(settings),
        "rows": rows,
        "summary": {row["task"]: row["accuracy"] for row in rows},
    }


def data(settings: BenchmarkSettings) -> list[dict[str, Any]]:
    """The "data" blocks of what is read. Local files are read here, so that a bad one is said at once.

    Raises UserError as `sources` and `questions` do, and when lm-eval is asked for and not installed.
    """
    at_least(1, NAME, limit=settings.limit, window=settings.window)
    blocks = []
    for source in sources(settings):
        if source.name.startswith("lm-eval:"):
            blocks.append({"name": source.name, "lm_eval": lm_eval_version()})
            continue
        block = {**describe_table(source.place), "task": source.name}
        if not source.place.startswith("hub:"):
            asked = questions(source.place, source.name, source.columns, settings.limit)
            block["documents"] = len(asked)
        blocks.append(block)
    return blocks


def sources(settings: BenchmarkSettings) -> list[Source]:
    """Where each task comes from. Raises UserError: an unknown task, a file of no task, columns missing."""
    if settings.window is not None and settings.window < 2:
        raise UserError(f"window is {settings.window}; a question and its choice need at least 2 tokens")
    files = dict(_name_and_file(text) for text in settings.files)
    wanted = list(dict.fromkeys([*settings.tasks, *files]))
    if settings.tasks == tuple(BENCHMARKS) and files:
        wanted = list(files)  # only files were named: the user wants those
    found = []
    for name in wanted:
        if name in BENCHMARKS:
            found.append(Source(name, files.get(name, BENCHMARKS[name].hub), None))
        elif name in files:
            found.append(Source(name, files[name], _columns(settings, name)))
        elif name.startswith("lm-eval:"):
            found.append(Source(name, name, None))
        else:
            raise UserError(
                f"no benchmark {name!r}; known: {', '.join(BENCHMARKS)}, lm-eval:TASK, "
                f"or give its questions: --set 'benchmark.files=[{name}=FILE]'"
            )
    return found


def _name_and_file(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise UserError(f"files has {text!r}; write NAME=FILE, such as piqa=piqa.parquet")
    return name, file


def _columns(settings: BenchmarkSettings, name: str) -> Columns:
    if settings.prompt is None or not settings.choices or settings.answer is None:
        raise UserError(
            f"benchmark {name!r} is not a known one ({', '.join(BENCHMARKS)}): "
            "name its columns with --set benchmark.prompt=, benchmark.choices= and benchmark.answer="
        )
    return Columns(settings.prompt, settings.choices, settings.answer)


def _cell(
    lm: LanguageModel, part: Sequence[Question], cell: str, settings: BenchmarkSettings, cells: Cells
) -> list[list[float]]:
    """Log-likelihood of every choice of every question of one cell."""
    known = cells.get(cell)
    if known is not None:
        return known
    pairs: list[Pair] = []
    for question in part:
        try:
            pairs += [encode_pair(lm, context, rest) for context, rest in question.pairs]
        except ValueError as error:
            raise UserError(f"a question of {cell} cannot be asked: {error}") from None
    flat = iter(log_likelihoods(lm, pairs, settings.window))
    scores = [[next(flat) for _ in question.pairs] for question in part]
    cells.put(cell, scores)
    return scores


def _row(task: str, asked: Sequence[Question], scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """lm-eval's acc (highest log-likelihood) and acc_norm (highest per character); first wins a tie."""
    plain, by_length = [], []
    for question, found in zip(asked, scores):
        plain.append(_best(found) == question.answer)
        by_length.append(_best([x / n for x, n in zip(found, question.lengths)]) == question.answer)
    chance = sum(1 / len(question.pairs) for question in asked) / len(asked)
    row = {"task": task, "chance": chance, "items": _items(plain), "items_norm": _items(by_length)}
    return _interval(row)


def _interval(row: dict[str, Any]) -> dict[str, Any]:
    """A row's items with their accuracy, standard error and Wilson interval."""
    items: str = row["items"]
    low, high = wilson(items.count("1"), len(items))
    done = {
        **row,
        "n": len(items),
        "accuracy": accuracy(items),
        "standard_error": standard_error(items),
        "low": low,
        "high": high,
    }
    if "items_norm" in row:
        low, high = wilson(row["items_norm"].count("1"), len(items))
        done |= {"accuracy_norm": accuracy(row["items_norm"]), "low_norm": low, "high_norm": high}
    return done


def _best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def _items(right: Sequence[bool]) -> str:
    return "".join("1" if r else "0" for r in right)
