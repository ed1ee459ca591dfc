"""Methods and factors side by side without training: what each makes of one loaded model, up to L'.

For each method only the rotary modules are exchanged (`model.swap`). Measured are the perplexity of the
tokens by their position in windows of L' tokens, and passkeys found whose key stands at the very start.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch

from ..console import progress, say
from ..data.passkey import METHOD, PasskeyPrompts, draw_keys
from ..data.text import describe
from ..errors import UserError
from ..metrics.intervals import document_interval, wilson
from ..metrics.retrieval import first_digits
from ..model.config import read_state
from ..model.lm import LanguageModel
from ..model.scaling import extended_config
from ..model.swap import require_only_rotary, swapped
from ..results.cells import Cells
from .position_loss import side_by_side
from .texts import Text, read_texts, read_windows, total

NAME = "sweep"
METHODS = ("none", "linear", "ntk", "dynamic", "yarn")
"""Those compared unless others are named."""
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Methods whose table follows from the length of the call: each prompt gets a fresh one."""


class SwappableModel(LanguageModel, Protocol):
    """A language model of transformers, whose modules can be exchanged."""

    @property
    def model(self) -> Any:
        """The model in memory."""


@dataclass(frozen=True)
class SweepSettings:
    """methods × factors on ``windows`` windows of ``to`` tokens, and ``keys`` passkeys at each length.

    methods: empty for `METHODS`, less those that this checkpoint cannot have.
    factors: empty for L'/L alone. ``none`` has no factor and is measured once.
    keys: 0 for no passkeys.
    """

    to: int
    sources: tuple[str, ...]
    methods: tuple[str, ...] = ()
    factors: tuple[float, ...] = ()
    windows: int = 8
    keys: int = 10
    column: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """One method and factor, with the config.json that makes it; ``config`` None: the model as it is."""

    method: str
    factor: float
    config: dict[str, Any] | None

    @property
    def label(self) -> str:
        """``yarn ×4``"""
        return self.method if self.config is None else f"{self.method} ×{self.factor:g}"


def data(settings: SweepSettings) -> list[dict[str, Any]]:
    """The "data" blocks: what is read, with hashes."""
    return describe(settings.sources)


def candidates(config: dict[str, Any], settings: SweepSettings) -> list[Candidate]:
    """What is to be measured on a checkpoint with this config.json, in the order of the methods.

    Methods by default that this checkpoint cannot have (it is scaled already) are left out with a word.
    Raises UserError for a method asked for by name that it cannot have, a factor that is not above 1,
    a target that is not longer than the window, and numbers that are too small.
    """
    window = read_state(config).window
    for name, least in (("windows", 1), ("keys", 0)):
        if getattr(settings, name) < least:
            raise UserError(f"{name} is {getattr(settings, name)}; give at least {least}")
    if settings.to <= window:
        raise UserError(
            f"target {settings.to:,} is not longer than the window, which is {window:,} tokens already"
        )
    if not all(math.isfinite(factor) for factor in settings.factors):
        raise UserError(f"factors are {' '.join(map(str, settings.factors))}; give numbers above 1")
    factors = sorted(set(settings.factors)) or [settings.to / window]
    if not round(factors[0] * window) > window:
        raise UserError(f"factor is {factors[0]:g}; give one above 1, such as {settings.to / window:g}")
    found: list[Candidate] = []
    for method in dict.fromkeys(settings.methods or METHODS):
        if method == "none":
            found.append(Candidate(method, 1.0, None))
            continue
        try:
            for factor in factors:
                new = extended_config(config, round(factor * window), method)
                require_only_rotary(config, new)
                found.append(Candidate(method, factor, new))
        except UserError as error:
            if settings.methods:
                raise
            say(f"note: {method} is left out: {error}")
    return found


def position_edges(window: int, to: int) -> list[int]:
    """0, L/4, L, 2L, 4L … L': a near and a far part of the old window, then doublings beyond it.

    >>> position_edges(8192, 32768)
    [0, 2048, 8192, 16384, 32768]
    """
    edges = [0, window // 4]
    at = window
    while at < to:
        edges.append(at)
        at *= 2
    return [*(edge for edge in edges if edge != 1), to]


def run(lm: SwappableModel, settings: SweepSettings, cells: Cells, config: dict[str, Any]) -> dict[str, Any]:
    """Rows by position and rows by passkey length of every candidate; the summary ranks them.

    config: the parsed config.json of the model, as it lies on the disk.
    The rank follows the perplexity over all positions of the windows of L' tokens.
    """
    chosen = candidates(config, settings)
    window = read_state(config).window
    texts = read_texts(lm, settings.sources, at_least=settings.to, column=settings.column)
    maker = PasskeyPrompts(lm, settings.to) if settings.keys else None
    lengths = passkey_lengths(window, settings.to, maker)
    edges = position_edges(window, settings.to)
    rows: list[dict[str, Any]] = []
    ranking: list[dict[str, Any]] = []
    with progress("  sweep", len(chosen), "methods") as shown:
        for candidate in chosen:
            places, whole = _positions(lm, candidate, texts, edges, settings, cells)
            found = [_passkeys(lm, candidate, maker, n, settings, cells) for n in lengths if maker]
            rows += places + found
            ranking.append(_standing(candidate, whole, places, found))
            shown.advance(1, f"{candidate.label}: perplexity {whole['perplexity']:.4g}")
    ranking.sort(key=lambda one: one["perplexity"])
    ranking = [{"rank": i, **one} for i, one in enumerate(ranking, 1)]
    return {
        "protocol": {
            "name": "methods without training",
            "to": settings.to,
            "windows": settings.windows,
            "perplexity": "windows of L' tokens side by side, each scored in one pass, by position",
            "bos": "none" if lm.bos is None else "in front of every window",
            "passkey": f"{settings.keys} keys a length, the key directly behind the preamble, greedy",
            "rank": "by perplexity over all positions",
            **METHOD,
            "interval": "95 %, documents drawn anew (perplexity), Wilson (passkey)",
        },
        "data": data(settings),
        "rows": rows,
        "summary": {"window": window, "target": settings.to, "best": ranking[0]["label"], "ranking": ranking},
    }


def passkey_lengths(window: int, to: int, maker: PasskeyPrompts | None) -> list[int]:
    """L, 2L, 4L … L' tokens, without those that no prompt fits into."""
    if maker is None:
        return []
    return [n for n in position_edges(window, to)[2:] if n >= maker.shortest]


def _rotary(lm: SwappableModel, candidate: Candidate) -> contextlib.AbstractContextManager[None]:
    """The model under a candidate."""
    return swapped(lm.model, candidate.config) if candidate.config else contextlib.nullcontext()


def _positions(
    lm: SwappableModel,
    candidate: Candidate,
    texts: Sequence[Text],
    edges: Sequence[int],
    settings: SweepSettings,
    cells: Cells,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(a row a bucket of positions, the same over all of them) for one candidate."""
    buckets = list(pairwise(edges))
    jobs = side_by_side(texts, settings.to, lm.bos is not None, settings.windows)

    def reduce(losses: Any, window: Any) -> list[float]:
        start = settings.to - window.scored  # position 0 is never scored
        return [float(losses[max(a - start, 0) : b - start].sum()) for a, b in buckets]

    with _rotary(lm, candidate):
        found = read_windows(lm, texts, jobs, reduce, cells, candidate.label, 1)
    read = sorted({i for i, _ in jobs})
    counts = [sum(j == i for j, _ in jobs) for i in read]
    sums = [[[v[b] for (j, _), v in zip(jobs, found) if j == i] for i in read] for b in range(len(buckets))]
    key = {"method": candidate.method, "factor": candidate.factor}
    rows = [
        {
            **key,
            "from": a,
            "to": b,
            **_perplexity([total(v) for v in mine], [n * (b - max(a, 1)) for n in counts], settings.seed),
        }
        for (a, b), mine in zip(buckets, sums)
    ]
    whole = [total([x for bucket in sums for x in bucket[i]]) for i in range(len(read))]
    return rows, _perplexity(whole, [n * (settings.to - 1) for n in counts], settings.seed)


def _perplexity(losses: Sequence[float], counts: Sequence[int], seed: int) -> dict[str, Any]:
    """Perplexity and its interval from each document's sum of losses (nats) and number of tokens."""
    interval = document_interval(losses, counts, seed)
    low, high = (math.exp(min(x, 700)) for x in interval) if interval else (None, None)
    loss = total(losses) / sum(counts)
    return {"perplexity": math.exp(min(loss, 700)), "low": low, "high": high, "n": sum(counts)}


def _passkeys(
    lm: SwappableModel,
    candidate: Candidate,
    maker: PasskeyPrompts,
    length: int,
    settings: SweepSettings,
    cells: Cells,
) -> dict[str, Any]:
    """How many keys one candidate finds in prompts of ``length`` tokens; the same prompts for all."""
    cell = f"{candidate.label}/passkey/{length}"
    right = cells.get(cell)
    if right is None:
        keys = draw_keys(settings.keys, f"{settings.seed}/sweep/{length}")
        prompts = torch.tensor([maker.at_depth(length, 0.0, key).ids for key in keys])
        together = 1 if candidate.method in LENGTH_DEPENDENT else len(keys)
        answers: list[list[int]] = []
        for at in range(0, len(keys), together):
            with _rotary(lm, candidate):
                answers += lm.generate(prompts[at : at + together], maker.room).tolist()
        right = sum(first_digits(lm.decode(said)) == key for said, key in zip(answers, keys))
        cells.put(cell, right)
    low, high = wilson(right, settings.keys)
    return {
        "method": candidate.method,
        "factor": candidate.factor,
        "length": length,
        "right": right,
        "n": settings.keys,
        "rate": right / settings.keys,
        "low": low,
        "high": high,
    }


def _standing(
    candidate: Candidate,
    whole: dict[str, Any],
    places: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """One candidate's figures over all positions, in the last of them, and of all passkeys."""
    return {
        "label": candidate.label,
        "method": candidate.method,
        "factor": candidate.factor,
        **whole,
        "last": places[-1]["perplexity"],
        "right": sum(row["right"] for row in found) if found else None,
        "keys": sum(row["n"] for row in found) if found else None,
    }
