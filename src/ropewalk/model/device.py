"""Where a model is computed, and in which precision."""

from __future__ import annotations

import re

from ..errors import UserError


def choose_device(device: str, dtype: str) -> tuple[str, str]:
    """(device, dtype) with "auto" resolved: a GPU in bfloat16 where there is one, else the CPU in float32.

    Raises UserError for a device that is not there.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(f"device is {device!r}; give cpu, cuda or cuda:NUMBER")
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {device} is not there: this machine has {torch.cuda.device_count()} GPUs; give cpu"
        )
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return device, dtype


def device_name(device: str) -> str:
    """What a device is: "cpu", or the GPU's own name."""
    if device == "cpu":
        return device
    import torch

    return torch.cuda.get_device_name(device)
