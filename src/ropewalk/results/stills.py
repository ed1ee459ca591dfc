"""A figure as SVG: the same bytes whatever was drawn before it."""

from __future__ import annotations

import re

import vl_convert

from .plots import Figure
from .style import Slots

VEGA_LITE = "6.4"
"""The version of the drawing language; the page's script and the stills must be of one."""

STILL_FONT = "Liberation Sans, Arial, sans-serif"


def svg_of(one: Figure, slots: Slots) -> str:
    """The figure in the light theme."""
    config = {**slots.config("light"), "font": STILL_FONT}
    return _own_numbers(vl_convert.vegalite_to_svg(one.still(config), vl_version=VEGA_LITE))


def _own_numbers(svg: str) -> str:
    """Number a drawing's gradients from 0: the library counts on from drawing to drawing."""
    seen: dict[str, str] = {}

    def renumbered(match: re.Match[str]) -> str:
        number = seen.setdefault(match[2], str(len(seen)))
        return f"{match[1]}{number}{match[3]}"

    return re.sub(r'(url\(#gradient_|id="gradient_)(\d+)([)"])', renumbered, svg)
