"""How figures and names are written for people: the same in page, Markdown, LaTeX and figures."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

NOT_RUN = "not run"
NAME_LIMIT = 120


def clean(text: Any) -> str:
    """A name from a results file as one printable line: control and direction characters become �."""
    flat = " ".join(str(text).split())
    if flat.isprintable():  # no character of these kinds: nearly always, and much faster
        return flat if len(flat) <= NAME_LIMIT else flat[: NAME_LIMIT - 1] + "…"
    shown = "".join("�" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") else c for c in flat)
    return shown if len(shown) <= NAME_LIMIT else shown[: NAME_LIMIT - 1] + "…"


def count(value: float | None) -> str:
    """A whole number with thousands separated, ``2,048``."""
    return "–" if value is None else f"{value:,.0f}"


def figure(value: float | None) -> str:
    """A measured figure with three significant digits or all whole ones: ``8.31``, ``24.2``, ``3,469``."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.2e}"
    digits = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}")))))
    return f"{value:,.{digits}f}".replace("-", "−")


def percent(share: float | None, signed: bool = False) -> str:
    """A share of one as per cent: ``94 %``, signed ``+13 %``; under ten with one digit, ``2.5 %``."""
    if share is None:
        return "–"
    value = 100 * share
    digits = 1 if 0 < abs(value) < 9.95 else 0
    sign = "−" if value < 0 and round(value, digits) != 0 else "+" if signed and round(value, digits) else ""
    return f"{sign}{abs(value):,.{digits}f} %"


def between(low: float | None, high: float | None, share: bool = False) -> str:
    """An interval: ``8.12–8.51`` or ``91–96 %``; empty when there is none."""
    if low is None or high is None:
        return ""
    if share:
        return f"{100 * low:.0f}–{100 * high:.0f} %"
    return f"{figure(low)} to {figure(high)}" if min(low, high) < 0 else f"{figure(low)}–{figure(high)}"


def times(ratio: float) -> str:
    """A ratio of windows: ``4×``, ``2.5×``."""
    return f"{ratio:.0f}×" if abs(ratio - round(ratio)) < 0.005 else f"{ratio:.2g}×"


def listed(words: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def plain(value: Any) -> str:
    """Any setting's value on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, dict):
        return ", ".join(f"{clean(k)} {plain(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(v) for v in value)
    return clean(value)
