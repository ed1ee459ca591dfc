"""Which attention kernel a model's forward pass really runs on, measured instead of believed."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""Kernels behind torch's scaled_dot_product_attention. "torch" stands for its own choice among them."""

CLOSE = 0.05
"""A kernel is right when its hidden states differ from torch's choice by at most this share of their norm."""


@contextlib.contextmanager
def kernel(name: str) -> Iterator[None]:
    """Inside, attention runs on this kernel or fails: nothing else is allowed, so that is what runs."""
    if name == "torch":
        yield
        return
    with sdpa_kernel([KERNELS[name]]):
        yield


def fastest(run: Callable[[], torch.Tensor]) -> tuple[str, dict[str, float]]:
    """Try each kernel on a real forward pass: (the fastest that gives the right result, seconds of each).

    run: computes hidden states (B, T, hidden) on the model's own GPU. A kernel that cannot run this model
    (a dense mask, an odd head size, an old GPU) is left out; torch's own choice always stands.
    """
    seconds: dict[str, float] = {}
    expected = run().float()
    seconds["torch"] = _time(run)
    for name in KERNELS:
        try:
            with kernel(name), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a kernel that refuses warns of each of its reasons
                found = run().float()
                if float((found - expected).norm() / expected.norm()) <= CLOSE:
                    seconds[name] = _time(run)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # "No available kernel", or the kernel's own refusal
            continue
    return min(seconds, key=lambda name: seconds[name]), seconds


def _time(run: Callable[[], torch.Tensor]) -> float:
    """The least seconds of three runs."""
    best = float("inf")
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best
