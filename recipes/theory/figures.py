"""Draw the theory: docs/figures/theory-*.svg, and the tables of docs/theory.md. No model, no data, seconds.

python recipes/theory/figures.py            # figures and tables, in place
python recipes/theory/figures.py OUT        # figures into another directory, the page untouched
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.rope import bounds

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "theory.md"
D, C, L = 128, 10000.0, 2048  # LLaMA 7B: a head of 128, base 10000, window 2048
SEED, CUTOFF = 0, 1e-6
BLUE, RED, GREY = "#2f6db3", "#c8442d", "#8a8a8a"


def fitted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random scores at every whole distance inside the window (App. C.1); their fit: (scores, h, θ)."""
    theta = bounds.frequencies(D, C)
    scores = np.random.default_rng(SEED).standard_normal(L)
    return scores, bounds.fit_scores(scores, np.arange(L), theta, CUTOFF), theta


# --- tables ------------------------------------------------------------------------------------------------


def constants_table() -> str:
    """The bound of a unit gap, in units of max|h|, and the ratio that the paper calls 600×."""
    lines = [
        "| d | base c | all h = 1 | printed d/(32 ln c) | sharp | S/8 | clean | paper's ratio | with S/8 "
        "| sharp ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for d, c in ((64, 1e4), (128, 1e4), (64, 1e5), (128, 5e5), (128, 1e6)):
        one, ratio = bounds.counterexample(d, c), bounds.ratios(d, c)
        values = [one[name] for name in ("error", "printed", "sharp", "corrected", "clean")]
        cells = [str(d), f"{c:,.0f}", *(f"{x:.4f}" for x in values), *(f"{x:.0f}×" for x in ratio)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def sums_table() -> str:
    """Where B(s)/d, which the paper takes to be at least 1, falls below 1, and how far."""
    lines = [
        "| d | base c | B(s)/d at 2,048 | first s with B(s)/d < 1 | smallest up to 32,768 | at s |",
        "|---|---|---|---|---|---|",
    ]
    for d, c in ((64, 1e4), (128, 1e4), (64, 1e5), (128, 5e5)):
        ratio = bounds.extrapolation_sum(bounds.frequencies(d, c), np.arange(32769)) / d
        below = f"{int(np.argmax(ratio < 1)):,}" if (ratio < 1).any() else "none"
        lines.append(
            f"| {d} | {c:,.0f} | {ratio[L]:.2f} | {below} | {ratio.min():.2f} | {int(ratio.argmin()):,} |"
        )
    return "\n".join(lines)


def fit_table() -> str:
    """Figure 2 by the cutoff of the fit: the explosion is real, its height is the solver's."""
    lines = [
        "| singular values dropped below | largest score inside L | largest in L … 2L "
        "| error at half-integers | Theorem 3 | max\\|h\\| alone |",
        "|---|---|---|---|---|---|",
    ]
    scores, _, theta = fitted()
    whole = np.arange(L)
    for cutoff in (1e-4, 1e-6, 1e-7, 1e-8):
        h = bounds.fit_scores(scores, whole, theta, cutoff)
        inside = bounds.attention_score(h, theta, whole)
        outside = bounds.attention_score(h, theta, whole + L)
        halves = bounds.attention_score(h, theta, whole[:-1] + 0.5)
        error = np.abs(halves - (inside[:-1] + inside[1:]) / 2).max()
        alone = np.abs(h).max() * bounds.sharp_error(theta)
        lines.append(
            f"| {cutoff:.0e} | {np.abs(inside).max():.2f} | {figure(np.abs(outside).max())} | {error:.4f} "
            f"| {figure(bounds.error_bound(h, theta))} | {figure(alone)} |"
        )
    return "\n".join(lines)


def figure(x: float) -> str:
    """Three digits that count, without an exponent."""
    return f"{float(f'{x:.3g}'):,.0f}" if x >= 100 else f"{x:.3g}"


TABLES = {"constants": constants_table, "sums": sums_table, "fit": fit_table}


def fill(page: str, name: str, table: str) -> str:
    """The page with the table between its two marks replaced."""
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    assert marks.search(page), f"docs/theory.md has no marks for the table {name!r}"
    return marks.sub(lambda found: found[1] + table + "\n" + found[2], page)


# --- figures -----------------------------------------------------------------------------------------------


def rows(**columns: Any) -> list[dict[str, float]]:
    """Columns of equal length as the list of records that a chart takes; five digits are enough to draw."""
    return [dict(zip(columns, (float(f"{value:.5g}") for value in line))) for line in zip(*columns.values())]


def charts() -> dict[str, Any]:
    """Every figure of the page by its file name."""
    import altair as alt

    scores, h, theta = fitted()
    tight = alt.Scale(nice=False)

    def line(data: list[dict[str, float]], color: str, x: str, y: str, **more: Any) -> Any:
        mark = alt.Chart(alt.Data(values=data)).mark_line(color=color, strokeWidth=1.3, **more)
        return mark.encode(
            alt.X("s:Q", title=x, scale=tight, axis=alt.Axis(tickCount=10)), alt.Y("a:Q", title=y)
        )

    def rules(at: list[float], dash: list[int]) -> Any:
        data = alt.Data(values=[{"s": s} for s in at])
        return alt.Chart(data).mark_rule(color=GREY, strokeDash=dash).encode(alt.X("s:Q"))

    distance, score = "distance s, tokens", "attention score a(s)"
    s = np.arange(0, L, 1.0)
    inside = line(rows(s=s, a=bounds.attention_score(h, theta, s)), RED, distance, score)
    dots = alt.Chart(alt.Data(values=rows(s=s[::8], a=scores[::8]))).mark_circle(color=BLUE, size=10)
    left = dots.encode(alt.X("s:Q", title=distance, scale=tight), alt.Y("a:Q", title=score)) + inside
    s = np.arange(0, 2 * L, 2.0)
    middle = line(rows(s=s, a=bounds.attention_score(h, theta, s)), RED, distance, score) + rules([L], [5, 4])
    s = np.linspace(25, 45, 401)
    whole = np.arange(25.0, 46.0)
    chord = line(
        rows(s=whole, a=bounds.attention_score(h, theta, whole)), BLUE, distance, score, strokeDash=[5, 3]
    )
    right = (
        rules(whole.tolist(), [2, 3])
        + chord
        + line(rows(s=s, a=bounds.attention_score(h, theta, s)), RED, distance, score)
    )
    right = right.encode(alt.X("s:Q", scale=alt.Scale(zero=False, nice=False), title=distance))
    s = np.arange(0, 2 * L, 2.0)
    after = line(rows(s=s, a=bounds.attention_score(h, theta, s / 2)), RED, distance, "a(s/2)") + rules(
        [L], [5, 4]
    )
    figures = {
        "figure2-left": left.properties(
            title="Random scores inside the window L = 2,048 (dots, every 8th), and their fit"
        ),
        "figure2-middle": middle.properties(title="The same fit, extrapolated past L (dashed)"),
        "figure2-right": right.properties(
            title="The same fit between the integers; dashed: linear interpolation"
        ),
        "interpolated": after.properties(title="The same scores under Position Interpolation, k = 2"),
        "sum": sum_chart(alt, theta),
        "constants": constants_chart(alt),
    }
    return {name: chart.properties(width=560, height=240) for name, chart in figures.items()}


def sum_chart(alt: Any, theta: np.ndarray) -> Any:
    """B(s)/d over s: the range inside every 64 tokens, and the line 1 that the paper has it above."""
    tight = alt.Scale(nice=False)
    ratio = bounds.extrapolation_sum(theta, np.arange(32768)).reshape(-1, 64) / D
    at = np.arange(0, 32768, 64)
    data = alt.Data(values=rows(s=at, low=ratio.min(axis=1), high=ratio.max(axis=1)))
    band = (
        alt.Chart(data)
        .mark_area(color=BLUE, opacity=0.75)
        .encode(
            alt.X("s:Q", title="distance s, tokens", scale=tight, axis=alt.Axis(tickCount=8)),
            alt.Y("low:Q", title="B(s)/d", scale=alt.Scale(type="log", nice=False, domain=[0.5, 20])),
            alt.Y2("high:Q"),
        )
    )
    one = alt.Chart(alt.Data(values=[{"a": 1.0}])).mark_rule(color=RED).encode(alt.Y("a:Q"))
    return (band + one).properties(title="B(s)/d for d = 128, c = 10,000: range in each 64 tokens; red: 1")


def constants_chart(alt: Any) -> Any:
    """The bound of a unit gap by head size: what is printed, what all h = 1 reaches, what is true."""
    names = {"printed": "printed, d/(32 ln c)", "error": "reached by all h = 1", "sharp": "sharp (Theorem 3)"}
    data = []
    for d in range(8, 257, 8):
        one = bounds.counterexample(d, C)
        data += [{"d": d, "bound": round(one[key], 5), "kind": name} for key, name in names.items()]
    scale = alt.Scale(domain=list(names.values()), range=[GREY, BLUE, RED])
    chart = alt.Chart(alt.Data(values=data)).mark_line()
    chart = chart.encode(
        alt.X("d:Q", title="rotary dimensions d", scale=alt.Scale(nice=False)),
        alt.Y("bound:Q", title="error / max|h|"),
        alt.Color("kind:N", scale=scale, title=None, legend=alt.Legend(orient="top-left")),
    )
    return chart.properties(title="Interpolation error in the middle of a unit gap, c = 10,000")


def main(arguments: list[str]) -> None:
    import vl_convert

    out = Path(arguments[0]) if arguments else ROOT / "docs" / "figures"
    out.mkdir(parents=True, exist_ok=True)
    for name, chart in charts().items():
        spec = chart.configure(background="white", font="sans-serif").to_dict()
        (out / f"theory-{name}.svg").write_text(vl_convert.vegalite_to_svg(spec), encoding="utf-8")
    if not arguments:
        page = PAGE.read_text(encoding="utf-8")
        for name, table in TABLES.items():
            page = fill(page, name, table())
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
