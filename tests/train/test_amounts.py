"""What a training says of its data before it begins: how often it is read, whether its documents are long."""

from __future__ import annotations

import json
import re

import pytest
from tiny_llama import write_tiny_model

import ropewalk


def said(tmp_path, capsys, words, documents, **more):
    """The lines on data of a training with windows of 64 tokens."""
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": "word " * words}) + "\n" for _ in range(documents)))
    common = {"steps": 2, "batch": 2, "rate": 1e-3, "device": "cpu", "data": [str(path)], **more}
    ropewalk.finetune(str(write_tiny_model(tmp_path / "tiny")), str(tmp_path / "out"), **common)
    lines = capsys.readouterr().out
    return re.sub(r"\s+", " ", lines[lines.index("data ") :])


@pytest.mark.parametrize(("words", "documents", "short"), [(3, 400, True), (400, 4, False), (2000, 1, False)])
def test_documents_far_shorter_than_the_window_are_named(tmp_path, capsys, words, documents, short):
    text = said(tmp_path, capsys, words, documents, short_share=0)
    assert ("windows of 64 join several" in text) == short
    assert ("or --repeats" in text) == short


def test_repeats_are_no_cure_where_they_are_there(tmp_path, capsys):
    text = said(tmp_path, capsys, 3, 400, repeats=1.0)
    assert "windows of 64 join several" in text and "or --repeats" not in text


def test_positions_that_skip_are_the_window_that_counts(tmp_path, capsys):
    text = said(tmp_path, capsys, 5, 400, skip_positions=32)
    assert "windows of 64 join several" in text
