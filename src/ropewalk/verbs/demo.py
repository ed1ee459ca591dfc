"""`ropewalk demo`: the whole way on the embedded model, with text that every machine with Python has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..settings import option, verb
from .run import run

EXAMPLE = """ropewalk demo
  ropewalk demo --direct --out runs/demo-with-baseline"""

RECIPE = Path(__file__).resolve().parent.parent / "assets" / "demo.yaml"


@dataclass(frozen=True)
class Demo:
    """Watch a window grow fourfold in minutes: a small model, on this machine, without a download.

    The model shipped with ropewalk reads 512 tokens. The demo interpolates its positions to 2,048,
    fine-tunes it on the standard library's sources, measures both and writes a report.
    """

    out: Path = option(Path("runs/demo"), help="directory of everything made")
    direct: bool = option(False, help="also fine-tune without interpolation, for comparison (as long again)")


@verb(Demo)
def demo(settings: Demo) -> dict[str, Any]:
    """Run the packaged recipe; what `run` returns."""
    return run(recipe=RECIPE, out=settings.out, direct=settings.direct)
