"""Multiple-choice questions as lm-eval asks them: for every choice a context and its continuation.

A choice's score is log p(continuation | context); the highest is the model's answer. The prompts of
BoolQ, PIQA, RACE and WinoGrande are those of lm-evaluation-harness 0.4 (EleutherAI), zero-shot.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .tables import Row, read_rows


@dataclass(frozen=True)
class Question:
    """pairs: (context, continuation) of each choice.  lengths: characters of each choice (for the score
    by length, lm-eval's acc_norm).  answer: the index of the right one."""

    pairs: tuple[tuple[str, str], ...]
    lengths: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Benchmark:
    """A known set: the Hub's name for it, the columns it needs, and how its rows become questions."""

    hub: str
    columns: tuple[str, ...]
    ask: Callable[[list[Row]], list[Question]]


@dataclass(frozen=True)
class Columns:
    """Columns of a file of the user's own: prompt (text), choices (one column with a list, or one text
    column a choice), answer (index from 0, letter from A, or the choice's text)."""

    prompt: str
    choices: tuple[str, ...]
    answer: str


def questions(
    source: str, name: str, columns: Columns | None = None, limit: int | None = None
) -> list[Question]:
    """The questions of a known benchmark (``name``), or of any file by its ``columns``.

    limit: the first so many rows.  Raises UserError for a source or a row that cannot be used.
    """
    try:
        if columns is None:
            known = BENCHMARKS[name]
            found = known.ask(read_rows(source, known.columns, limit))
        else:
            rows = read_rows(source, (columns.prompt, *columns.choices, columns.answer), limit)
            found = [_custom(row, columns) for row in rows]
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, SyntaxError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source} has a row that is no question of {name}: {error}") from None
    for number, question in enumerate(found):
        if any(not context.strip() or not rest.strip() for context, rest in question.pairs):
            raise UserError(f"{source}: question {number} of {name} has an empty prompt or choice")
    return found


def _choices(context: str, choices: Sequence[str], answer: int) -> Question:
    """One context, several continuations, a blank between."""
    if not 0 <= answer < len(choices):
        raise ValueError(f"answer {answer} of {len(choices)} choices")
    pairs = tuple((context, " " + choice) for choice in choices)
    return Question(pairs, tuple(map(len, choices)), answer)


def _boolq(row: Row) -> Question:
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    label = row["label"] if "label" in row else row["answer"]
    return _choices(context, ("no", "yes"), int(label))


def _piqa(row: Row) -> Question:
    return _choices(f"Question: {row['goal']}\nAnswer:", (row["sol1"], row["sol2"]), int(row["label"]))


def _winogrande(row: Row) -> Question:
    """Partial evaluation: the blank is filled with either option, what follows it is scored."""
    before, _, after = row["sentence"].partition("_")
    options = (row["option1"], row["option2"])
    pairs = tuple((before + option, " " + after.strip()) for option in options)
    return Question(pairs, tuple(map(len, options)), ("1", "2").index(str(row["answer"])))


def _race(rows: list[Row]) -> list[Question]:
    """An article with its solved problems, the last one asked (lm-eval's ``race``).

    Rows are articles with all "problems" (the grouped set), or single questions, which are grouped.
    """
    return [_race_article(article, problems) for article, problems in _race_articles(rows)]


def _race_articles(rows: list[Row]) -> list[tuple[str, list[dict[str, Any]]]]:
    if "problems" in rows[0]:
        return [(row["article"], _parsed(row["problems"])) for row in rows]
    together = itertools.groupby(rows, key=lambda row: (row.get("example_id"), row["article"]))
    return [(article, list(group)) for (_, article), group in together]


def _race_article(article: str, problems: list[dict[str, Any]]) -> Question:
    text = f"Article: {article}\n\n"
    for problem in problems[:-1]:
        right = problem["options"]["ABCD".index(problem["answer"])]
        if problem["question"].endswith("  _  ."):
            text += problem["question"][:-5] + right + "\n"
        else:
            text += f"Question: {problem['question']}\nAnswer: {right}\n"
    last = problems[-1]
    return _choices(text + last["question"], last["options"][:4], "ABCD".index(last["answer"]))


def _parsed(value: Any) -> Any:
    return ast.literal_eval(value) if isinstance(value, str) else value


def _custom(row: Row, columns: Columns) -> Question:
    if len(columns.choices) == 1:
        choices = [str(choice) for choice in _parsed(row[columns.choices[0]])]
    else:
        choices = [str(row[name]) for name in columns.choices]
    return _choices(str(row[columns.prompt]), choices, _index(row[columns.answer], choices))


def _index(answer: Any, choices: Sequence[str]) -> int:
    """A right answer given as an index from 0, the choice's own text, or a letter from A."""
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip().isalpha():
        return ord(answer.strip().upper()) - ord("A")
    return int(answer)


def _each(ask: Callable[[Row], Question]) -> Callable[[list[Row]], list[Question]]:
    return lambda rows: [ask(row) for row in rows]


BENCHMARKS: dict[str, Benchmark] = {
    "boolq": Benchmark("hub:aps/super_glue@boolq:validation", ("passage", "question"), _each(_boolq)),
    "piqa": Benchmark("hub:baber/piqa:validation", ("goal", "sol1", "sol2", "label"), _each(_piqa)),
    "race-middle": Benchmark("hub:ehovy/race@middle:test", ("article",), _race),
    "race-high": Benchmark("hub:EleutherAI/race@high:test", ("article",), _race),
    "winogrande": Benchmark(
        "hub:allenai/winogrande@winogrande_xl:validation",
        ("sentence", "option1", "option2", "answer"),
        _each(_winogrande),
    ),
}
"""The paper's Table 5. lm-eval itself has no race-middle: its prompt is race-high's."""
