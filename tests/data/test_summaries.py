import json

import pytest

from ropewalk.data.summaries import prompt_ids, read_summaries
from ropewalk.errors import UserError


def encode(text):
    return list(text.encode())


def test_the_prompt_is_the_papers_around_the_document():
    ids = prompt_ids(encode("Rope."), 4096, encode=encode, bos=None)
    assert bytes(ids).decode() == (
        "Read the following article and then summarize it.\nRope.\nNow summarize the above article.\nSummary:"
    )


@pytest.mark.parametrize("bos", [None, 1])
def test_a_document_too_long_is_cut_to_the_exact_length(bos):
    ids = prompt_ids(encode("Rope is " + "x" * 500), 200, encode=encode, bos=bos)
    assert len(ids) == 200
    assert b"summarize it.\nRope is x" in bytes(ids)
    assert bytes(ids[-50:]).decode().endswith("x\nNow summarize the above article.\nSummary:")


def test_no_room_for_the_document_is_an_error():
    with pytest.raises(ValueError, match="the prompt alone has 92 tokens"):
        prompt_ids(encode("x"), 91, encode=encode, bos=None)


def test_two_columns_are_read_and_rows_without_either_left_out(tmp_path):
    rows = [{"a": "long", "b": "short"}, {"a": "", "b": "x"}, {"a": "y", "b": None}]
    path = tmp_path / "s.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (one,) = read_summaries(str(path), ("a", "b"))
    assert (one.document, one.summary) == ("long", "short")
    with pytest.raises(UserError, match=r"--set 'summarization\.columns=\["):
        read_summaries(str(path))
    with pytest.raises(UserError, match="no column 'c'"):
        read_summaries(str(path), ("a", "c"))
