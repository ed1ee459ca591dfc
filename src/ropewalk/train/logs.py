"""Where the Trainer's own logging goes: nowhere, to TensorBoard's files, or to Weights & Biases."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from .. import console
from ..errors import UserError


def prepare_logs(kind: str, out: Path) -> None:
    """Check that the package is there and choose a place and name, unless the environment names them.

    kind: none, tensorboard or wandb (the Trainer's ``report_to``). TensorBoard's files go to
    ``OUT.tensorboard/``; Weights & Biases gets a project called ropewalk and a run called like OUT.
    Raises UserError where the package is missing.
    """
    if kind == "none":
        return
    if importlib.util.find_spec(kind) is None:
        raise UserError(
            f"log-to {kind}: that package is not installed; `pip install {kind}`, or leave it out"
        )
    if kind == "tensorboard":
        place = f"{out}.tensorboard"
        if os.environ.setdefault("TENSORBOARD_LOGGING_DIR", place) == place:
            console.say(f"  logs: tensorboard --logdir {place}")
    else:
        os.environ.setdefault("WANDB_PROJECT", "ropewalk")
        os.environ.setdefault("WANDB_NAME", out.name)
