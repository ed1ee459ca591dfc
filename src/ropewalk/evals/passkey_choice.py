"""Passkey retrieval by choice: is the right key likelier than nine others, whatever the model would say?

The paper's prompts (data/passkey.py), but nothing is generated. Behind "The pass key is" ten continuations
are weighed, the key and nine other numbers of five digits that are not in the prompt, and the likeliest is
the model's choice (ten-alternative forced choice). A model that reads the key but answers in prose, goes on
like the filler or drops a digit fails the paper's test and passes this one; a model that does not read so
far back is right one time in ten. So the two together tell where reading ends from where answering does.
"""

from __future__ import annotations

from typing import Any

import torch

from ..console import progress
from ..data.filler import after
from ..data.passkey import METHOD, QUESTION, PasskeyPrompts, Prompt, draw_keys
from ..errors import UserError
from ..metrics.intervals import wilson
from ..metrics.retrieval import k_max
from ..model.choosing import padded, read_whole
from ..model.lm import LanguageModel
from ..results.cells import Cells
from . import passkey
from .passkey import PasskeySettings, Place

NAME = "passkey-choice"
OTHERS = 9
HALF = 0.5
"""Share of right choices that counts as read: five of ten come by chance once in 600 times."""

data = passkey.data


def check(settings: PasskeySettings, block: dict[str, Any]) -> None:
    """Raises UserError for settings that cannot be, before any evaluation runs."""
    passkey.check(settings, block, NAME)


def run(lm: LanguageModel, settings: PasskeySettings, cells: Cells) -> dict[str, Any]:
    """One row a distance, and k_choice."""
    maker = PasskeyPrompts(lm, settings.target)
    places = passkey.distances(settings)
    if settings.shared_keys:
        _read_along(lm, maker, settings, cells, places)
    left = [place for place in places if cells.get(place[0]) is None]
    with progress("  passkey-choice", len(places), "places", len(places) - len(left)) as shown:
        for place in left:
            prompts = passkey.prompts_at(maker, settings, place)
            row = _row(place, prompts, _margins(lm, prompts, _others(settings, place, prompts)))
            cells.put(place[0], row)
            shown.advance(1, f"{row['right']}/{row['n']} at {place[1]:,} tokens")
    found = [cells.get(place[0]) for place in places]
    rows: list[dict[str, Any]] = [row for row in found if row is not None]
    return {
        "protocol": _protocol(lm, settings),
        "data": [],
        "rows": rows,
        "summary": _summary(rows, settings),
    }


def _others(settings: PasskeySettings, place: Place, prompts: list[Prompt]) -> list[str]:
    """Nine numbers that are no key of a place; the same ones at every place where the keys are."""
    keys = {prompt.key for prompt in prompts}
    drawn = draw_keys(
        OTHERS + len(keys), f"{settings.seed}/others/{'' if settings.shared_keys else place[0]}"
    )
    return [number for number in dict.fromkeys(drawn) if number not in keys][:OTHERS]


def _options(lm: LanguageModel, prompts: list[Prompt], others: list[str]) -> torch.Tensor:
    """(prompts, 1 + others, tokens): the prompt's own key first, as it stands behind the question."""
    spelled = {number: after(lm, QUESTION, f" {number}")[0] for number in others}
    return padded([[after(lm, QUESTION, f" {prompt.key}")[0], *spelled.values()] for prompt in prompts])


def _margins(lm: LanguageModel, prompts: list[Prompt], others: list[str]) -> list[float]:
    """How much likelier than the best of the others each prompt's own key is, nats; above 0 is right."""
    found: dict[int, float] = {}
    for length in {len(prompt.ids) for prompt in prompts}:
        at = [i for i, prompt in enumerate(prompts) if len(prompt.ids) == length]
        same = [prompts[i] for i in at]
        ids, options = torch.tensor([prompt.ids for prompt in same]), _options(lm, same, others)
        if hasattr(lm, "log_probs_along") and len(set(ids[:, -1].tolist())) == 1:
            last = [ids[0, -1:].tolist()]
            scores = lm.log_probs_along(ids[:, :-1], [length - 1], last, options)[:, 0]
        else:
            scores = read_whole(lm.log_probs, ids, options)
        found |= dict(zip(at, _ahead(scores)))
    return [found[i] for i in range(len(prompts))]


def _ahead(scores: torch.Tensor) -> list[float]:
    if bool(scores.isnan().any()):  # which would count as wrong all the same
        raise UserError(
            "the model weighs the keys with numbers that are not finite; try --dtype float32, else its "
            "weights are broken"
        )
    return (scores[:, 0] - scores[:, 1:].amax(1)).tolist()


def _read_along(
    lm: LanguageModel, maker: PasskeyPrompts, settings: PasskeySettings, cells: Cells, places: list[Place]
) -> None:
    """Fill the cells of all distances whose prompts are beginnings of the longest one, read together."""
    if not hasattr(lm, "log_probs_along") or cells.get(places[-1][0]) is not None:
        return
    found = passkey.along(maker, settings, places)
    if found is None:
        return
    options = _options(lm, found.prompts[0], _others(settings, places[0], found.prompts[0]))
    scores = lm.log_probs_along(found.rows, found.cuts, found.tails, options)
    for number, (place, prompts) in enumerate(zip(found.places, found.prompts)):
        cells.put(place[0], _row(place, prompts, _ahead(scores[:, number])))


def _row(place: Place, prompts: list[Prompt], margins: list[float]) -> dict[str, Any]:
    right, n = sum(margin > 0 for margin in margins), len(prompts)
    low, high = wilson(right, n)
    return {
        "distance": place[1],
        "real_distance": max(prompt.distance for prompt in prompts),
        "length": max(len(prompt.ids) for prompt in prompts),
        "right": right,
        "n": n,
        "rate": right / n,
        "low": low,
        "high": high,
        "margin": sum(margins) / n,
    }


def _summary(rows: list[dict[str, Any]], settings: PasskeySettings) -> dict[str, Any]:
    return {
        "k_choice": k_max([(row["distance"], row["rate"]) for row in rows], HALF),
        "grid": settings.target / settings.distances,
        "target": settings.target,
        "right": sum(row["right"] for row in rows),
        "n": sum(row["n"] for row in rows),
        "chance": 1 / (1 + OTHERS),
    }


def _protocol(lm: LanguageModel, settings: PasskeySettings) -> dict[str, Any]:
    return {
        "name": "forced choice",
        "runs": settings.runs,
        "keys": passkey.whose_keys(settings),
        "options": f"the key and {OTHERS} numbers that are not in the prompt, by log p of all their tokens",
        **METHOD,
        "bos": "none" if lm.bos is None else "in front",
        "k_choice": f"largest k with at least {HALF:.0%} right at every distance up to it; chance is 10%",
        "margin": "log p of the key less that of the likeliest other, nats, mean",
        "interval": "95 %, Wilson",
        "target": settings.target,
    }
