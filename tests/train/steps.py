"""Something that happens when a given optimizer step is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ropewalk.train.trainer import Watch


def after_step(monkeypatch: Any, step: int, action: Callable[[], Any]) -> None:
    """Let ``action`` happen behind optimizer step ``step``, before anything of it is saved."""
    real = Watch.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == step:
            action()
        real(self, args, state, control, **more)

    monkeypatch.setattr(Watch, "on_step_end", on_step_end)
