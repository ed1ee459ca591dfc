"""Where a model is computed, and in which precision."""

from __future__ import annotations

import re

from ..errors import UserError


def choose_device(device: str, dtype: str, several: bool = False) -> tuple[str, str]:
    """(device, dtype) with "auto" resolved: a GPU in bfloat16 where there is one, else the CPU in float32.

    several: is "cuda:all" allowed, every GPU of this machine?
    Raises UserError for a device that is not there.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+|:all)?" if several else r"cpu|cuda(:\d+)?", device):
        raise UserError(
            f"device is {device!r}; give cpu, cuda or cuda:NUMBER{', or cuda:all' if several else ''}"
        )
    if device.startswith("cuda"):
        number = int(device.removesuffix(":all").partition(":")[2] or 0)
        if number >= torch.cuda.device_count():
            raise UserError(
                f"device {device} is not there: this machine has {torch.cuda.device_count()} GPUs; give cpu"
            )
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return device, dtype


def device_name(device: str) -> str:
    """What a device is: "cpu", or the GPU's own name (with "cuda:all", how many there are)."""
    if device == "cpu":
        return device
    import torch

    name = torch.cuda.get_device_name(device.removesuffix(":all"))
    return f"{torch.cuda.device_count()} × {name}" if device == "cuda:all" else name


def is_out_of_memory(error: BaseException) -> bool:
    """Is an error that torch or Python raised one of memory, whatever it calls itself?"""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return any(s in text for s in ("can't allocate memory", "CUDNN_STATUS_ALLOC_FAILED", "ALLOC_FAILED"))
