"""How long an optimizer step takes on a card: products, attention, memory traffic and the optimizer, summed.

Eager kernels wait for each other, so the four times add. Elementwise traffic is counted in bytes read and
written by all operators that are neither matrix products nor attention; the coefficients were counted
operator by operator on small Llamas (hidden, inner, query, key width varied, least squares), and hold for
eager code.
Communication between cards is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.shape import Shape
from .cards import HALF, MOVED, PRODUCTS, Card
from .memory import Load
from .operations import Operations, operations

FORWARD = (109, 11, 43, 38)
BOTH = (406, 30, 108, 97)
"""Bytes of elementwise traffic of a token in a layer, for each number of hidden, inner, query, key width."""

FROZEN_FORWARD = (131, 10, 48, 39)
FROZEN_BOTH = (396, 28, 109, 78)
"""The same with bf16 weights and adapters."""

FUSED_FORWARD = (45, 6, 8, 8)
FUSED_BOTH = (180, 20, 24, 24)
FUSED_LOGIT = 18
"""The same of compiled layers and loss: what the fused kernels read and write, with copies before attention;
fitted to one model at two windows (SmolLM2-135M on an H100: 254 ms a step of 131,072 tokens)."""

LOGIT_ONCE, LOGIT_TWICE = 42, 58
"""Bytes moved for each logit, computed once or twice."""

STEP_BYTES = 32
"""Of AdamW and the norm of the gradient, for each trained parameter."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an optimizer step on one rank, by what they go to."""

    products: float
    attention: float
    traffic: float
    optimizer: float

    @property
    def total(self) -> float:
        """Of everything."""
        return self.products + self.attention + self.traffic + self.optimizer


def work(shape: Shape, load: Load, window: int) -> Operations:
    """Operations of one token in ``window`` tokens under this load."""
    twice = load.rows_of_logits(shape) < load.tokens
    ways = {"frozen": load.frozen, "recompute": load.recompute, "tiled": 0 < load.tile < load.length}
    ways["attention_kept"] = load.attention_kept
    return operations(shape, window, head_twice=twice, **ways)


def pace(shape: Shape, load: Load, card: Card, *, window: int, tokens: float) -> Pace:
    """Time of one optimizer step of which this rank computes ``tokens`` tokens, in windows of ``window``."""
    count = work(shape, load, window)
    forward, both = (FROZEN_FORWARD, FROZEN_BOTH) if load.frozen else (FORWARD, BOTH)
    if load.fused:
        forward, both = FUSED_FORWARD, FUSED_BOTH
    widths = (shape.hidden, shape.inner * shape.active, shape.query, shape.key)
    layer = sum(c * w for c, w in zip(both, widths))
    if load.recompute:
        layer += sum(c * w for c, w in zip(forward, widths))
    twice = load.rows_of_logits(shape) < load.tokens
    logit = FUSED_LOGIT if load.fused else LOGIT_TWICE if twice else LOGIT_ONCE
    moved = shape.layers * layer + logit * shape.vocab
    rate, bandwidth = card.tflops * 1e12, card.bandwidth * 1e9 * MOVED
    return Pace(
        products=tokens * count.products / (rate * product_share(shape)),
        attention=tokens * count.attention / (rate * attention_share(shape, card)),
        traffic=tokens * moved / bandwidth,
        optimizer=STEP_BYTES * load.trained / load.shards / bandwidth,
    )


def reading(shape: Shape, card: Card, tokens: int, rows: int) -> float:
    """Seconds of one forward pass over ``tokens`` tokens in bf16, with the logits of ``rows`` of them."""
    layer = shape.attention_weights + shape.active * shape.inner_weights
    products = 2.0 * shape.layers * layer * tokens + 2.0 * shape.head_weights * rows
    attention = shape.layers * shape.query * 4 * tokens * (tokens + 1) / 2
    widths = (shape.hidden, shape.inner * shape.active, shape.query, shape.key)
    moved = shape.layers * tokens * sum(c * w for c, w in zip(FROZEN_FORWARD, widths))
    rate = card.tflops * 1e12
    return (
        products / (rate * product_share(shape))
        + attention / (rate * attention_share(shape, card))
        + moved / (card.bandwidth * 1e9 * MOVED)
    )


def product_share(shape: Shape) -> float:
    """Share of a card's tflops that products of this width reach."""
    return PRODUCTS * shape.hidden / (shape.hidden + HALF)


def attention_share(shape: Shape, card: Card) -> float:
    """Share of a card's tflops that attention with heads of this size reaches."""
    return card.attention[0] if shape.head_dim <= 64 else card.attention[1]
