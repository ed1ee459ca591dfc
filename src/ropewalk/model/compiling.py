"""torch.compile so that it helps where it can and harms nowhere."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Inside, layers that cannot be compiled (no C compiler) run as they are.

    What was compiled before is not looked up by its Python code: that leaves out which attention kernel was
    asked for.
    """
    loud = logging.getLogger("torch._higher_order_ops")  # warns of checkpoints that keep something
    level = loud.level
    loud.setLevel(logging.ERROR)
    try:
        with (
            torch._functorch.config.patch(enable_autograd_cache=False),
            torch._dynamo.config.patch(suppress_errors=True),
        ):
            yield
    finally:
        loud.setLevel(level)


def compiled() -> bool:
    """Has anything been compiled in this process?"""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
