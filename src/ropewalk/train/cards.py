"""Accelerators by their data sheets, and how much of that a training reaches.

What is measured (H100, SmolLM2-135M): attention forward and backward 428 of 989 TFLOP/s with heads of 64,
an 8,192 cube product 798, a copy 3.0 of 3.35 TB/s. The other shares are assumptions of ours, named as such.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class Card:
    """tflops: dense bf16 products, 10^12 operations a second.

    bandwidth: of its memory, 10^9 bytes a second.
    mebibytes: of memory, as the driver counts.   attention: share of tflops that fused attention reaches,
    forward and backward, with heads of up to 64, and of 128 and more.   source: of the first three.
    """

    name: str
    tflops: float
    bandwidth: float
    mebibytes: int
    attention: tuple[float, float]
    source: str

    @property
    def memory(self) -> int:
        """Bytes."""
        return self.mebibytes << 20


HOPPER = (0.43, 0.55)
"""With heads of 64 as measured; 0.55 is assumed."""

AMPERE = (0.5, 0.6)
"""Assumed, after FlashAttention-2's own figures (Dao 2023, arXiv 2307.08691)."""

CARDS = {
    card.name.lower(): card
    for card in (
        Card("H100", 989, 3350, 81_559, HOPPER, "NVIDIA H100 data sheet, SXM; memory as seen"),
        Card("H200", 989, 4800, 143_771, HOPPER, "NVIDIA H200 data sheet, SXM; memory as seen"),
        Card("B200", 2250, 7700, 183_359, HOPPER, "NVIDIA Blackwell data sheet, HGX B200"),
        Card("A100", 312, 2039, 81_920, AMPERE, "NVIDIA A100 data sheet, SXM 80 GB"),
        Card("A100-40GB", 312, 1555, 40_960, AMPERE, "NVIDIA A100 data sheet, SXM 40 GB"),
        Card("L40S", 362, 864, 46_068, AMPERE, "NVIDIA L40S data sheet"),
        Card("RTX-4090", 165, 1008, 24_564, AMPERE, "NVIDIA Ada architecture whitepaper"),
    )
}
"""By name in small letters."""

MOVED = 0.85
"""Share of the bandwidth that elementwise kernels reach (a plain copy on an H100: 0.9)."""

PRODUCTS = 0.8
"""Share of tflops that very wide matrix products reach (measured on an H100: 0.81)."""

HALF = 350
"""Width at which products reach half of that share: assumed, so that 576 columns reach half of tflops."""


def find_card(name: str) -> Card:
    """The card of that name. Raises UserError."""
    card = CARDS.get(name.lower().replace(" ", "-"))
    if card is None:
        raise UserError(f"card is {name!r}; known: {', '.join(card.name for card in CARDS.values())}")
    return card
