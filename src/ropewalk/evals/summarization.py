"""Summarization of long documents (the paper's Table 6): GovReport, ROUGE-1/2/L.

The document is cut to what the window leaves beside the prompt and the answer. The same model with the
document cut to a smaller window (``cut``) shows what the long window is worth: same documents, paired.
Tokens are drawn as in the paper (temperature 0.5, top_p 0.95), each document with random numbers of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import console
from ..data.summaries import HUB, Summarized, prompt_ids, read_summaries
from ..data.tables import describe_table
from ..errors import UserError
from ..metrics.intervals import clipped, document_interval
from ..metrics.rouge import METRICS, rouge
from ..model.decoding import Decoding
from ..model.lm import LanguageModel
from ..results.cells import Cells
from ..settings import option, tokens
from .ranges import at_least

NAME = "summarization"
ANSWER = 1000
"""Tokens of a summary and of its reference in the paper."""
CELL = 8
"""Documents in a cell, answered side by side: those of like length."""


@dataclass(frozen=True)
class SummarizationSettings:
    """Summaries of long documents by ROUGE (the paper: GovReport)."""

    source: str = option(HUB, help="Parquet or JSON file, or hub:OWNER/NAME[@CONFIG][:SPLIT]")
    columns: tuple[str, ...] = option((), help="its columns of documents and of summaries, where not known")
    window: int | None = option(None, help="tokens of prompt and answer (default the model's)", parse=tokens)
    cut: tuple[int, ...] = option((), help="smaller windows to compare with, such as the old L", parse=tokens)
    answer: int | None = option(
        None, help="tokens of a summary (default 1000, at most a quarter of the smallest window)"
    )
    limit: int | None = option(None, help="only the first so many documents")
    temperature: float = option(0.5, help="of the tokens' probabilities; 0 takes the likeliest token")
    top_p: float = option(0.95, help="draw among the likeliest tokens that together have this probability")
    seed: int = option(0, help="of the summaries' tokens and of the bootstrap")


def data(settings: SummarizationSettings) -> list[dict[str, Any]]:
    """The "data" block of the documents. A local file is read here, so that a bad one is said at once."""
    rouge("a", "a")  # raises when rouge-score is not installed
    at_least(1, NAME, limit=settings.limit, answer=settings.answer, window=settings.window)
    at_least(1, NAME, cut=min(settings.cut, default=None))
    if not 0 <= settings.temperature < math.inf:
        raise UserError(f"temperature is {settings.temperature}; give 0 (the likeliest token) or more")
    if not 0 < settings.top_p <= 1:
        raise UserError(f"top_p is {settings.top_p}; give a probability above 0 and at most 1")
    block = describe_table(settings.source)
    if not settings.source.startswith("hub:"):
        block["documents"] = len(read_summaries(settings.source, settings.columns, settings.limit))
    return [block]


def run(lm: LanguageModel, settings: SummarizationSettings, cells: Cells) -> dict[str, Any]:
    """One row a window and metric with every document's score, and the gain over the smaller windows."""
    windows = sorted({settings.window or lm.window, *settings.cut})
    room = min(ANSWER, windows[0] // 4) if settings.answer is None else settings.answer
    if room < 1:
        raise UserError(f"answer is {room} tokens; a summary needs at least 1")
    found = read_summaries(settings.source, settings.columns, settings.limit)
    documents = [lm.encode(one.document) for one in found]
    rows, details = [], []
    with console.progress(f"{lm.name}: summaries", len(found) * len(windows), "documents") as progress:
        for window in windows:
            prompts = _prompts(lm, documents, window - room)
            scored = _window(lm, found, prompts, (window, room), settings, cells, progress)
            rows += [_row(scored, window, metric, settings.seed) for metric in METRICS]
            details += [
                {"window": window, "document": i, "tokens": len(prompts[i]), "text": one["text"]}
                for i, one in enumerate(scored)
            ]
    return {
        "protocol": {
            "name": "the paper's prompt",
            "decoding": _how(settings),
            "answer_ends": "at the end of text, else at its length",
            "answer_tokens": room,
            "reference_tokens": ANSWER,
            "rouge": "rouge-score, F-measure, Porter-stemmed",
            "interval": "95 %, bootstrap over documents",
            "seed": settings.seed,
        },
        "data": data(settings),
        "rows": rows,
        "summary": {"gains": _gains(rows, settings.seed), "documents": details},
    }


def _how(settings: SummarizationSettings) -> str:
    if not settings.temperature:
        return "greedy"
    return f"sampled, temperature {settings.temperature:g}, top_p {settings.top_p:g}, a seed a document"


def _prompts(lm: LanguageModel, documents: Sequence[list[int]], length: int) -> list[list[int]]:
    try:
        return [prompt_ids(ids, length, encode=lm.encode, bos=lm.bos) for ids in documents]
    except ValueError as error:
        raise UserError(f"a window of {length} tokens is too small to summarize in: {error}") from None


def _window(
    lm: LanguageModel,
    found: Sequence[Summarized],
    prompts: Sequence[list[int]],
    sizes: tuple[int, int],
    settings: SummarizationSettings,
    cells: Cells,
    progress: console.Progress,
) -> list[dict[str, Any]]:
    """Every document's summary and scores, in the documents' order.  sizes: (window, answer), tokens."""
    window, room = sizes
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    done: dict[int, dict[str, Any]] = {}
    for part in (order[at : at + CELL] for at in range(0, len(order), CELL)):
        cell = f"{window}/{part[0]}"
        scores = cells.get(cell)
        if scores is None:
            seeds = tuple(random.Random(f"{settings.seed}/{i}").getrandbits(62) for i in part)
            decoding = Decoding(settings.temperature, settings.top_p, seeds, tuple(lm.stops))
            outputs = _answers(lm, [prompts[i] for i in part], room, decoding)
            scores = [_score(lm, found[i], ids) for i, ids in zip(part, outputs)]
            cells.put(cell, scores)
        done |= dict(zip(part, scores))
        progress.advance(len(part), f"window {window:,}")
    return [done[i] for i in range(len(prompts))]


def _answers(lm: LanguageModel, prompts: list[list[int]], room: int, decoding: Decoding) -> list[list[int]]:
    """Side by side where the model can do that, else those of one length together."""
    if hasattr(lm, "generate_each"):
        return lm.generate_each(prompts, room, decoding).tolist()
    said: list[list[int]] = []
    for _, same in itertools.groupby(range(len(prompts)), key=lambda i: len(prompts[i])):
        rows = list(same)
        own = dataclasses.replace(decoding, seeds=tuple(decoding.seeds[i] for i in rows))
        said += lm.generate(torch.tensor([prompts[i] for i in rows]), room, own).tolist()
    return said


def _score(lm: LanguageModel, one: Summarized, output: list[int]) -> dict[str, Any]:
    ends = [output.index(stop) for stop in lm.stops if stop in output]
    text = lm.decode(output[: min(ends, default=len(output))]).strip()
    reference = lm.decode(lm.encode(one.summary)[:ANSWER])
    return {**rouge(reference, text), "text": text}


def _row(scored: Sequence[dict[str, Any]], window: int, metric: str, seed: int) -> dict[str, Any]:
    scores = [one[metric] for one in scored]
    low, high = clipped(document_interval(scores, [1] * len(scores), seed), 0.0, 1.0)
    return {
        "window": window,
        "metric": metric,
        "score": sum(scores) / len(scores),
        "low": low,
        "high": high,
        "n": len(scores),
        "scores": scores,
    }


def _gains(rows: Sequence[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """The largest window's mean score less each smaller one's, on the same documents, with interval."""
    largest = max(row["window"] for row in rows)
    gains = []
    for row in rows:
        if row["window"] == largest:
            continue
        best = next(r for r in rows if r["window"] == largest and r["metric"] == row["metric"])
        more = [a - b for a, b in zip(best["scores"], row["scores"])]
        low, high = document_interval(more, [1] * len(more), seed) or (None, None)
        gain = {"gain": sum(more) / len(more), "low": low, "high": high, "n": len(more)}
        gains.append({"metric": row["metric"], "window": largest, "over": row["window"], **gain})
    return gains
