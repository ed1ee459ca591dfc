"""Attention scores of real heads by distance, past the trained window, before and after interpolation.

The mean content of each head's queries and keys is taken from a text inside the trained window; then only
the distance varies, as in the paper's a(s) (Chen et al. 2023, Eq. 2-3). Shown are the heads whose scores
leave the band of the trained window farthest, and the one that leaves it least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..console import say
from ..data.text import describe
from ..errors import UserError
from ..metrics.windows import Window
from ..model.heads import Heads, caught, rotary_of
from ..results.cells import Cells
from ..rope.scores import HeadScores, score_curve
from .ranges import at_least
from .texts import read_texts, window_ids

NAME = "attention"
SPANS = ("inside", "past", "past_interpolated")
"""The spans of scores that a head's summary has: (lowest, highest) of each."""


@dataclass(frozen=True)
class AttentionSettings:
    """Heads of a model on the first long enough document of ``sources``, at distances up to ``to`` tokens.

    tokens: of the text that is read, at most the trained window; more change the mean content little.
    heads: how many are shown: all but one of those that leave the band farthest, one that leaves it least.
    points: distances at which the scores are computed.
    """

    to: int
    sources: tuple[str, ...]
    tokens: int = 2048
    heads: int = 3
    points: int = 512
    column: str | None = None
    seed: int = 0


class Head(NamedTuple):
    """One head of the model, its scores, and by how much they leave the trained window's band."""

    layer: int
    head: int
    scores: HeadScores
    leap: float


def data(settings: AttentionSettings) -> list[dict[str, Any]]:
    """The "data" blocks: what is read, with hashes."""
    return describe(settings.sources)


def check(settings: AttentionSettings, block: dict[str, Any]) -> None:
    """Raises UserError for settings that cannot be, or as `geometry` does.  block: of the model."""
    at_least(2, NAME, tokens=settings.tokens, points=settings.points)  # one of them inside, one past
    at_least(1, NAME, heads=settings.heads)
    geometry(block, settings.to)


def run(lm: Any, settings: AttentionSettings, cells: Cells) -> dict[str, Any]:
    """Two series a chosen head, before and after interpolation; a row a distance with its score and bounds.

    lm: a `TransformersLM`, or a `SplitLM` of such.
    low, high: of "as trained" the bound of its magnitude; of the interpolated the chord between the
    trained distances, less and plus the error of the interpolation theorem.
    Raises UserError where the model's method or family does not allow the picture.
    """
    del cells  # one forward pass; nothing is worth keeping in between
    block = lm.describe()
    window, factor = geometry(block, settings.to)
    length = min(settings.tokens, window)
    text = read_texts(lm, settings.sources, at_least=length, documents_wanted=1, column=settings.column)[0]
    room = length - (lm.bos is not None)
    ids = window_ids(lm, text, Window(0, room, 1))[None].to(lm.device)
    model = getattr(lm, "copies", [lm])[0].model
    rotary = rotary_of(model)
    theta = rotary.inv_freq.double().numpy() * (factor if block["method"] == "linear" else 1.0)
    distances = np.unique(np.round(np.linspace(0, settings.to - 1, settings.points)))
    layers = caught(model, ids)
    found = [
        measured
        for layer, heads in layers.items()
        for measured in layer_scores(layer, heads, theta, factor, distances, window)
    ]
    shown = choose(found, settings.heads)
    summaries = [_summary(one, window) for one in shown]
    for one in summaries:
        ends = [f"{low:.1f} to {high:.1f}" for low, high in (one[key] for key in SPANS)]
        say(
            f"  layer {one['layer']} head {one['head']}: {ends[0]} up to {window:,} tokens, {ends[1]} "
            f"beyond; interpolated {ends[2]}"
        )
    return {
        "protocol": {
            "name": "mean content, free distance",
            "to": settings.to,
            "factor": factor,
            "tokens": length,
            "document": text.name,
            "heads": f"{max(1, len(shown) - 1)} of {len(found)} that leave the trained window's band farthest"
            f"{', and the one that leaves it least' if len(shown) > 1 else ''}",
            "layers": sorted(layers),
            "scores": "before softmax, scaled as the model scales them",
        },
        "data": data(settings),
        "rows": [row for one in shown for row in _rows(one, factor)],
        "summary": {
            "window": window,
            "target": settings.to,
            "factor": factor,
            "heads": summaries,
            "leaps": [[one.layer, one.head, one.leap] for one in found],
            "median_leap": float(np.median([one.leap for one in found])),
        },
    }


def geometry(block: dict[str, Any], to: int) -> tuple[int, float]:
    """(L, k): the trained window and the factor to show, from a model block.

    A model without scaling is shown with k = L'/L; one under Position Interpolation with its own k.
    Raises UserError for another method, or a target inside the window.
    """
    method, window = block["method"], block["original_window"] or block["window"]
    if method not in ("none", "linear"):
        raise UserError(
            f"attention scores are shown for plain RoPE and Position Interpolation, not for {method}; "
            "evaluate the checkpoint before the extension"
        )
    factor = float(block["factor"]) if method == "linear" else to / window
    if to <= window:
        raise UserError(
            f"attention scores up to {to:,} tokens stay inside the trained window of {window:,}; "
            f"give --target a longer one, such as {4 * window}"
        )
    return window, factor


def layer_scores(
    layer: int, heads: Heads, theta: Any, factor: float, distances: Any, window: int
) -> list[Head]:
    """The curves of every query head of one layer; keys are shared as the model shares them."""
    r = 2 * len(theta)
    count = heads.q.shape[1]
    group = count // heads.k.shape[1]
    q = heads.q[..., :r].double().numpy() * (heads.scale * r**0.5)  # score_curve divides by √r
    k = heads.k[..., :r].double().numpy()
    found = []
    for head in range(count):
        scores = score_curve(q[:, head], k[:, head // group], theta, factor, distances)
        if not np.isfinite(scores.before).all():
            raise UserError(
                f"head {head} of layer {layer} has scores that are not finite; its weights are broken"
            )
        found.append(Head(layer, head, scores, leap(scores, window)))
    return found


def leap(scores: HeadScores, window: int) -> float:
    """By how much the scores as trained leave, past the window, the band that they kept inside it."""
    inside, past = scores.before[scores.distance < window], scores.before[scores.distance >= window]
    return max(0.0, float(past.max() - inside.max()), float(inside.min() - past.min()))


def choose(found: Sequence[Head], count: int) -> list[Head]:
    """The ``count`` − 1 heads of the largest leap, the largest first, and the one of the smallest."""
    ordered = sorted(found, key=lambda one: (-one.leap, one.layer, one.head))
    return [*ordered[: max(1, count - 1)], *ordered[max(1, count - 1) :][-1:]][:count]


def _rows(one: Head, factor: float) -> list[dict[str, Any]]:
    s = one.scores
    where = {"layer": one.layer, "head": one.head}
    pairs = (
        ("as trained", s.before, -s.extrapolation, s.extrapolation),
        (f"interpolated ×{factor:g}", s.after, s.after_low, s.after_high),
    )
    return [
        {
            "series": f"layer {one.layer} head {one.head}, {what}",
            **where,
            "distance": int(distance),
            "score": float(score),
            "low": float(low),
            "high": float(high),
        }
        for what, scores, lows, highs in pairs
        for distance, score, low, high in zip(s.distance, scores, lows, highs)
    ]


def _summary(one: Head, window: int) -> dict[str, Any]:
    """How far one head's scores go inside the window, past it, and past it interpolated."""
    s = one.scores
    inside = s.before[s.distance < window]
    past = s.distance >= window
    return {
        "layer": one.layer,
        "head": one.head,
        "leap": one.leap,
        "inside": [float(inside.min()), float(inside.max())],
        "past": [float(s.before[past].min()), float(s.before[past].max())],
        "past_interpolated": [float(s.after[past].min()), float(s.after[past].max())],
    }
