"""The report's section on passkeys by choice: what a model reads, beside what it answers."""

from __future__ import annotations

from typing import Any

from . import plots
from .collection import Collection, Series
from .phrasing import between, clean, count, percent
from .plots import CHOSEN, Figure
from .section import Section, left_out, notes, record
from .style import Slots
from .tables import Table
from .verdict import k_choice, k_max, pooled

LEAD = (
    "The same prompts, but the model need not say the number: is the key likelier than nine other numbers? A "
    "model that answers in prose or drops a digit finds no key in the test above and chooses the right one "
    "here; one that does not read so far back is right one time in ten."
)


def passkey_choice(found: Collection, slots: Slots) -> Section | None:
    """Share of keys chosen among ten by distance, k_choice marked, beside what the answers found."""
    series = found.of("passkey-choice").get("", [])
    if not series:
        return None
    rows = [_row(found, s) for s in series]
    table = Table(
        "passkey-choice",
        "Passkeys by choice",
        ["model", "window", "k_choice", "chosen", "rate", "k_max", "answered"],
        rows,
        [record(s, row) for s in series for row in s.rows],
        (
            "k_choice: largest distance such that at every tested distance up to it at least "
            f"{percent(CHOSEN[0])} of the keys are chosen; by chance it is 10%. k_max and answered: of the "
            "passkey test, where it ran. Intervals by distance are in the CSV.",
            *notes(series),
        ),
    )
    old = found.subject.original_window
    spec, legend = plots.passkey(series, slots, old, CHOSEN)
    caption = (
        "The higher and the further to the right, the better; a tenth is chance. Triangles mark k_choice, "
        "the distance up to which the key is read; the dashed line is the "
        f"{percent(CHOSEN[0])} that count as read."
    )
    names = ", ".join(clean(s.model.label) for s in series[:4])
    alt = f"Line chart of the share of passkeys chosen among ten for {names}. The table has the values."
    title = "Passkeys chosen by distance"
    drawn = Figure("passkey-choice", title, caption + left_out(series, slots), alt, spec, legend, table)
    return Section("passkey-choice", "Passkey by choice", LEAD, [drawn], [table])


def _row(found: Collection, series: Series) -> list[Any]:
    chosen, said = pooled(series), found.get(series.model, "passkey")
    answered, reached = pooled(said) if said else None, k_max(said)
    interval = between(chosen["low"], chosen["high"], share=True) if chosen else ""
    return [
        series.model.label,
        count(series.model.window),
        count(k_choice(series)),
        f"{count(chosen['right'])} of {count(chosen['n'])}" if chosen else "–",
        percent(chosen["rate"]) + (f" ({interval})" if interval else "") if chosen else "–",
        "–" if reached is None else count(reached),
        f"{count(answered['right'])} of {count(answered['n'])}" if answered else "–",
    ]
