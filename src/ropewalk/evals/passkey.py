"""Passkey retrieval (the paper's Table 4): how far back does the model find five digits?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..console import progress, say
from ..data.passkey import METHOD, PasskeyPrompts, Prompt, draw_keys
from ..errors import UserError
from ..metrics.intervals import wilson
from ..metrics.retrieval import DIGITS, PAPER_RATE, first_digits, k_max
from ..model.lm import LanguageModel
from ..results.cells import Cells
from .ranges import at_least

NAME = "passkey"

TOLD = 80
"""Characters of a wrong answer that its row keeps."""

Place = tuple[str, int, float]
"""(the cell's name, tokens of distance or length, depth)."""


@dataclass(frozen=True)
class PasskeySettings:
    """The paper's: 32 distances evenly spaced up to ``target`` tokens, ten fresh keys at each.

    shared_keys: ten keys for all distances instead. The prompts of one key then begin alike, and that
    beginning is read once: L' tokens a key instead of some 16 L'. Rates mean the same; the distances'
    chance errors go together.
    grid: instead, prompts of ``lengths`` lengths up to the target with the key at ``depths`` depths.
    """

    target: int
    distances: int = 32
    runs: int = 10
    seed: int = 0
    shared_keys: bool = False
    grid: bool = False
    lengths: int = 8
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)


def data(settings: PasskeySettings) -> list[dict[str, Any]]:
    """Nothing is read: the prompts are made from the seed."""
    del settings
    return []


def check(settings: PasskeySettings, block: dict[str, Any], name: str = NAME) -> None:
    """Raises UserError for settings that cannot be, before any evaluation runs."""
    del block
    name = "passkey-map" if settings.grid else name
    at_least(1, name, runs=settings.runs, distances=settings.distances, lengths=settings.lengths)
    if not settings.depths or not all(0 <= depth <= 1 for depth in settings.depths):
        depths = list(settings.depths)
        raise UserError(f"{name}.depths is {depths}; give one or more from 0 (the start) to 1 (the end)")


def run(lm: LanguageModel, settings: PasskeySettings, cells: Cells) -> dict[str, Any]:
    """One row a distance (or, with ``grid``, a length and depth), and k_max."""
    maker = PasskeyPrompts(lm, settings.target)
    places = _grid(maker, settings) if settings.grid else distances(settings)
    if settings.shared_keys and not settings.grid:
        _read_along(lm, maker, settings, cells, places)
    left = [place for place in places if cells.get(place[0]) is None]
    with progress("  passkey", len(places), "places", len(places) - len(left)) as shown:
        for (cell, nominal, depth), prompts, wrong in _asked(lm, maker, settings, left):
            row = _row(prompts, wrong, nominal, depth, settings)
            cells.put(cell, row)
            shown.advance(1, f"{row['right']}/{row['n']} at {nominal:,} tokens")
    found = [cells.get(cell) for cell, _, _ in places]
    rows: list[dict[str, Any]] = [row for row in found if row is not None]
    return {
        "protocol": _protocol(lm, maker, settings),
        "data": [],
        "rows": rows,
        "summary": _grid_summary(rows, settings) if settings.grid else _summary(rows, settings),
    }


def distances(settings: PasskeySettings) -> list[Place]:
    """The places of the paper's test: evenly spaced distances up to the target."""
    steps = range(1, settings.distances + 1)
    ks = sorted({max(1, round(i * settings.target / settings.distances)) for i in steps})
    return [(f"distance/{k}", k, 0.0) for k in ks]


def _grid(maker: PasskeyPrompts, settings: PasskeySettings) -> list[Place]:
    steps = range(1, settings.lengths + 1)
    lengths = sorted({max(maker.shortest, i * settings.target // settings.lengths) for i in steps})
    return [(f"grid/{length}/{depth}", length, depth) for length in lengths for depth in settings.depths]


@dataclass(frozen=True)
class Along:
    """Places whose prompts are beginnings of longer ones and a tail, so that they are read but once.

    rows: the longest prompts, (keys, T).  The others have one for each place, the nearest first.
    """

    rows: torch.Tensor
    cuts: list[int]
    tails: list[list[int]]
    places: list[Place]
    prompts: list[list[Prompt]]


def along(maker: PasskeyPrompts, settings: PasskeySettings, places: Sequence[Place]) -> Along | None:
    """The places that can be read along the farthest one's prompts, all with the same keys."""
    keys = draw_keys(settings.runs, f"{settings.seed}/")
    longest = [maker.at_distance(places[-1][1], key) for key in keys]
    if len({(len(prompt.ids), prompt.shared) for prompt in longest}) > 1:
        return None
    most, fitting = longest[0].shared, []
    for place in places:
        prompts = [maker.at_distance(place[1], key) for key in keys]
        cut = prompts[0].shared
        alike = 0 < cut <= most and all(p.ids[:cut] == q.ids[:cut] for p, q in zip(prompts, longest))
        tails = {(prompt.shared, *prompt.ids[prompt.shared :]) for prompt in prompts}
        if alike and len(tails) == 1:
            fitting.append((cut, prompts[0].ids[cut:], place, prompts))
    if not fitting:
        return None
    fitting.sort(key=lambda one: one[0])
    cuts, tails_of, where, asked = (list(column) for column in zip(*fitting))
    say(f"  {len(fitting)} distances read along {settings.runs} prompts of {len(longest[0].ids):,} tokens")
    rows = torch.tensor([prompt.ids[:most] for prompt in longest])
    return Along(rows, cuts, tails_of, where, asked)


def _read_along(
    lm: LanguageModel,
    maker: PasskeyPrompts,
    settings: PasskeySettings,
    cells: Cells,
    places: list[Place],
) -> None:
    """Fill the cells of all distances whose prompts are beginnings of the longest one, read together."""
    if not hasattr(lm, "generate_along") or cells.get(places[-1][0]) is not None:
        return
    found = along(maker, settings, places)
    if found is None:
        return
    answers = lm.generate_along(found.rows, found.cuts, found.tails, maker.room)
    for number, ((cell, k, depth), prompts) in enumerate(zip(found.places, found.prompts)):
        wrong = _wrong(lm, prompts, answers[:, number])
        cells.put(cell, _row(prompts, wrong, k, depth, settings))


def _asked(
    lm: LanguageModel, maker: PasskeyPrompts, settings: PasskeySettings, places: Sequence[Place]
) -> Iterator[tuple[Place, list[Prompt], list[str]]]:
    """(place, its prompts, the model's wrong answers) of each place, in an order that suits the model.

    The prompts of a grid have one haystack and begin alike up to their keys: where the model can read that
    beginning once, it does.
    """
    if not (settings.grid and hasattr(lm, "generate_groups")):
        for place in places:
            prompts = prompts_at(maker, settings, place)
            yield place, prompts, _ask(lm, prompts, maker.room)
        return
    every = [prompts_at(maker, settings, place) for place in places]
    even = [i for i, prompts in enumerate(every) if len({len(prompt.ids) for prompt in prompts}) == 1]
    for i in sorted(set(range(len(places))) - set(even)):
        yield places[i], every[i], _ask(lm, every[i], maker.room)
    groups = [torch.tensor([prompt.ids for prompt in every[i]]) for i in even]
    for number, answers in lm.generate_groups(groups, maker.room) if groups else ():
        i = even[number]
        yield places[i], every[i], _wrong(lm, every[i], answers)


def prompts_at(maker: PasskeyPrompts, settings: PasskeySettings, place: Place) -> list[Prompt]:
    """One prompt a key, all of one place."""
    cell, nominal, depth = place
    keys = draw_keys(settings.runs, f"{settings.seed}/{'' if settings.shared_keys else cell}")
    if settings.grid:
        return [maker.at_depth(nominal, depth, key) for key in keys]
    return [maker.at_distance(nominal, key) for key in keys]


def _ask(lm: LanguageModel, prompts: list[Prompt], room: int) -> list[str]:
    """The answers in which the key is not."""
    by_length: dict[int, list[Prompt]] = {}
    for prompt in prompts:  # all of one length, unless the keys' own tokens leave no room for filler
        by_length.setdefault(len(prompt.ids), []).append(prompt)
    return [
        text
        for same in by_length.values()
        for text in _wrong(lm, same, lm.generate(torch.tensor([prompt.ids for prompt in same]), room))
    ]


def _wrong(lm: LanguageModel, prompts: list[Prompt], answers: torch.Tensor) -> list[str]:
    texts = [lm.decode(answer) for answer in answers.tolist()]
    return [text for text, prompt in zip(texts, prompts) if first_digits(text) != prompt.key]


def _row(
    prompts: list[Prompt], wrong: list[str], nominal: int, depth: float, settings: PasskeySettings
) -> dict[str, Any]:
    """One place.  wrong: what was said instead, told with it: no number at all is not another's number."""
    right = len(prompts) - len(wrong)
    low, high = wilson(right, len(prompts))
    real = max(prompt.distance for prompt in prompts)
    return {
        "distance": real if settings.grid else nominal,
        "real_distance": real,
        "length": max(len(prompt.ids) for prompt in prompts),
        "depth": depth,
        "right": right,
        "n": len(prompts),
        "rate": right / len(prompts),
        "low": low,
        "high": high,
        "wrong": [text[:TOLD] for text in wrong],
    }


def _summary(rows: list[dict[str, Any]], settings: PasskeySettings) -> dict[str, Any]:
    rates = [(row["distance"], row["rate"]) for row in rows]
    return {
        "k_max": k_max(rates),
        "k_90": k_max(rates, 0.9),
        "grid": settings.target / settings.distances,
        "target": settings.target,
        "right": sum(row["right"] for row in rows),
        "n": sum(row["n"] for row in rows),
        **_said(rows),
    }


def _said(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many of the wrong answers are no five digits; nothing where all is right or was not kept."""
    wrong = [text for row in rows for text in row.get("wrong", ())]
    return {"no_number": sum(len(first_digits(text)) < DIGITS for text in wrong)} if wrong else {}


def _grid_summary(rows: list[dict[str, Any]], settings: PasskeySettings) -> dict[str, Any]:
    """The largest length at which, as at every shorter one, 90 % are right over all depths."""
    lengths: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        lengths.setdefault(row["length"], []).append(row)
    rates = [(k, sum(r["right"] for r in g) / sum(r["n"] for r in g)) for k, g in lengths.items()]
    return {
        "length_90": k_max(rates, 0.9),
        "by_length": [{"length": length, "rate": rate} for length, rate in sorted(rates)],
        "target": settings.target,
        "right": sum(row["right"] for row in rows),
        "n": sum(row["n"] for row in rows),
        **_said(rows),
    }


def whose_keys(settings: PasskeySettings) -> str:
    """In a protocol: are the keys drawn once, or for every place?"""
    return "the same at every distance" if settings.shared_keys else "fresh at every place"


def _protocol(lm: LanguageModel, maker: PasskeyPrompts, settings: PasskeySettings) -> dict[str, Any]:
    return {
        "name": "length-depth" if settings.grid else "paper",
        "runs": settings.runs,
        "keys": whose_keys(settings),
        "decoding": "greedy",
        "scored": "first five digits of the answer",
        "answer_tokens": maker.room,
        **METHOD,
        "bos": "none" if lm.bos is None else "in front",
        "k_max": f"largest k with at least {PAPER_RATE:.0%} right at every distance up to it",
        "interval": "95 %, Wilson",
        "target": settings.target,
    }
