"""Settings that cannot be, said in one line before any weights load."""

from __future__ import annotations

from ..errors import UserError


def at_least(least: int, evaluation: str, **values: int | None) -> None:
    """Raises UserError for the first of ``values`` below ``least``; None is a default and passes."""
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"{evaluation}.{name} is {value}; give {least} or more")
