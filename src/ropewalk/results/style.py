"""Colours and type of figures: one slot a model, the same in every figure, for light and dark.

The hues follow Okabe and Ito's palette for colour-blind readers, darkened or lightened so that each has a
contrast of at least 3:1 on its background; every model also has a shape of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .collection import Collection, Model

DRAWN = 8
"""Models that a figure shows at most: beyond it no palette can be told apart."""
LIGHT = ("#626c7a", "#c2500a", "#0068a8", "#00795a", "#a04a86", "#8a6a00", "#2a8fb5", "#1f2937")
DARK = ("#a9b3c1", "#ff9353", "#62b6f0", "#35c79c", "#e7a0cd", "#e8bd4a", "#a6e1f4", "#f3f4f6")
SHAPES = (
    "circle",
    "square",
    "diamond",
    "triangle-up",
    "cross",
    "triangle-down",
    "triangle-right",
    "triangle-left",
)
GLYPHS = ("●", "■", "◆", "▲", "✚", "▼", "▶\ufe0e", "◀\ufe0e")
SERIES = (0, 2, 3, 4, 5, 6, 7, 1)
"""Colour slots of what is not a model, such as the curves of a theory."""
FONT = 'system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True)
class Theme:
    """What a page's background asks of its figures."""

    ink: str
    soft: str
    grid: str
    background: str
    colours: tuple[str, ...]
    ramp: tuple[str, ...]


THEMES = {
    "light": Theme("#1d2530", "#566172", "#e3e7ec", "#ffffff", LIGHT, ("#edf0f3", "#7fb2d3", "#00456f")),
    "dark": Theme("#e8ebf0", "#aab4c3", "#333c49", "#171c23", DARK, ("#2b333f", "#3f7ba3", "#b9e2ff")),
}


@dataclass(frozen=True)
class Slots:
    """Which models are drawn, and the colour slot of each."""

    by_label: dict[str, int]
    models: bool = True

    @property
    def labels(self) -> list[str]:
        """Drawn models in the report's order."""
        return list(self.by_label)

    def config(self, theme: str) -> dict[str, Any]:
        """The figure's configuration under a theme: Vega-Lite's ``config``."""
        look = THEMES[theme]
        used = [look.colours[slot] for slot in self.by_label.values()]
        rest = [colour for colour in look.colours if colour not in used]
        text = {"labelColor": look.soft, "titleColor": look.ink, "labelFontSize": 12, "titleFontSize": 12}
        return {
            "background": None,
            "font": FONT,
            "padding": 4,
            "view": {"stroke": None},
            "axis": {
                **text,
                "titleFontWeight": 500,
                "titlePadding": 10,
                "labelPadding": 6,
                "domainColor": look.soft,
                "tickColor": look.grid,
                "gridColor": look.grid,
                "labelLimit": 130,
            },
            "axisX": {"grid": False, "domain": True},
            "axisY": {"domain": False, "ticks": False},
            "legend": {**text, "titleFontWeight": 500, "labelLimit": 320, "symbolSize": 90},
            "range": {
                "category": used + rest,
                "ordinal": [look.colours[slot] for slot in SERIES],
                "heatmap": list(look.ramp),
                "ramp": list(look.ramp),
            },
            "style": {
                "guide": {"color": look.soft, "strokeDash": [3, 3], "strokeWidth": 1},
                "range": {"color": look.soft, "opacity": 0.13},
                "guide-text": {"color": look.soft, "fontSize": 11},
                "dot": {"stroke": look.background, "strokeWidth": 1},
                "cell-gap": {"stroke": look.background, "strokeWidth": 2},
            },
        }


def choose(found: Collection) -> Slots:
    """Give the original grey, direct fine-tuning orange, the verdict's model blue, the others what is left.

    Where there are more than DRAWN models, those are drawn that the verdict speaks of, then the first ones.
    """
    original = found.baseline or next((m for m in found.models if m.role == "original"), None)
    direct = next((m for m in found.models if m.role == "direct"), None)
    fixed: dict[str, int] = {}
    wanted: list[tuple[Model | None, int]] = [
        (found.subject if found.subject.role != "original" else None, 2)
    ]
    wanted += [(original, 0), (direct, 1)]
    for model, slot in wanted:
        if model is not None:
            fixed.setdefault(model.label, slot)
    free = [slot for slot in (3, 4, 5, 6, 7, 0, 1, 2) if slot not in fixed.values()]
    for model in found.models:
        if len(fixed) < DRAWN and model.label not in fixed:
            fixed[model.label] = free.pop(0)
    return Slots({m.label: fixed[m.label] for m in found.models if m.label in fixed})


def css_variables(theme: str) -> str:
    """The theme's colours as CSS custom properties, so that page and figures agree."""
    look = THEMES[theme]
    named = {"ink": look.ink, "soft": look.soft, "line": look.grid, "paper": look.background}
    named |= {f"c{i}": colour for i, colour in enumerate(look.colours)}
    return " ".join(f"--{name}: {value};" for name, value in named.items())
