"""What a training keeps in a device's memory, summed before anything is loaded; how many rows fit at once.

The one place of these figures: `finetune` chooses its micro-batch from them, `plan` prints them. Counted as
for a Llama-like layer: two norms, attention with rotary positions, a gated feed-forward part. The terms of a
layer are what autograd keeps of it (a test counts that on a real model); the sum is held against measured
peaks in docs/plan.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..model.shape import Shape, shape_from
from .loss import rows_per_chunk

CPU_TOKENS = 8_192
"""Tokens in a micro-batch on a CPU: enough to keep its cores busy, little enough for its caches."""

GPU_TOKENS = 32_768
"""Tokens in a micro-batch on a GPU: enough to keep it busy; more take memory and bring no speed."""

SHARE = 0.85
"""Of the free memory that the sum may fill; the rest is for the gaps between tensors of other sizes."""

RESERVE = 1 << 30
"""Bytes for the driver's context and the kernels' workspaces."""

SAVINGS: tuple[dict[str, Any], ...] = (
    {"attention_kept": True, "tile": 0, "offload": False},
    {"attention_kept": False, "tile": 0, "offload": False},
    {"attention_kept": False, "tile": 2_048, "offload": False},
    {"attention_kept": False, "tile": 2_048, "offload": True},
)
"""Fields of a `Load` whose activations are computed twice, tried in turn until it fits; each is slower than
the one before."""

STATE_BYTES = 16
"""For each trained parameter: weight, gradient and AdamW's two moments, float32."""

LOGIT_BYTES = 12
"""For each logit of a chunk, at most: its log p, the gradient of that, and its own, float32."""

FUSED_LOGIT_BYTES = 4
"""The same where the loss is compiled: the logit and its gradient, 16 bits."""


@dataclass(frozen=True)
class Load:
    """What of a training its memory depends on, on one rank.

    parameters, trained: of the whole model; few trained ones are adapters on frozen weights.
    length: tokens of a window on this rank.   rows: windows at once.
    dtype: "bf16" is autocast over float32 weights, or over bf16 ones where they are frozen.
    shards: ranks that weights, gradients and optimizer state are spread over.
    copies: ranks with the same weights, whose gradients are summed.
    attention_kept: with recompute, is attention alone not computed twice?
    tile: tokens at once in feed-forward parts and norms, 0 for all.
    offload: are layers' inputs kept on the host?
    logits: rows of logits at once, 0 for the loss's own choice.
    compiled: are layers and loss? Counted for full fine-tuning in bf16 alone, else as if they were not.
    """

    parameters: int
    trained: int
    length: int
    rows: int = 1
    recompute: bool = False
    dtype: Literal["bf16", "float32"] = "bf16"
    shards: int = 1
    copies: int = 1
    attention_kept: bool = False
    tile: int = 0
    offload: bool = False
    logits: int = 0
    compiled: bool = False

    @property
    def fused(self) -> bool:
        """Is it of the compiled form that is counted here?"""
        return self.compiled and self.dtype == "bf16" and not self.frozen

    @property
    def frozen(self) -> bool:
        """Are the model's own weights fixed?"""
        return 2 * self.trained < self.parameters

    @property
    def tokens(self) -> int:
        """In a micro-batch."""
        return self.rows * self.length

    def rows_of_logits(self, shape: Shape) -> int:
        """At once in the loss."""
        return min(self.tokens, self.logits or rows_per_chunk(shape.vocab))

    @property
    def state_width(self) -> int:
        """Bytes of one number of the residual stream: that of the norms' weights."""
        return 2 if self.frozen and self.dtype == "bf16" else 4


def layer_bytes(shape: Shape, load: Load) -> tuple[int, int]:
    """Bytes that one layer keeps of one token until its backward pass: (all but the feed-forward, that).

    Each line is one thing that autograd keeps; D, I, q, k: hidden, inner, query and key width.
    """
    d, q, k = shape.hidden, shape.query, shape.key
    inner = shape.inner * shape.active
    wide = 4 * shape.heads  # attention's log sums, float32
    if load.dtype == "float32":
        norms = 2 * 4 * d + (4 if load.frozen else 16) * d  # their inputs; normed values, their outputs
        attention = 2 * 4 * q + 2 * 4 * k
        return norms + attention + wide, 4 * ((3 if shape.gated else 2) + (not load.frozen)) * inner
    if load.frozen:
        norms = 2 * 4 * d  # their inputs, as float32
        adapters = 2 * d  # the input of those on query, key, value; that of the output's is attention's own
        attention = 2 * 2 * q + 2 * 2 * k  # rotated queries, keys; values; output
        return norms + adapters + attention + wide, (6 if shape.gated else 4) * inner
    if load.fused:
        stream = 4 * d + 2 * d  # it; the product behind attention: norms and sums are computed again
        return stream + 2 * 2 * q + 2 * 2 * k + wide, (4 if shape.gated else 2) * inner
    norms = 2 * 8 * d  # the residual stream and its normed values, float32
    casts = (3 + (2 if shape.gated else 1)) * 2 * d  # each matrix product casts its own input
    attention = 2 * 2 * q + 2 * 2 * k
    return norms + casts + attention + wide, (8 if shape.gated else 6) * inner


def attention_bytes(shape: Shape, load: Load) -> int:
    """Bytes of what one layer's attention gives for one token: its output and its log sums."""
    return (4 if load.dtype == "float32" else 2) * shape.query + 4 * shape.heads


def layer_gradients(shape: Shape, load: Load) -> int:
    """Bytes of one token's gradients while a layer's feed-forward part goes backward, at most."""
    width = 4 if load.dtype == "float32" else 2
    branches = (3 if load.frozen else 2) - (not shape.gated)
    return branches * width * shape.inner * shape.active + (load.state_width + width) * shape.hidden


def tiled_bytes(shape: Shape, load: Load) -> tuple[int, int]:
    """Bytes of one token in a layer whose norms and feed-forward part go in tiles: (kept, gradients).

    Kept beside the layer's input: the first norm's output as the products take it, rotated queries and keys,
    values, attention's output, and with trained weights the stream behind attention. Gradients: the most
    while attention or the feed-forward part goes backward.
    """
    d, q, k = shape.hidden, shape.query, shape.key
    wide = 4 * shape.heads
    if load.dtype == "float32":
        return 4 * d + 8 * q + 8 * k + wide, 16 * d + 8 * k
    if load.frozen:
        return 2 * d + 4 * q + 4 * k + wide, max(2 * d + 4 * q + 4 * k, 8 * d)
    return 10 * d + 4 * q + 4 * k + wide, 16 * d + 4 * k


def parts(shape: Shape, load: Load) -> dict[str, int]:
    """Bytes by part at the peak of an optimizer step, on one rank.

    The peak is the larger of two moments: the loss's backward pass, when every layer's activations are
    there; and the last layer's, when recomputing has filled it again.
    """
    found = _states(shape, load)
    tokens = load.tokens
    rest, forward = layer_bytes(shape, load)
    whole = (rest + forward) * tokens
    stream = load.state_width * shape.hidden * tokens
    gradients = layer_gradients(shape, load) * tokens + stream
    if load.tile and load.tile < load.length:
        rest, under_way = tiled_bytes(shape, load)
        whole = rest * tokens + forward * load.tile + stream
        gradients = under_way * tokens + layer_gradients(shape, load) * load.tile
    final = (2 * load.state_width if load.state_width == 4 else 6) * shape.hidden * tokens
    logit = FUSED_LOGIT_BYTES if load.fused else LOGIT_BYTES
    loss = logit * load.rows_of_logits(shape) * shape.vocab + 2 * stream
    if not load.frozen:
        loss += 2 * shape.head_weights
    casts = found.pop("16-bit copies of weights")
    if not load.recompute:
        found["16-bit copies of weights"] = casts
        found["activations"] = shape.layers * whole + final
        found["loss and gradients under way"] = max(loss, gradients)
        return found
    inputs = (2 if load.offload else shape.layers) * stream
    if load.attention_kept:  # the last layer's lives at the peak in any case
        inputs += (shape.layers - 1) * attention_bytes(shape, load) * tokens
    whole -= stream  # the layer's own input is among them
    last = whole + gradients + (casts // shape.layers if shape.layers else 0)
    if final + casts + loss >= last:
        found["16-bit copies of weights"] = casts
        found["activations"] = inputs + final
        found["loss and gradients under way"] = loss
    else:
        found["activations"] = inputs
        found["one layer computed again"] = whole
        found["loss and gradients under way"] = last - whole
    return found


def _states(shape: Shape, load: Load) -> dict[str, int]:
    """Bytes of what lives through the whole training, and of the 16-bit copies that autocast makes."""
    width = load.state_width
    adapters = load.trained if load.frozen else 0
    found = {"weights": (width * load.parameters + 4 * adapters) // load.shards}
    found["gradients"] = 4 * load.trained // load.shards + (4 * load.trained if load.copies > 1 else 0)
    found["optimizer"] = 8 * load.trained // load.shards
    if load.shards > 1:  # two layers and the embeddings lie here whole
        layer = shape.attention_weights + shape.experts * shape.inner_weights
        found["gathered layers"] = width * (2 * layer + shape.head_weights * (1 if shape.tied else 2))
    cast = 0
    if load.dtype == "bf16" and not load.frozen:
        cast = 2 * (load.parameters - (0 if shape.tied else shape.head_weights))
    found["16-bit copies of weights"] = cast
    return found


def need(shape: Shape, load: Load) -> int:
    """Bytes at the peak: the sum of `parts`."""
    return sum(parts(shape, load).values())


def room(memory: int) -> int:
    """Bytes of a device with ``memory`` free ones that a plan may fill."""
    return int(SHARE * memory) - RESERVE


def fits(shape: Shape, load: Load, memory: int) -> bool:
    """Does it fit a device with ``memory`` free bytes, with a margin?"""
    return need(shape, load) <= room(memory)


def saved(shape: Shape, load: Load, memory: int | None, context: int = 1) -> Load:
    """``load``, recomputed, with the first of `SAVINGS` that fits; with the last of them when none does.

    memory: free bytes of the device, None on a CPU, whose memory is not asked.
    context: ranks that hold one window together: what they gather for attention cannot be kept.
    """
    forms = [replace(load, **saving) for saving in SAVINGS if context == 1 or not saving["attention_kept"]]
    if memory is None:
        return forms[0]
    return next((form for form in forms if fits(shape, form, memory)), forms[-1])


def least(load: Load) -> Load:
    """One row of it in the least memory that is known here."""
    return replace(load, rows=1, recompute=True, **SAVINGS[-1])


def host_bytes(shape: Shape, load: Load) -> int:
    """Bytes of the host's memory that layers' inputs take where they are kept there."""
    return shape.layers * load.state_width * shape.hidden * load.tokens if load.offload else 0


def longest(shape: Shape, load: Load, memory: int) -> int:
    """The longest window of one row that fits, a multiple of 256 tokens; 0 when none does."""
    low, high = 0, 1 << 16  # in units of 256 tokens
    while low < high:
        middle = (low + high + 1) // 2
        if fits(shape, replace(load, length=256 * middle, rows=1), memory):
            low = middle
        else:
            high = middle - 1
    return 256 * low


def activation_bytes(config: dict[str, Any], recompute: bool) -> int:
    """Bytes of activations that one token of a full fine-tuning in bf16 leaves until the backward pass.

    config: as transformers reads it.
    """
    shape = shape_from(config)
    load = Load(parameters=1, trained=1, length=1, recompute=recompute)
    layer = sum(layer_bytes(shape, load))
    final = 2 * load.state_width * shape.hidden
    if not recompute:
        return shape.layers * layer + final
    kept = (shape.layers - 1) * load.state_width * shape.hidden
    return kept + layer + layer_gradients(shape, load) + final


def choose(
    config: dict[str, Any],
    *,
    parameters: int,
    trained: int,
    length: int,
    rows: int,
    memory: int | None,
    recompute: bool | None,
    dtype: Literal["bf16", "float32"] = "bf16",
    compiled: bool = False,
    shards: int = 1,
    copies: int = 1,
) -> tuple[int, bool]:
    """(rows in memory at once, recompute activations?) for ``rows`` rows of ``length`` tokens on one rank.

    config: as transformers reads it.   memory: free bytes of the device, None on a CPU.
    recompute: what the user said, None for nothing.   compiled, shards, copies: see `Load`.
    The rows divide ``rows``; they are 1 when nothing fits: the attempt then says what is missing.
    """
    if memory is None:
        return divisor(rows, max(1, CPU_TOKENS // length)), bool(recompute)
    shape = shape_from(config)
    load = Load(parameters, trained, length, dtype=dtype, shards=shards, copies=copies, compiled=compiled)
    most = divisor(rows, max(1, GPU_TOKENS // length))
    for again in (False, True) if recompute is None else (recompute,):
        for at_once in _divisors(most):
            if fits(shape, replace(load, rows=at_once, recompute=again), memory):
                return at_once, again
    return 1, recompute is not False


def divisor(rows: int, limit: int) -> int:
    """The largest divisor of ``rows`` that is at most ``limit``.

    >>> divisor(12, 5)
    4
    """
    return next(n for n in range(min(rows, limit), 0, -1) if rows % n == 0)


def _divisors(rows: int) -> Iterator[int]:
    """The divisors of ``rows``, falling."""
    return (n for n in range(rows, 0, -1) if rows % n == 0)
