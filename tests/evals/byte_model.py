"""A language model of bytes for tests: its answers and its log-probabilities are plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class ByteModel:
    """Tokens are bytes. ``answer(prompt)`` is what it says; ``log_p(before, token)`` what it believes."""

    name, vocab, device, dtype = "bytes", 257, "cpu", "float32"
    stops: tuple[int, ...] = ()

    def __init__(
        self,
        answer: Callable[[str], str] = lambda prompt: "",
        log_p: Callable[[Sequence[int], int], float] = lambda before, token: -5.0,
        window: int = 8192,
        bos: int | None = 256,
    ) -> None:
        self.answer, self.log_p, self.window, self.bos = answer, log_p, window, bos
        self.calls: list[tuple[int, ...]] = []
        self.decodings: list[Any] = []

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def log_probs(self, windows: Tensor, scored: int) -> Tensor:
        assert 1 <= scored < windows.shape[1]
        self.calls.append(tuple(windows.shape))
        rows = windows.tolist()
        start = windows.shape[1] - scored
        return torch.tensor([[self.log_p(r[:i], r[i]) for i in range(start, len(r))] for r in rows])

    def generate(self, prompts: Tensor, new_tokens: int, decoding: Any = None) -> Tensor:
        self.calls.append(tuple(prompts.shape))
        self.decodings.append(decoding)
        answers = [self.encode(self.answer(self.decode(ids))) for ids in prompts.tolist()]
        return torch.tensor([(ids + [10] * new_tokens)[:new_tokens] for ids in answers])

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "window": self.window}
