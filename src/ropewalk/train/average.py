"""The mean of the weights over a training's last steps: less noise than any one of them.

With a rate that stays high the weights circle around where they are going, and the mean of many points of
the circle lies nearer to its middle (stochastic weight averaging, Izmailov et al. 2018, arXiv 1803.05407).
The training itself is not changed by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .sharding import whole

FILE = "average.pt"
"""In a training's checkpoint: the mean so far and of how many it is."""

MOST = 50
"""Points whose mean is taken, at most, evenly over the last steps: each costs a copy to the host."""


class Average:
    """The mean of a model's trained weights, float32, in the host's memory.

    model: in training, spread over ranks or not.   steps: of the training.   share: of them, the last ones.
    keep: does this rank hold the mean? All must call `note`, since spread weights are gathered in it.

    >>> [step for step in range(1, 11) if Average(None, steps=10, share=0.3, keep=True).takes(step)]
    [8, 9, 10]
    """

    def __init__(self, model: Any, *, steps: int, share: float, keep: bool) -> None:
        last = max(1, round(share * steps))
        self._model, self._keep = model, keep
        self._steps, self._first, self._every = steps, steps - last, -(-last // MOST)
        self._count = 0
        self._mean: dict[str, Tensor] = {}

    def takes(self, step: int) -> bool:
        """Are the weights behind this step among those whose mean is taken?"""
        return step > self._first and (self._steps - step) % self._every == 0

    def note(self, step: int) -> None:
        """Take in the weights as they are behind ``step``, if they are among them."""
        if not self.takes(step):
            return
        self._count += 1
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            value = whole(parameter.detach())
            if self._keep:
                mean = self._mean.setdefault(name, torch.zeros(value.shape))
                mean.add_(value.to("cpu", torch.float32) - mean, alpha=1 / self._count)

    def save(self, directory: Path) -> None:
        """Write it into a checkpoint."""
        torch.save({"count": self._count, "mean": self._mean}, directory / FILE)

    def restore(self, directory: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(directory / FILE, map_location="cpu", weights_only=True)
        self._count = int(state["count"])
        self._mean = dict(state["mean"]) if self._keep else {}

    @torch.no_grad()
    def apply(self, model: Any) -> None:
        """Put the mean in the place of the weights of ``model``, which is whole."""
        assert self._count, "no step was noted"
        for name, parameter in model.named_parameters():
            if name in self._mean:
                parameter.copy_(self._mean[name])
