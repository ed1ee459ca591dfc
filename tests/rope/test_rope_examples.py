"""The examples in the docstrings of rope/ give what they say; the theory runs without torch."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["frequencies", "interpolate", "rotate"])
def test_the_examples_give_what_they_say(name):
    module = importlib.import_module(f"ropewalk.rope.{name}")
    import torch

    outcome = doctest.testmod(module, extraglobs={"torch": torch})
    assert outcome.attempted > 0 and outcome.failed == 0


def test_bounds_and_scores_import_no_torch():
    code = "import sys, ropewalk.rope.bounds, ropewalk.rope.scores; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
