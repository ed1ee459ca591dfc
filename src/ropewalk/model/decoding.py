"""From logits to tokens: greedy or sampled answers, each prompt by its own random numbers, to its end."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .cache import keeps_all
from .ragged import Ragged


@dataclass(frozen=True)
class Decoding:
    """How an answer is chosen, token by token.

    temperature: 0 takes the likeliest token; above, tokens are drawn from softmax(logits / temperature).
    top_p: of those, only the likeliest that together have at least this probability (0 < top_p <= 1).
    seeds: one a prompt, when tokens are drawn: an answer depends on its own prompt and seed alone, not on
    the batch or its order.
    stop: token ids that end an answer; what follows one in the result is the first of them.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seeds: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()

    def uniforms(self, rows: int, new_tokens: int) -> Tensor:
        """Random numbers in [0, 1), a stream a prompt: (rows, new_tokens) float64; of no width if greedy."""
        if not self.temperature:
            return torch.empty(rows, 0)
        assert len(self.seeds) == rows, f"{len(self.seeds)} seeds for {rows} prompts"
        draws = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        return torch.stack([torch.rand(new_tokens, generator=d, dtype=torch.float64) for d in draws])


GREEDY = Decoding()


def pick(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """One token a row by inversion: the tokens by falling probability, cut at ``top_p``, the u-quantile.

    logits: (B, V).  uniforms: (B,) in [0, 1).  temperature: > 0.  Returns (B,) token ids.
    """
    likely, order = (logits.float() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    total = likely.double().cumsum(-1)
    kept = total - likely < top_p  # the token that crosses top_p is the last one kept
    mass = (likely * kept).double().sum(-1)
    at = torch.searchsorted(total, (uniforms * mass)[:, None], right=True)
    return order.gather(-1, at.minimum(kept.sum(-1, keepdim=True) - 1))[:, 0]


def answer(
    model: Any,
    ids: Tensor,
    cache: Any,
    new_tokens: int,
    decoding: Decoding,
    uniforms: Tensor,
    reading: contextlib.AbstractContextManager[None],
    ragged: Ragged | None = None,
) -> Tensor:
    """The tokens that ``model`` says after what is in the cache and ``ids``.

    ids: (B, T), T >= 1.  uniforms: (B, new_tokens), see `Decoding.uniforms`.  Returns (B, new_tokens).
    ragged: when the rows have prompts of different lengths in the cache; ids are then (B, 1).
    reading: entered while ``ids`` are read (an attention kernel), not for the single tokens after them.
    A row that has stopped is taken out of the batch, where the cache allows it; when all have, that is all.
    Unless rows stop, the cache grows by T + new_tokens − 1.
    """
    stops = torch.tensor(decoding.stop, device=ids.device)
    found = ids.new_full((len(ids), new_tokens), decoding.stop[0] if decoding.stop else 0)
    rows = torch.arange(len(ids), device=ids.device)
    done = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    shrinks = keeps_all(cache)
    uniforms = uniforms.to(ids.device)
    for step in range(new_tokens):
        beside = keep(model, 1) | (ragged.arguments(cache.get_seq_length()) if ragged else {})
        with reading if step == 0 else contextlib.nullcontext():
            out = model(input_ids=ids, past_key_values=cache, use_cache=True, **beside)
        logits = out.logits[:, -1]
        if step == 0 and bool(logits.isnan().any()):  # argmax would answer with a token all the same
            raise UserError(
                f"the model answers with numbers that are not finite, in {str(logits.dtype)[6:]}; "
                "try --dtype float32, else its weights are broken"
            )
        if decoding.temperature:
            tokens = pick(logits, uniforms[rows, step], decoding.temperature, decoding.top_p)
        else:
            tokens = logits.argmax(-1)
        found[rows, step] = torch.where(done, found[rows, step], tokens)
        if decoding.stop:
            done |= torch.isin(tokens, stops)
            if done.all():
                break
            if shrinks and done.any():
                going = (~done).nonzero()[:, 0]
                cache.batch_select_indices(going)
                if ragged:
                    ragged.select(going)
                rows, tokens, done = rows[going], tokens[going], done[going]
        ids = tokens[:, None]
    return found


def keep(model: Any, rows: int) -> dict[str, Any]:
    """The argument by which only the last ``rows`` logits are computed, where the model takes one."""
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": rows} if takes else {}


def shared_start(rows: Sequence[Tensor]) -> int:
    """How many first tokens are the same in all of some token sequences (T,)."""
    length = min(len(row) for row in rows)
    same = torch.ones(length, dtype=torch.bool)
    for row in rows[1:]:
        same &= row[:length] == rows[0][:length]
    return length if bool(same.all()) else int(same.int().argmin())


def beginnings(rows: Tensor, cuts: Sequence[int], tails: Sequence[Sequence[int]]) -> list[Tensor]:
    """The first c tokens of each row and a tail, for every c of ``cuts``: one (B, c + len(tail)) each."""
    ends = [torch.tensor(list(tail)).expand(len(rows), -1) for tail in tails]
    return [torch.cat([rows[:, :cut], end], dim=1) for cut, end in zip(cuts, ends)]
