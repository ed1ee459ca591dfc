"""In what order a training reads, and which of its weights come out: its course.

The paper's reads whole windows of plain text from the first step to the last and takes the last weights.
A small model finds few passkeys again that way. With short windows first, passages that come back later in
their window, more and more of them, and the mean of the last half's weights it finds most
(docs/findings.md: SmolLM2-135M and the embedded model), so that is the course of small models where the
user says no word of it.
"""

from __future__ import annotations

from typing import Any

from .rates import SMALL_MODEL

WHOLE: dict[str, Any] = {
    "short_share": 0.0,
    "short_share_end": None,
    "repeats": 0.0,
    "repeats_end": None,
    "average": 0.0,
}
"""The paper's, as settings of `ropewalk finetune`."""
RISING: dict[str, Any] = {
    "short_share": 1.0,
    "short_share_end": 0.0,
    "repeats": 0.5,
    "repeats_end": 3.0,
    "average": 0.5,
}
"""That of small models: recipes/smollm2-135m-32k.yaml, k_max 32,768 from a window of 8,192."""
ASKED = "as asked"


def course(parameters: int, *, longer: bool) -> tuple[dict[str, Any], str]:
    """The course of a model of that many parameters, and why.

    longer: are its windows longer than the original window L?

    >>> [course(size, longer=True)[0]["short_share"] for size in (135_000_000, 7_000_000_000)]
    [1.0, 0.0]
    """
    if parameters < SMALL_MODEL and longer:
        return RISING, "by the model's size; --short-share 0 for whole windows of plain text, as in the paper"
    return WHOLE, "as in the paper"


def decided(
    said: dict[str, Any], *, parameters: int, longer: bool, tried: bool
) -> tuple[dict[str, Any], str]:
    """The whole course, and why so: of `WHOLE`'s names those not None in ``said`` are what the user says.

    One word of it, or a training that it was not tried with, and all the rest of it is as in the paper.
    """
    given = {name: said[name] for name in WHOLE if said.get(name) is not None}
    if given or not tried:
        return {**WHOLE, **given}, ASKED
    return course(parameters, longer=longer)


def in_words(course: dict[str, Any], why: str) -> list[str]:
    """What of a course the paper's training does not have, a line each; none where there is nothing."""
    from ..model.card import passages_in_words, shares_in_words

    lines = []
    if course["short_share"] or course["short_share_end"]:
        shares = shares_in_words(course["short_share"], course["short_share_end"])
        lines.append(f"{shares} of the steps with short windows")
    if course["repeats"] or course["repeats_end"]:
        passages = passages_in_words(course["repeats"], course["repeats_end"])
        lines.append(f"{passages} come back later in their window")
    if course["average"]:
        lines.append(f"the weights' mean over the last {course['average']:.0%} of the steps comes out")
    return [*lines, f"({why})"] if lines and why != ASKED else lines


def nothing_cut(course: dict[str, Any], original: int, window: int, chunks: bool) -> list[str]:
    """A line where a share of short windows changes nothing, since none is longer than L.

    With chunks it does all the same: their positions do not jump.
    """
    if not (course["short_share"] or course["short_share_end"]) or original < window or chunks:
        return []
    return [
        f"short-share cuts nothing: the original window L is {original:,} tokens, "
        f"and windows of {window:,} are trained on"
    ]
