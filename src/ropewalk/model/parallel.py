"""One language model on several GPUs: each has the weights, and the windows are split among them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import attention
from .decoding import GREEDY, Decoding
from .lm import TransformersLM


def open_model(
    path: Path | str, device: str, dtype: str, *, name: str | None = None, compiled: bool | None = None
) -> Any:
    """The `LanguageModel` of a checkpoint on a device; "cuda:all" is every GPU of this machine."""
    if device != "cuda:all" or torch.cuda.device_count() < 2:
        single = "cuda" if device == "cuda:all" else device
        return TransformersLM(path, single, dtype, name=name, compiled=compiled)
    places = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return SplitLM([TransformersLM(path, place, dtype, name=name, compiled=compiled) for place in places])


class SplitLM:
    """`LanguageModel` over copies on several devices: every call's rows are shared out evenly.

    A row is computed by one copy alone, so results are those of one device with smaller batches. One
    thread drives each copy; their Python parts take turns, which large batches hide.
    """

    def __init__(self, copies: Sequence[TransformersLM]) -> None:
        assert copies, "no copies to split among"
        self.copies = list(copies)
        first = self.copies[0]
        self.name, self.window, self.bos, self.vocab = first.name, first.window, first.bos, first.vocab
        self.device, self.dtype = first.device, first.dtype
        self.encode, self.decode, self.describe = first.encode, first.decode, first.describe
        self.length_dependent = first.length_dependent
        for copy in self.copies:
            copy.alone, copy.kernels = False, first.kernels

    @property
    def kernels(self) -> dict[int, str]:
        """The attention kernels of the first copy."""
        return self.copies[0].kernels

    @property
    def stops(self) -> tuple[int, ...]:
        """See `LanguageModel`."""
        return self.copies[0].stops

    @property
    def compiled(self) -> bool:
        """Are the layers compiled?"""
        return self.copies[0].compiled

    def prepare(self, tokens: int) -> None:
        """See `TransformersLM.prepare`: each copy has its share of the tokens."""
        for copy in self.copies:
            copy.prepare(tokens // len(self.copies))

    def log_probs(self, windows: Tensor, scored: int) -> Tensor:
        """See `LanguageModel.log_probs`. The attention kernel is chosen on the first copy, for all."""
        with attention.kernel(self.copies[0].kernel_for(windows)):
            return self._split(windows, lambda copy, part: copy.log_probs(part, scored))

    def generate(self, prompts: Tensor, new_tokens: int, decoding: Decoding = GREEDY) -> Tensor:
        """See `LanguageModel.generate`. A prompt takes its seed along."""
        seeds = torch.tensor(decoding.seeds or (0,) * len(prompts))

        def answers(copy: TransformersLM, part: Tensor, own: Tensor) -> Tensor:
            return copy.generate(part, new_tokens, dataclasses.replace(decoding, seeds=tuple(own.tolist())))

        return self._split(prompts, answers, seeds)

    def generate_each(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, decoding: Decoding = GREEDY
    ) -> Tensor:
        """See `TransformersLM.generate_each`. A prompt takes its seed along."""
        seeds = decoding.seeds or (0,) * len(prompts)

        def answers(copy: TransformersLM, rows: Tensor) -> Tensor:
            own = dataclasses.replace(decoding, seeds=tuple(seeds[row] for row in rows))
            return copy.generate_each([prompts[row] for row in rows], new_tokens, own)

        return self._split(torch.arange(len(prompts)), answers)

    def generate_along(
        self, rows: Tensor, cuts: Sequence[int], tails: Sequence[Sequence[int]], new_tokens: int
    ) -> Tensor:
        """See `TransformersLM.generate_along`."""
        return self._split(rows, lambda copy, part: copy.generate_along(part, cuts, tails, new_tokens))

    def log_probs_along(
        self, rows: Tensor, cuts: Sequence[int], tails: Sequence[Sequence[int]], options: Tensor
    ) -> Tensor:
        """See `TransformersLM.log_probs_along`."""

        def compute(copy: TransformersLM, part: Tensor, own: Tensor) -> Tensor:
            return copy.log_probs_along(part, cuts, tails, own)

        return self._split(rows, compute, options)

    def _split(self, rows: Tensor, compute: Callable[..., Tensor], *beside: Tensor) -> Tensor:
        """Every copy computes its rows; ``beside``: tensors of which it gets the same rows."""
        for copy in self.copies:  # one after the other: loading weights is not for threads
            copy.ready()
        parts = [
            [part for part in torch.tensor_split(one, len(self.copies)) if len(part)]
            for one in (rows, *beside)
        ]
        with ThreadPoolExecutor(len(parts[0])) as pool:
            return torch.cat(list(pool.map(compute, self.copies, *parts)))
