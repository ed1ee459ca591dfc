"""The examples in docstrings are what the code gives."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import ropewalk

SOURCE = Path(ropewalk.__file__).parent
WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_the_examples_of_a_module_are_true(path: Path) -> None:
    name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    failed, tried = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert tried > 0 and failed == 0
