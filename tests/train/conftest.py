"""What the tests of training share: a tiny model and some text."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_llama import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def texts(tmp_path_factory) -> Path:
    """Forty short documents, 6,000 characters in all."""
    import json

    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    lines = [
        json.dumps({"text": f"Document {i}. " + f"Line of number {i * 37 % 101}. " * (2 + i % 9)})
        for i in range(40)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
