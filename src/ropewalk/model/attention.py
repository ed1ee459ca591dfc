"""Which attention kernel a model's forward pass really runs on, measured instead of believed."""

from __future__ import annotations

import contextlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from torch.nn import attention as sdpa
from torch.nn.attention import SDPBackend, sdpa_kernel

KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""Kernels behind torch's scaled_dot_product_attention. "torch" stands for its own choice among them."""

FLASH_4 = "flash4"
"""FlashAttention 4 (the package flash-attn-4), which torch lets take the place of its flash kernel.

From 4.0.0b20 on its forward gives four values and more where torch 2.11 to 2.13 unpack two: it then fails
in the trial and is left out. The extra ``flash4`` pins one that works.
"""

CLOSE = 0.05
"""A kernel is right when its hidden states differ from torch's choice by at most this share of their norm,
or by at most twice what another kernel's do: past its window a model makes much of the order of a sum."""


@contextlib.contextmanager
def kernel(name: str) -> Iterator[None]:
    """Inside, attention runs on this kernel or fails: nothing else is allowed, so that is what runs."""
    if name == "torch":
        yield
        return
    if name == FLASH_4:
        sdpa.activate_flash_attention_impl("FA4")
        try:
            with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
                yield
        finally:
            sdpa.restore_flash_attention_impl()
        return
    with sdpa_kernel([KERNELS[name]]):
        yield


def available() -> list[str]:
    """The names of the kernels that can be tried here: those of torch, and another package's if installed."""
    found = list(KERNELS)
    with contextlib.suppress(Exception):  # looking for it imports what it lies in, which may be broken
        if hasattr(sdpa, "activate_flash_attention_impl") and importlib.util.find_spec("flash_attn.cute"):
            found.append(FLASH_4)
    return found


def fastest(run: Callable[[], torch.Tensor]) -> tuple[str, dict[str, float]]:
    """Try each kernel on a real forward pass: (the fastest that gives the right result, seconds of each).

    run: computes hidden states (B, T, hidden) on the model's own GPU. A kernel that cannot run this model
    (a dense mask, an odd head size, an old GPU) is left out; torch's own choice always stands.
    """
    expected = run().float()
    seconds, off = {"torch": _time(run)}, {"torch": 0.0}
    for name in available():
        try:
            with kernel(name), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a kernel that refuses warns of each of its reasons
                off[name] = float((run().float() - expected).norm() / expected.norm())
                seconds[name] = _time(run)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if name != FLASH_4 and not isinstance(error, RuntimeError):
                raise
            off.pop(name, None)  # "No available kernel", or the kernel's own refusal
    right = {name: seconds[name] for name in off if _right(name, off)}
    return min(right, key=lambda name: right[name]), right


def _right(name: str, off: dict[str, float]) -> bool:
    """Is a kernel's difference to torch's choice that of rounding? off: of each kernel, some exactly zero."""
    another = min((error for other, error in off.items() if other != name and error > 0), default=0.0)
    return off[name] <= max(CLOSE, 2 * another)


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
