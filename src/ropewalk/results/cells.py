"""Work done so far, cell by cell: an evaluation that is killed goes on from its last finished cell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..files import fingerprint


class Cells:
    """A store of finished cells in one JSON-lines file, valid for one fingerprint of inputs.

    The first line names the inputs; a file with other inputs is begun anew. A cell that was being
    written when the process died is a broken last line and is dropped.

    >>> cells = Cells(None, {})
    >>> cells.get("8192/3") is None
    True
    >>> cells.put("8192/3", {"right": 9})
    >>> cells.get("8192/3")
    {'right': 9}
    """

    def __init__(self, path: Path | None, inputs: dict[str, Any]) -> None:
        self.path = path
        self._found: dict[str, Any] = {}
        if path is None:
            return
        mark = fingerprint(inputs)
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        good = []
        for line in lines[:-1]:  # what follows the last newline was cut off
            try:
                good.append(json.loads(line))
            except ValueError:
                break
        if not good or good[0] != {"inputs": mark}:
            good = [{"inputs": mark}]
        for entry in good[1:]:
            self._found[entry["cell"]] = entry["value"]
        self._first: list[Any] | None = good  # written with the first cell: nothing done, nothing left

    def __len__(self) -> int:
        return len(self._found)

    def get(self, cell: str) -> Any | None:
        """The value of a finished cell, else None."""
        return self._found.get(cell)

    def put(self, cell: str, value: Any) -> None:
        """Keep a finished cell, on the disk before this returns."""
        self._found[cell] = value
        if self.path is None:
            return
        if self._first is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = _new(self.path)
            beside.write_text("".join(json.dumps(entry) + "\n" for entry in self._first))
            os.replace(beside, self.path)
            self._first = None
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"cell": cell, "value": value}, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        """Drop the file: the result is complete."""
        if self.path is not None:
            drop_cells(self.path)


def drop_cells(path: Path) -> None:
    """Remove a store and what a kill left of it; nothing to do where there is none."""
    path.unlink(missing_ok=True)
    _new(path).unlink(missing_ok=True)


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")
