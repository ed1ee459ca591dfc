"""Is a GGUF file's header one that can be read? Every length is held against the file before gguf reads it.

gguf's own reader trusts the lengths that a file states: an array said to have 2^60 items keeps it busy for
ever, and every item becomes an object of its own. Here nothing is made, only counted.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import NoReturn

from ..errors import UserError

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type number (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md)."""
STRING, ARRAY = 8, 9
MOST_ITEMS = 8_000_000
"""Items in all arrays together; the largest vocabularies with their merges have about a million."""
MOST_KEYS = 100_000
MOST_DIMENSIONS = 4
"""As ggml has it (GGML_MAX_DIMS)."""


def check_header(path: Path) -> None:
    """Walk the header of ``path``. Raises UserError: cut off, broken, or larger than any model's."""
    if path.stat().st_size < 24:
        raise UserError(f"{path} is cut off, or not a GGUF file: it has {path.stat().st_size:,} bytes")
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        _Walk(path, data).all()


class _Walk:
    """A place in the header that only moves forward, and never past the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.items = path, data, 4, 0
        self.order = "<"

    def all(self) -> None:
        if self.data[:4] != b"GGUF":
            self.broken("it does not begin with GGUF")
        version = self.number("I")
        if version & 0xFFFF == 0:  # written on a big-endian machine
            self.order, version = ">", struct.unpack(">I", self.data[4:8])[0]
        if version not in (2, 3):
            self.broken(f"its version is {version}, and 2 and 3 can be read")
        tensors, keys = self.number("Q"), self.number("Q")
        for name, count in (("tensors", tensors), ("keys", keys)):
            if count > MOST_KEYS:
                self.broken(f"it claims {count:,} {name}")
        for _ in range(keys):
            self.text()
            self.value(self.number("I"))
        for _ in range(tensors):
            self.tensor()

    def value(self, kind: int) -> None:
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            inner, count = self.number("I"), self.number("Q")
            self.items += count
            if self.items > MOST_ITEMS:
                self.broken(f"its arrays claim more than {MOST_ITEMS:,} items")
            if inner == STRING:
                for _ in range(count):
                    self.text()
            elif inner in WIDTHS:
                self.skip(count * WIDTHS[inner])
            else:
                self.broken(f"it has an array of unknown type {inner}")
        elif kind in WIDTHS:
            self.skip(WIDTHS[kind])
        else:
            self.broken(f"it has a value of unknown type {kind}")

    def tensor(self) -> None:
        self.text()
        count = self.number("I")
        if not 1 <= count <= MOST_DIMENSIONS:
            self.broken(f"it has a tensor of {count} dimensions")
        shape = [self.number("Q") for _ in range(count)]
        if not 0 < math.prod(shape) <= 16 * len(self.data):  # no type takes less than half a bit
            self.broken(f"it has a tensor of shape {' × '.join(map(str, shape))}")
        self.number("I")
        if self.number("Q") >= len(self.data):
            self.broken("it has a tensor that begins past its end")

    def text(self) -> None:
        self.skip(self.number("Q"))

    def number(self, kind: str) -> int:
        start = self.at
        self.skip(struct.calcsize(kind))
        return int(struct.unpack_from(self.order + kind, self.data, start)[0])

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise UserError(
                f"{self.path} is cut off within its header: it needs more than its {len(self.data):,} bytes; "
                "copy or download it again"
            )
        self.at += size

    def broken(self, why: str) -> NoReturn:
        raise UserError(f"{self.path} is not a GGUF file that can be read: {why}; copy or download it again")
