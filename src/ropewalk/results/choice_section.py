"""The report's section on passkeys by choice: what a model reads, beside what it answers."""

from __future__ import annotations

from typing import Any

from . import plots
from .collection import Collection, Series, number
from .phrasing import clean, count, percent
from .plots import Figure
from .section import Section, left_out, notes, record
from .style import Slots
from .tables import Table
from .verdict import k_max

HALF = 0.5
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
            f"{percent(HALF)} of the keys are chosen; by chance it is 10%. k_max and answered: of the "
            "passkey test, where it ran. Intervals by distance are in the CSV.",
            *notes(series),
        ),
    )
    old = found.subject.original_window
    spec, legend = plots.passkey(series, slots, old, bar=HALF, ends="k_choice")
    caption = (
        "The higher and the further to the right, the better; a tenth is chance. Triangles mark k_choice, "
        "the distance up to which the key is read; the dashed line is the "
        f"{percent(HALF)} that count as read."
    )
    names = ", ".join(clean(s.model.label) for s in series[:4])
    alt = f"Line chart of the share of passkeys chosen among ten for {names}. The table has the values."
    title = "Passkeys chosen by distance"
    drawn = Figure("passkey-choice", title, caption + left_out(series, slots), alt, spec, legend, table)
    return Section("passkey-choice", "Passkey by choice", LEAD, [drawn], [table])


def _row(found: Collection, series: Series) -> list[Any]:
    right, n = (sum(int(number(row.get(key)) or 0) for row in series.rows) for key in ("right", "n"))
    said = found.get(series.model, "passkey")
    answered = (
        [sum(int(number(row.get(key)) or 0) for row in said.rows) for key in ("right", "n")] if said else []
    )
    reached = k_max(said)
    return [
        series.model.label,
        count(series.model.window),
        count(number(series.summary.get("k_choice"))),
        f"{count(right)} of {count(n)}" if n else "–",
        percent(right / n) if n else "–",
        "–" if reached is None else count(reached),
        f"{count(answered[0])} of {count(answered[1])}" if answered else "–",
    ]
