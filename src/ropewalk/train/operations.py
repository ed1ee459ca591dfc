"""How many operations a training takes: two for each weight and token, and causal attention's squares.

An operation is one multiplication or one addition in a matrix product. Elementwise work is left out: it
costs memory traffic, not operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.shape import Shape

ATTENTION_BACKWARD = 2.5
"""Backward of fused attention over its forward: five matrix products for two (FlashAttention-2, Dao 2023)."""


@dataclass(frozen=True)
class Operations:
    """Operations of one token, averaged over a causal window: matrix products, attention, each way.

    forward, backward, recompute: pairs (matrix products, attention).
    """

    forward: tuple[float, float]
    backward: tuple[float, float]
    recompute: tuple[float, float]

    @property
    def products(self) -> float:
        """Of the matrix products with weights."""
        return self.forward[0] + self.backward[0] + self.recompute[0]

    @property
    def attention(self) -> float:
        """Of attention."""
        return self.forward[1] + self.backward[1] + self.recompute[1]

    @property
    def total(self) -> float:
        """Of everything."""
        return self.products + self.attention


def operations(
    shape: Shape,
    length: int,
    *,
    frozen: bool,
    recompute: bool,
    head_twice: bool,
    tiled: bool = False,
    attention_kept: bool = False,
) -> Operations:
    """Operations of one token in a window of ``length`` tokens.

    frozen: are the weights fixed (LoRA)? Then no gradient of a weight is computed: one product backward
    instead of two.   recompute: are the layers computed again in the backward pass?
    head_twice: are the logits dropped and computed again?   tiled: is the feed-forward part, in tiles?
    attention_kept: are the layers computed again but for attention?

    Forward: 2 for each weight; attention 4·d for each head and each of the (T + 1) / 2 tokens seen on
    average. Adapters' own products are left out: rank / width of the layer's.

    >>> llama = Shape(4096, 32, 11008, 32, 32, 128, 32000, tied=False, window=4096)
    >>> found = operations(llama, 4096, frozen=False, recompute=False, head_twice=False)
    >>> round(found.forward[0] / 2e9, 2), round(found.forward[1] / found.forward[0], 2)
    (6.61, 0.08)
    """
    layer = shape.attention_weights + shape.active * shape.inner_weights
    body = 2.0 * shape.layers * layer
    head = 2.0 * shape.head_weights
    attention = shape.layers * shape.heads * 4 * shape.head_dim * (length + 1) / 2
    again = (body if recompute else 0.0) + (head if head_twice else 0.0)
    again += 2.0 * shape.layers * shape.active * shape.inner_weights if tiled else 0.0
    return Operations(
        forward=(body + head, attention),
        backward=((body + head) * (1 if frozen else 2), ATTENTION_BACKWARD * attention),
        recompute=(again, attention if recompute and not attention_kept else 0.0),
    )
