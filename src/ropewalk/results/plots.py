"""The report's figures, declared once in Vega-Lite for page, SVG and PNG.

Every string of the user's stands in data values, never in field names or expressions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from .collection import Series, number
from .style import GLYPHS, SERIES, SHAPES, Slots
from .tables import Table

POINTS = 400
"""Points of one curve that are drawn at most; the CSV holds all."""
STEEP = 4
"""Ratio of the largest to the smallest value above which an axis goes by powers of ten."""
WIDTH, HEIGHT = 680, 320
THRESHOLD = 0.2
"""Share of passkeys that counts as found (Chen et al. 2023, section 3.3)."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One figure: a Vega-Lite spec as wide as its container, with what to see in it in words."""

    name: str
    title: str
    caption: str
    alt: str
    spec: dict[str, Any]
    legend: Sequence[dict[str, Any]]
    table: Table | None = None

    def still(self, config: dict[str, Any]) -> dict[str, Any]:
        """The spec for a file: fixed width, legend inside, on white, without marks for hovering alone."""
        spec = {**self.spec, "width": WIDTH, "config": {**config, "background": "#ffffff"}}
        if "layer" in spec:
            spec["layer"] = [layer for layer in spec["layer"] if not _only_hovered(layer)]
        return _with_legend(spec)


def perplexity(
    series: Sequence[Series], slots: Slots, old: int | None, new: int | None, limit: float | None = None
) -> tuple[Any, list[Any]]:
    """Perplexity by context size; by powers of ten where values span more than STEEP.

    limit: draw only values up to it (a close-up).
    """
    rows = [
        _point(s, r["context"], r["perplexity"], r)
        for s in _drawn(series, slots)
        for r in s.rows
        if limit is None or r["perplexity"] <= limit
    ]
    contexts = sorted({r["x"] for r in rows})
    x = alt.X("x:Q", title="context, tokens").scale(
        type="log", base=2, domain=[contexts[0] / 1.12, contexts[-1] * 1.12], nice=False
    )
    x = x.axis(values=contexts, format=",d", labelOverlap="greedy", labelFlush=False)
    y = alt.Y("y:Q", title="perplexity (lower is better)")
    if steep(rows):
        ends = [r[k] for r in rows for k in ("y", "low", "high") if (r[k] or 0) > 0]
        domain = [min(ends) / 1.15, max(ends) * 1.15]
        y = y.scale(type="log", domain=domain, nice=False).axis(values=_decades(*domain), format=",~r")
    else:
        y = y.scale(zero=False, padding=12, nice=True).axis(tickCount=6, format=",~r")
    shown = [("context, tokens", "x", ",d"), ("perplexity", "y", ",.4~r"), *_interval(), _n("tokens scored")]
    chart = alt.layer(
        *_guides([("old window", old), ("new window", new)], contexts[0], contexts[-1], x),
        *_bars(rows, x, y),
        *_lines(rows, x, y, slots, shown),
    )
    return _spec(chart), _legend(rows, slots)


def steep(rows: Rows) -> bool:
    """Whether values (all positive) span so much that small differences vanish on a plain axis."""
    values = [row["y"] for row in rows]
    return min(values) > 0 and max(values) / min(values) > STEEP


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two values; only 1 where there would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    return [m * 10.0**p for p in powers for m in steps if low <= m * 10.0**p <= high]


def position_loss(
    series: Sequence[Series], slots: Slots, old: int | None, new: int | None
) -> tuple[Any, list[Any]]:
    """Loss by position of the token in its document, with bands."""
    rows = []
    for s in _drawn(series, slots):
        for r in thin(s.rows):
            point = _point(s, (r["from"] + r["to"]) / 2, r["loss"], r)
            rows.append({**point, "place": f"{r['from']:,.0f}–{r['to']:,.0f}"})
    end = max(r["to"] for s in series for r in s.rows)
    x = (
        alt.X("x:Q", title="position, tokens")
        .scale(domain=[0, end], nice=False)
        .axis(format=",d", tickCount=6)
    )
    y = alt.Y("y:Q", title="loss, nats a token (lower is better)").scale(zero=False).axis(tickCount=6)
    shown = [("positions", "place", ""), ("loss", "y", ".3f"), *_interval(".3f"), _n("tokens")]
    chart = alt.layer(
        *_guides([("old window", old), ("new window", new)], 0, end, x),
        *_band(rows, x, y),
        *_lines(rows, x, y, slots, shown, dots=len(rows) <= 120),
    )
    return _spec(chart), _legend(rows, slots)


FOUND, CHOSEN = (THRESHOLD, "k_max", "found"), (0.5, "k_choice", "chosen")
"""Of passkeys: the share that counts, the summary's figure that says how far it goes, and the word for it."""


def passkey(
    series: Sequence[Series], slots: Slots, old: int | None, how: tuple[float, str, str] = FOUND
) -> tuple[Any, list[Any]]:
    """Share of passkeys found (or as ``how`` says) by distance, Wilson bars, k_max of each model above."""
    bar, ends, word = how
    drawn = _drawn(series, slots)
    end = max(r["distance"] for s in drawn for r in s.rows)
    step = end / max(len(s.rows) for s in drawn)
    rows, flags = [], []
    for i, s in enumerate(drawn):
        shift = (i - (len(drawn) - 1) / 2) * step * min(0.16, 0.4 / len(drawn))
        for r in s.rows:
            point = _point(s, r["distance"] + shift, r["rate"], r)
            rows.append(
                {**point, "distance": r["distance"], "right": f"{r.get('right', '–')} of {r.get('n', '–')}"}
            )
        reached = number(s.summary.get(ends))
        if reached is not None:
            text = f"{ends} {reached:,.0f}" if reached else f"{ends} 0: not {word}"
            flags.append({"x": reached, "y": 1.09 + 0.08 * i, "text": text, "model": s.model.label})
    top = 1.09 + 0.08 * len(flags)
    x = alt.X("x:Q", title="distance of the passkey from the end, tokens")
    x = x.scale(domain=[0, end * 1.02], nice=False).axis(format=",d", tickCount=6)
    y = alt.Y("y:Q", title=f"passkeys {word}").scale(domain=[0, top], nice=False)
    y = y.axis(format=".0%", values=[0, 0.2, 0.4, 0.6, 0.8, 1])
    shown = [
        ("distance, tokens", "distance", ",d"),
        (word, "right", ""),
        ("share", "y", ".0%"),
        *_interval(".0%"),
    ]
    limit = alt.Chart(alt.InlineData(values=[{"y": bar}])).mark_rule(style="guide").encode(y="y:Q")
    chart = alt.layer(
        limit,
        *_guides([("old window", old)], 0, end, x),
        *_bars(rows, x, y),
        *_lines(rows, x, y, slots, shown),
        *_flags(flags, x, y, end),
    )
    return _spec(chart, HEIGHT + 12 * len(flags)), _legend(rows, slots)


def passkey_map(series: Series) -> tuple[Any, list[Any]]:
    """Share of passkeys found by length of the prompt and depth of the key, for one model."""
    rows = [
        {
            "length": r["length"],
            "depth": r["depth"],
            "rate": r["rate"],
            "right": f"{r.get('right', '–')} of {r.get('n', '–')}",
        }
        for r in series.rows
    ]
    depths = len({r["depth"] for r in rows})
    tips = [("prompt, tokens", "length", ",d"), ("depth of the key", "depth", ".0%"), ("found", "right", "")]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect(style="cell-gap")
        .encode(
            x=alt.X("length:O", title="length of the prompt, tokens").axis(
                format=",d", labelAngle=0, labelOverlap=True
            ),
            y=alt.Y("depth:O", title="depth of the key").axis(format=".0%", labelOverlap=True),
            color=alt.Color("rate:Q")
            .scale(domain=[0, 1], interpolate="rgb")
            .legend(title="found", format=".0%", gradientLength=120),
            tooltip=_tips([*tips, ("share", "rate", ".0%")]),
        )
    )
    return _spec(chart, min(460, 90 + 30 * depths)), []


def training(series: Sequence[Series], slots: Slots) -> tuple[Any, list[Any]]:
    """Training loss by step, a line a model."""
    curves = {
        one.model.label: [(r["step"], r["loss"], number(r.get("tokens"))) for r in one.rows]
        for one in _drawn(series, slots)
    }
    return _losses(curves, slots)


def so_far(curve: Sequence[tuple[float, float]]) -> tuple[Any, list[Any]]:
    """The loss of a training that goes on: (step, loss) of the steps done."""
    name = "loss so far"
    return _losses({name: [(*point, None) for point in curve]}, Slots({name: SERIES[0]}, models=False))


def _losses(curves: dict[str, list[tuple[Any, ...]]], slots: Slots) -> tuple[Any, list[Any]]:
    """(step, loss, tokens) by name; above 60 steps the mean of the steps around each, single ones behind."""
    rows: Rows = []
    behind: Rows = []
    for name, curve in curves.items():
        calm = smoothed([loss for _, loss, _ in curve])
        full = thin(
            [
                {"x": step, "y": mean, "model": name, "tokens": tokens, "loss": loss}
                for (step, loss, tokens), mean in zip(curve, calm)
            ]
        )
        rows += full
        behind += full if len(curve) > 60 else []
    x = alt.X("x:Q", title="step").scale(nice=False, zero=True).axis(format=",d", tickCount=6)
    y = alt.Y("y:Q", title="training loss, nats a token").scale(zero=False).axis(tickCount=6)
    shown = [("step", "x", ",d"), ("loss", "loss", ".4f"), ("tokens", "tokens", ",d")]
    shown += [("mean of the steps around", "y", ".4f")] if behind else []
    layers: list[Any] = []
    if behind:
        single = y.copy()
        single.shorthand = "loss:Q"
        thin_line = alt.Chart(alt.InlineData(values=behind)).mark_line(strokeWidth=1, strokeOpacity=0.35)
        layers.append(thin_line.encode(x=x, y=single, color=_colour(slots)))
    layers += _lines(rows, x, y, slots, shown, dots=len(rows) <= 60)
    return _spec(alt.layer(*layers)), _legend(rows, slots)


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean over a twentieth of all values around each, less at the ends; short curves as they are.

    >>> smoothed([1.0, 3.0])
    [1.0, 3.0]
    """
    half = len(values) // 40 if len(values) > 60 else 0
    return [
        math.fsum(part) / len(part)
        for i in range(len(values))
        for part in [values[max(0, i - half) : i + half + 1]]
    ]


def dots(rows: Rows, slots: Slots, axis: str, *, zero: bool, share: bool) -> tuple[Any, list[Any]]:
    """Values with their intervals, one line a task, one mark a model.

    rows: {"task", "y", "low", "high", "n", "model"}; zero: draw a line at no difference; share: in per cent.
    """
    form = ("+.1%" if zero else ".1%") if share else ",.3~r"
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    models = [label for label in slots.labels if any(r["model"] == label for r in rows)]
    x = alt.X("y:Q", title=axis).axis(format=form.replace(".1", ".0"), tickCount=6, grid=True)
    x = x.scale(zero=zero, nice=True, padding=8)
    place = alt.Y("task:N", title=None, sort=tasks).axis(labelLimit=150, grid=False).scale(paddingInner=0.25)
    offset = alt.YOffset("model:N", sort=models)
    base = alt.Chart(alt.InlineData(values=rows))
    tips = [("model", "model", ""), ("task", "task", ""), ("value", "y", form), *_interval(form), _n("n")]
    layers: list[Any] = []
    if zero:
        layers.append(alt.Chart(alt.InlineData(values=[{"y": 0}])).mark_rule(style="guide").encode(x="y:Q"))
    colour = _colour(slots)
    layers.append(
        base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", title=axis), x2="high:Q", y=place, yOffset=offset, color=colour
        )
    )
    layers.append(
        base.mark_point(filled=True, size=80, opacity=1, style="dot").encode(
            x=x, y=place, yOffset=offset, color=colour, shape=_shape(slots), tooltip=_tips(tips)
        )
    )
    height = 30 + len(tasks) * (14 + 15 * len(models))
    return _spec(alt.layer(*layers), height), _legend(rows, slots)


def by_length(rows: Rows, slots: Slots, axis: str) -> tuple[Any, list[Any]]:
    """A score by length, one line a model. rows: {"x", "y", "low", "high", "n", "model"}."""
    lengths = sorted({r["x"] for r in rows})
    x = alt.X("x:Q", title="length, tokens").axis(values=lengths, format=",d", labelOverlap="greedy")
    x = x.scale(type="log", base=2, domain=[lengths[0] / 1.12, lengths[-1] * 1.12], nice=False)
    y = alt.Y("y:Q", title=axis).scale(zero=False, nice=True).axis(tickCount=6)
    shown = [("length, tokens", "x", ",d"), (axis, "y", ",.3~r"), *_interval(), _n("n")]
    return _spec(alt.layer(*_bars(rows, x, y), *_lines(rows, x, y, slots, shown))), _legend(rows, slots)


def attention(
    curves: dict[str, Sequence[dict[str, Any]]], window: int, inside: tuple[float, float] | None
) -> tuple[Any, list[Any]]:
    """One head's score by distance, a line a curve (the raw one first), and the range it had in training.

    inside: lowest and highest raw score inside the window.
    """
    names = list(curves)[: len(SHAPES)]
    slots = Slots(dict(zip(names, SERIES)), models=False)
    rows = [
        {"x": r["distance"], "y": r["score"], "model": name, **{k: number(r.get(k)) for k in ("low", "high")}}
        for name in names
        for r in curves[name]
    ]
    x = alt.X("x:Q", title="distance between query and key, tokens").scale(nice=False, zero=True)
    x = x.axis(format=",d", tickCount=6)
    y = alt.Y("y:Q", title="attention score before softmax").scale(zero=False).axis(tickCount=5)
    shown = [
        ("distance", "x", ",d"),
        ("score", "y", ".3~r"),
        ("bound from", "low", ".3~r"),
        ("to", "high", ".3~r"),
    ]
    layers = _guides([("trained window", window)], 0, max(r["x"] for r in rows), x)
    if inside is not None:
        range_ = [{"from": inside[0], "to": inside[1]}]
        low = y.copy()
        low.shorthand = "from:Q"
        band = alt.Chart(alt.InlineData(values=range_)).mark_rect(style="range")
        layers.append(band.encode(y=low, y2="to:Q"))
    drawn = _lines(rows, x, y, slots, shown, dots=False)
    return _spec(alt.layer(*layers, *drawn), 240), _legend(rows, slots)


def thin(rows: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """At most about POINTS rows, evenly taken, the last one always."""
    if len(rows) <= POINTS:
        return rows
    step = -(-len(rows) // POINTS)
    kept = list(rows[::step])
    return kept if kept[-1] is rows[-1] else [*kept, rows[-1]]


def _drawn(series: Sequence[Series], slots: Slots) -> list[Series]:
    """The drawn models' series; of two of one model the comparable one."""
    best: dict[str, Series] = {}
    for one in sorted(series, key=lambda s: bool(s.mark)):
        if one.model.label in slots.by_label:
            best.setdefault(one.model.label, one)
    return [best[label] for label in slots.labels if label in best]


def _point(series: Series, x: float, y: float, row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: number(row.get(key)) for key in ("low", "high", "n")}
    return {"x": x, "y": y, "model": series.model.label, **kept}


def _interval(form: str = ",.4~r") -> list[tuple[str, str, str]]:
    return [("95 % interval from", "low", form), ("to", "high", form)]


def _n(title: str) -> tuple[str, str, str]:
    return (title, "n", ",d")


def _tips(shown: Iterable[tuple[str, str, str]]) -> list[Any]:
    return [
        alt.Tooltip(f"{field}:Q", title=title, format=form)
        if form
        else alt.Tooltip(f"{field}:N", title=title)
        for title, field, form in shown
    ]


def _colour(slots: Slots) -> Any:
    known: Literal["category", "ordinal"] = "category" if slots.models else "ordinal"
    return alt.Color("model:N", sort=None).scale(domain=slots.labels, range=known).legend(None)


def _shape(slots: Slots) -> Any:
    shapes = [SHAPES[slot] for slot in slots.by_label.values()]
    return alt.Shape("model:N", sort=None).scale(domain=slots.labels, range=shapes).legend(None)


def _lines(
    rows: Rows, x: Any, y: Any, slots: Slots, shown: Sequence[tuple[str, str, str]], dots: bool = True
) -> list[Any]:
    """A line a model, and marks that answer to hovering."""
    base = alt.Chart(alt.InlineData(values=rows)).encode(x=x, y=y, color=_colour(slots))
    tips = _tips([("model", "model", ""), *shown])
    size = 160 if not dots else 75 if len(rows) <= 48 else 50
    marks = base.mark_point(filled=True, size=size, opacity=1 if dots else 0, style="dot")
    return [base.mark_line(strokeWidth=2), marks.encode(shape=_shape(slots), tooltip=tips)]


def _only_hovered(layer: dict[str, Any]) -> bool:
    """Marks that cannot be seen."""
    mark = layer.get("mark")
    return isinstance(mark, dict) and mark.get("opacity") == 0


def _bars(rows: Rows, x: Any, y: Any) -> list[Any]:
    kept = [r for r in rows if r.get("low") is not None and r.get("high") is not None]
    if not kept:
        return []
    low = y.copy()
    low.shorthand = "low:Q"
    base = alt.Chart(alt.InlineData(values=kept)).mark_rule(strokeWidth=2, strokeOpacity=0.45)
    return [base.encode(x=x, y=low, y2="high:Q", color=alt.Color("model:N").legend(None))]


def _band(rows: Rows, x: Any, y: Any) -> list[Any]:
    kept = [r for r in rows if r.get("low") is not None and r.get("high") is not None]
    if not kept:
        return []
    low = y.copy()
    low.shorthand = "low:Q"
    base = alt.Chart(alt.InlineData(values=kept)).mark_area(fillOpacity=0.2)
    return [base.encode(x=x, y=low, y2="high:Q", color=alt.Color("model:N").legend(None))]


def _guides(windows: Sequence[tuple[str, int | None]], first: float, last: float, x: Any) -> list[Any]:
    """Dashed vertical lines at the windows, named above on lines of their own."""
    layers: list[Any] = []
    for line, (name, at) in enumerate(windows):
        if at is None or at in [other for _, other in windows[:line]] or not first <= at <= last * 1.02:
            continue
        right = at < (first * last) ** 0.5 if first > 0 else at < last / 2
        base = alt.Chart(alt.InlineData(values=[{"x": at, "text": f"{name} {at:,}"}])).encode(x=x)
        layers.append(base.mark_rule(style="guide"))
        layers.append(
            base.mark_text(
                style="guide-text",
                align="left" if right else "right",
                dx=5 if right else -5,
                baseline="bottom",
            ).encode(text="text:N", y=alt.value(-2 - 13 * line))
        )
    return layers


def _flags(flags: Rows, x: Any, y: Any, end: float) -> list[Any]:
    """k_max of each model: a mark above the plot at its distance, with its number where there is room."""

    def drawn(kept: Rows, align: Literal["left", "right"], side: int) -> list[Any]:
        if not kept:
            return []
        colour = alt.Color("model:N").legend(None)
        base = alt.Chart(alt.InlineData(values=kept)).encode(x=x, y=y, color=colour)
        text = base.mark_text(align=align, dx=side, fontSize=11, fontWeight=600, baseline="middle")
        mark = base.mark_point(shape="triangle-down", filled=True, size=60, opacity=1)
        return [mark, text.encode(text="text:N")]

    left = drawn([f for f in flags if f["x"] <= end / 2], "left", 8)
    return left + drawn([f for f in flags if f["x"] > end / 2], "right", -8)


def _legend(rows: Rows, slots: Slots) -> list[dict[str, Any]]:
    """What the page prints above a figure: label, colour slot and glyph of each model in it."""
    present = {row["model"] for row in rows}
    return [
        {"label": label, "slot": slot, "glyph": GLYPHS[slot]}
        for label, slot in slots.by_label.items()
        if label in present
    ]


def _spec(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    """The chart as a plain Vega-Lite spec, as wide as its container."""
    sized = chart.properties(
        width="container", height=height, autosize=alt.AutoSizeParams(type="fit", contains="padding")
    )
    spec: dict[str, Any] = sized.to_dict()
    spec.pop("config", None)
    return spec


def _with_legend(spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with the legend of models that the page otherwise prints beside it."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        copy = {key: walk(item) if key != "datasets" else item for key, item in value.items()}
        if copy.get("field") == "model" and "legend" in copy:
            if "scale" not in copy:
                del copy["legend"]
                return copy
            present = {row["model"] for rows in spec["datasets"].values() for row in rows if "model" in row}
            named = [label for label in copy["scale"]["domain"] if label in present]
            copy["legend"] = {
                "title": None,
                "orient": "top",
                "columns": 4 if max(map(len, named), default=0) <= 24 else 2,
                "values": named,
                "symbolOpacity": 1,
            }
        return copy

    walked: dict[str, Any] = walk(spec)
    return walked
