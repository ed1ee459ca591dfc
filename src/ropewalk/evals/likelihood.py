"""log p(continuation | context) for many pairs of different lengths, through `LanguageModel.log_probs`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from ..errors import UserError
from ..model.lm import LanguageModel

Pair = tuple[list[int], list[int]]
"""(tokens of the context, BOS included; tokens of the continuation), both not empty."""

Job = tuple[tuple[int, ...], int]
"""(the tokens that fit, how many of the last are scored)."""

TOKENS = 1 << 14
"""Tokens in one batch of windows; the model cuts it further where memory asks for it."""


def encode_pair(lm: LanguageModel, context: str, continuation: str) -> Pair:
    """Tokens of a context and of what follows it, split as lm-eval splits them.

    The whole text is encoded at once and cut behind the context's own tokens; white space that ends the
    context goes to the continuation. A context that is empty is the BOS.
    Raises ValueError when nothing is left to stand in front of the continuation.
    """
    kept = context.rstrip()
    start = [] if lm.bos is None else [lm.bos]
    before = start + (lm.encode(kept) if kept else [])
    whole = start + lm.encode(context + continuation)
    if not before:
        raise ValueError("an empty context, and a model that has no BOS")
    if len(whole) <= len(before):
        raise ValueError(f"no token left for the continuation {continuation!r}")
    return before, whole[len(before) :]


def log_likelihoods(lm: LanguageModel, pairs: Sequence[Pair], window: int | None = None) -> list[float]:
    """Sum of log p over each continuation's tokens, nats, in the pairs' order.

    Pairs are sorted by length and batched; the shorter ones of a batch are filled up on the right, which
    a causal model cannot see; but not where the rotations follow the length of the call. Equal pairs are
    computed once. A pair longer than ``window`` (tokens; the model's own by default) loses its beginning.
    """
    limit = lm.window if window is None else window
    cut = [_cut(pair, limit) for pair in pairs]
    found: dict[Job, float] = {}
    prepare = getattr(lm, "prepare", None)
    if prepare is not None:
        prepare(0)  # windows of many lengths
    even = getattr(lm, "length_dependent", False)
    for batch in _batches(sorted(set(cut), key=lambda job: (len(job[0]), job)), even):
        longest = len(batch[-1][0])
        windows = torch.tensor([ids + (0,) * (longest - len(ids)) for ids, _ in batch])
        rows = max(longest - len(ids) + scored for ids, scored in batch)
        log_p = lm.log_probs(windows, rows).double()
        for row, (ids, scored) in zip(log_p, batch):
            end = rows - (longest - len(ids))
            found[ids, scored] = value = float(row[end - scored : end].sum())
            if not math.isfinite(value):
                raise UserError(
                    f"{lm.name} gives a log-likelihood of {value} in {lm.dtype}; try --dtype float32, else "
                    "its weights are broken"
                )
    return [found[pair] for pair in cut]


def _batches(jobs: Sequence[Job], even: bool) -> Iterator[list[Job]]:
    """Consecutive jobs, sorted by length, at most `TOKENS` tokens together; ``even``: of one length alone."""
    batch: list[Job] = []
    for job in jobs:
        full = len(job[0]) * (len(batch) + 1) > TOKENS
        if batch and (full or (even and len(job[0]) != len(batch[0][0]))):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _cut(pair: Pair, limit: int) -> Job:
    ids = tuple(pair[0] + pair[1])[-limit:]
    return ids, min(len(pair[1]), len(ids) - 1)
