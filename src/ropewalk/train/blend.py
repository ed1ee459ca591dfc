"""A share of the weights it began with in what a training leaves: it forgets less of what it could do.

Between the model as it was and the tuned one, on the straight line from weights to weights, lie models that
do the new task nearly as well as the tuned one and the old ones nearly as well as the first (WiSE-FT,
Wortsman et al. 2022, arXiv 2109.01903):

    w = share · w_start + (1 - share) · w_tuned

Fine-tuned on books, a model that is asked for a passkey goes on with prose at some distances instead of
giving the key, and reads past its window all the same (dev/LOG.md, entry 57).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..model.load import load_model


@torch.no_grad()
def blend(model: Any, start: Path, share: float) -> None:
    """Mix ``share`` of the weights of the checkpoint ``start``, 0 to 1, into those of ``model``, in place.

    model: float32, whole, of the same classes as the checkpoint's.  A share of 0 changes nothing.
    """
    if not share:
        return
    before = dict(load_model(start).named_parameters())
    for name, parameter in model.named_parameters():
        parameter.lerp_(before[name].to(parameter.device), share)
