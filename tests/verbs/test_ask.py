"""ask: piped, asked by flags, and typed; beside another model; and what is said about the window."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from tiny_checkpoints import edit, gguf, llama

from ropewalk.cli import main
from ropewalk.verbs.ask import ask
from ropewalk.verbs.extend import extend

SHORT = {"new_tokens": 4}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = llama(tmp_path / "short", eos_token_id=None)
    edit(source / "generation_config.json", eos_token_id=None)
    extend(str(source), str(tmp_path / "long"), to=256)
    return tmp_path / "long"


@pytest.fixture
def document(tmp_path: Path) -> Path:
    file = tmp_path / "document.txt"
    file.write_text("The key is 7. " * 6)
    return file


def test_each_question_is_asked_by_itself_of_both_models(model, document, capsys):
    both = ask(
        str(model), file=document, question=("Which?", "What?"), beside=str(model.parent / "short"), **SHORT
    )
    alone = ask(str(model), file=document, question=("What?",), **SHORT)
    assert [one["question"] for one in both["asked"]] == ["Which?", "What?"]
    assert [found["model"] for found in both["asked"][1]["answers"]] == ["long", "short"]
    assert both["asked"][1]["answers"][0]["answer"] == alone["asked"][0]["answers"][0]["answer"]
    assert both["asked"][1]["answers"][0]["kept_tokens"] > 80
    long, short = both["asked"][0]["answers"]
    assert long["inside"] and not short["inside"]
    shown = capsys.readouterr().out
    size = short["prompt_tokens"]
    assert f"! the text leaves the window: {size} of 64 tokens" in shown
    assert f"({size + 4} of 256 tokens)" in shown and "of 256 tokens)" in shown


def test_an_answer_that_crosses_the_window_is_told(model, capsys):
    ask(str(model.parent / "short"), question=("a" * 60,), new_tokens=8)
    shown = capsys.readouterr().out
    assert "the answer left the window: 69 of 64 tokens" in shown and "the text leaves" not in shown


def test_lines_on_standard_input_are_questions(model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\ntwo\n"))
    found = ask(str(model), **SHORT)
    assert [one["question"] for one in found["asked"]] == ["one", "two"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_it_is_a_conversation_that_an_empty_line_ends(model, monkeypatch, capsys):
    typed = iter(["ab", "cd", ""])
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    found = ask(str(model), **SHORT)["asked"]
    first, second = (one["answers"][0] for one in found)
    assert len(found) == 2
    assert second["prompt_tokens"] >= first["prompt_tokens"] + len("cd\n")
    assert second["kept_tokens"] >= first["prompt_tokens"]


def test_a_gguf_file_is_asked_and_nothing_stays_behind(tmp_path, capsys):
    file = gguf(tmp_path / "m.gguf", scaling=2.0)
    found = ask(str(file), question=("abc",), **SHORT)
    assert found["asked"][0]["answers"][0]["window"] == 64
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_the_json_stands_alone_and_the_answer_streams_to_standard_error(model, monkeypatch, capsys):
    import ropewalk.console

    monkeypatch.setattr(ropewalk.console, "_stream", None)
    assert main(["--json", "ask", str(model), "--question", "abc", "--new-tokens", "4"]) == 0
    shown = capsys.readouterr()
    answer = json.loads(shown.out)["asked"][0]["answers"][0]["answer"]
    assert answer and answer in shown.err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--file", "no.txt"], "no.txt cannot be read"),
        (["--file", "bytes.txt"], "not UTF-8"),
        (["--file", "empty.txt"], "is empty"),
        (["--new-tokens", "0"], "at least 1"),
        (["--temperature", "-1"], "temperature is -1"),
        (["--question", " "], "question is empty"),
        (["--device", "tpu"], "auto, cpu or cuda"),
        (["--beside", "nowhere"], "no such model"),
        ([], "no question"),
    ],
)
def test_a_users_fault_is_one_line(model, words, part, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    Path("bytes.txt").write_bytes(b"\xff\xfe\xff")
    Path("empty.txt").write_text("\n")
    assert main(["ask", str(model), *words]) == 2
    shown = capsys.readouterr().err
    assert part in shown and shown.count("\n") == 1
