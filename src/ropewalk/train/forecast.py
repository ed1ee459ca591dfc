"""What a fine-tuning would take on cards that are not here: each way of it, and what would fit instead."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from ..model.shape import Shape
from .cards import Card
from .memory import GPU_TOKENS, RESERVE, Load, divisor, fits, host_bytes, least, longest, need, parts, saved
from .pace import Pace, pace, work
from .spread import choose_spread, held

COMPILE_FROM = 1e15
"""Tokens × parameters from which compiling a training pays. On an H100 it takes some ten seconds, and takes
a quarter to a third off the 90 of a training of SmolLM2-135M of this size (docs/speed.md)."""

MOST_CARDS = 1024
"""Numbers of cards are tried up to this one."""


@dataclass(frozen=True)
class Question:
    """A training that is asked about.

    parameters: of the model.   adapters: that LoRA would train.   batch: windows in an optimizer step.
    """

    shape: Shape
    parameters: int
    adapters: int
    window: int
    batch: int
    steps: int
    card: Card
    cards: int = 1

    @property
    def tokens(self) -> int:
        """In an optimizer step, on all cards."""
        return self.batch * self.window


@dataclass(frozen=True)
class Way:
    """One way to train, on one card of several.

    context: cards that hold one window together.   load: on one card, its rows the largest that fit.
    """

    lora: bool
    recompute: bool
    context: int
    load: Load
    parts: dict[str, int]
    fits: bool
    pace: Pace

    @property
    def peak(self) -> int:
        """Bytes."""
        return sum(self.parts.values())

    @property
    def name(self) -> str:
        """As people say it."""
        words = ["LoRA" if self.lora else "full"] + ["compiled"] * self.load.compiled
        words += ["recomputed"] * self.recompute
        words += ["all but attention"] if self.load.attention_kept else []
        words += [f"tiles of {self.load.tile:,}"] if self.load.tile else []
        return ", ".join(words + ["layers' inputs on the host"] * self.load.offload)

    @property
    def spread(self) -> str:
        """How the cards share the work."""
        if self.context > 1:
            return f"parts of the weights, windows over {self.context}"
        if self.load.shards > 1:
            return "parts of the weights"
        return "whole copies" if self.load.copies > 1 else "one card"


def compiles(parameters: int, tokens: int, *, lora: bool, ranks: int) -> bool:
    """Does `finetune` compile by itself on GPUs? Where it was measured, and where it pays."""
    return not lora and ranks == 1 and tokens * parameters >= COMPILE_FROM


def way(question: Question, *, lora: bool, recompute: bool) -> Way:
    """How ``cards`` cards would do it: spread as `finetune` spreads them, with as many rows as fit."""
    q = question
    alone = Load(
        parameters=q.parameters,
        trained=q.adapters if lora else q.parameters,
        length=q.window,
        recompute=True,
        compiled=compiles(q.parameters, q.tokens * q.steps, lora=lora, ranks=q.cards),
    )
    memory = q.card.memory
    spread = choose_spread("auto", q.shape, alone, ranks=q.cards, batch=q.batch, context=None, memory=memory)
    context, load = spread.context, replace(held(alone, spread, q.cards), recompute=recompute)
    rows = q.batch * context // q.cards
    most = divisor(rows, max(1, GPU_TOKENS // load.length))
    micro = next((n for n in range(most, 0, -1) if rows % n == 0 and _fits(q, load, n)), 1)
    load = replace(load, rows=micro)
    if recompute:
        load = saved(q.shape, load, q.card.memory, context)
    return Way(
        lora=lora,
        recompute=recompute,
        context=context,
        load=load,
        parts=parts(q.shape, load),
        fits=fits(q.shape, load, q.card.memory),
        pace=pace(q.shape, load, q.card, window=q.window, tokens=q.tokens / q.cards),
    )


def _fits(q: Question, load: Load, rows: int) -> bool:
    return fits(q.shape, replace(load, rows=rows), q.card.memory)


def ways(question: Question) -> list[Way]:
    """Full and LoRA, each with activations kept and computed again."""
    return [
        way(question, lora=lora, recompute=recompute) for lora in (False, True) for recompute in (False, True)
    ]


def chosen(found: list[Way], lora: bool) -> Way:
    """What `finetune` would do by itself: keep activations where they fit, else compute them again."""
    keep, again = (one for one in found if one.lora == lora)
    return keep if keep.fits else again


def fewest_cards(question: Question, lora: bool) -> int | None:
    """The least number of cards, 1, 2, 4 …, on which it fits, activations computed again; None: none."""
    cards = 1
    while cards <= MOST_CARDS:
        if way(replace(question, cards=cards), lora=lora, recompute=True).fits:
            return cards
        cards *= 2
    return None


def longest_window(question: Question, lora: bool) -> int:
    """The longest window that fits the cards asked about, activations computed again; 0 for none."""
    q = question
    trained = q.adapters if lora else q.parameters
    load = least(Load(q.parameters, trained, 1, shards=q.cards))
    return q.cards * longest(q.shape, load, q.card.memory)


def cures(question: Question, lora: bool) -> list[str]:
    """What would fit where the way asked for does not, in words."""
    q = question
    found = []
    if not lora:
        other = chosen(ways(q), lora=True)
        if other.fits:
            found.append(f"--lora ({gb(other.peak)})")
    length = longest_window(q, lora)
    if length:
        found.append(f"a window of {length:,}")
    cards = fewest_cards(q, lora)
    if cards is not None and cards > q.cards:
        found.append(f"{cards} × {q.card.name}")
    return found


def refusal(shape: Shape, load: Load, memory: int) -> str | None:
    """Why a training cannot fit a device with ``memory`` free bytes, in one line with what would; or None.

    Only what is beyond doubt is refused: the least form of it needs more than there is.
    """
    form = least(load)
    wanted = need(shape, form) + RESERVE
    if wanted <= memory:
        return None
    found = []
    length = longest(shape, form, memory)
    if length:
        found.append(f"--window {length}")
    adapters = replace(form, trained=load.parameters // 100)
    if not load.frozen and need(shape, adapters) + RESERVE <= memory:
        found.append("--lora")
    found.append("more GPUs")
    return (
        f"a window of {load.length:,} tokens needs {gb(wanted)} on one device, with one sequence at once, "
        "activations computed twice, feed-forward parts in tiles and layers' inputs on the host, and "
        f"{gb(memory)} are free; what would fit: {', '.join(found)} "
        "(`ropewalk plan` has the sum; --micro-batch 1 tries it all the same)"
    )


def as_record(one: Way, question: Question) -> dict[str, Any]:
    """For JSON."""
    q = question
    count = work(q.shape, one.load, q.window)
    return {
        "way": one.name,
        "lora": one.lora,
        "recompute": one.recompute,
        "compiled": one.load.compiled,
        "attention_kept": one.load.attention_kept,
        "tile": one.load.tile,
        "offload": one.load.offload,
        "host_bytes": host_bytes(q.shape, one.load),
        "cards": one.spread,
        "context": one.context,
        "micro_batch": one.load.rows,
        "bytes": one.parts,
        "peak_bytes": one.peak,
        "fits": one.fits,
        "operations_a_token": {
            "forward": list(count.forward),
            "backward": list(count.backward),
            "recompute": list(count.recompute),
        },
        "operations": count.total * q.tokens * q.steps,
        "seconds_a_step": one.pace.total,
        "seconds_of": asdict(one.pace),
        "seconds": one.pace.total * q.steps,
        "tokens_a_second": q.tokens / one.pace.total,
    }


def gb(size: float) -> str:
    """10^9 bytes, with one digit."""
    return f"{size / 1e9:.1f} GB"
