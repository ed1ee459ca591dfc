"""The command line: exit codes, one line for a user's fault, JSON for machines."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ropewalk import __version__, console
from ropewalk.cli import VERBS, main


def test_the_usage_names_every_verb(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"ropewalk {__version__}"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["extand"], "no verb 'extand'"),
        (["extend"], "required"),
        (["extend", "/no/such/model", "out", "--to", "many"], "not a whole number"),
        (["extend", "/no/such/model", "out", "--to", "8k"], "no such model"),
        (["report", "/no/such/results", "--out", "out"], "no results"),
        (["run", "/no/such/recipe.yaml"], "no recipe"),
        (["evaluate", "/no/such/model", "--passkey"], "no such model"),
        (["finetune", "/no/such/model", "out", "--data", "x.txt"], "no such"),
    ],
)
def test_a_users_fault_is_one_line_and_exit_code_2(words, part, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("ropewalk: ") and part in shown.err
    assert shown.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [] or all(p.name.startswith(".") for p in tmp_path.iterdir())


def test_json_stands_alone_on_standard_output(capsys, tmp_path, monkeypatch):
    import ropewalk.console

    monkeypatch.setattr(ropewalk.console, "_stream", None)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: a\nmodel: embedded\nto: 1024\nfinetune: {data: stdlib}\nevaluate: {passkey: true}\n"
    )
    assert main(["--json", "run", str(recipe), "--dry-run", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr()
    assert "evaluate a" in json.loads(shown.out)["steps"]
    assert "to do" in shown.err


def test_what_the_system_refuses_is_one_line_with_its_cure(capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["extend", "embedded", str(blocked / "below"), "--to", "1k"]) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1 and "name another" in shown


def test_every_exit_code_that_is_written_down_is_the_one_that_comes(capsys, monkeypatch):
    """0, 1 from a verb's findings, 2 for the user, 130 for Ctrl-C; 143 is tested with the training."""
    import types

    from ropewalk import cli

    def verb(outcome):
        def call(settings):
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        call.settings = Settings
        return types.SimpleNamespace(doctor=call, EXAMPLE="ropewalk doctor m")

    @dataclasses.dataclass(frozen=True)
    class Settings:
        """Nothing to set."""

    outcomes = {0: {}, 1: {"exit_code": 1}, 2: cli.UserError("no"), 130: KeyboardInterrupt()}
    assert {*outcomes, 143} == set(cli.EXIT_CODES)
    for code, outcome in outcomes.items():
        monkeypatch.setattr(cli.importlib, "import_module", lambda name, o=outcome: verb(o))
        assert main(["doctor"]) == code


def test_json_and_human_text_are_apart_and_plain_in_a_pipe(capsys, tmp_path, monkeypatch):
    import ropewalk.console

    monkeypatch.setenv("TERM", "xterm-256color")
    for words in (["extend", "embedded", str(tmp_path / "m"), "--to", "1k"], ["doctor", str(tmp_path / "m")]):
        monkeypatch.setattr(ropewalk.console, "_stream", None)
        assert main(["--json", *words]) in (0, 1)
        shown = capsys.readouterr()
        assert isinstance(json.loads(shown.out), dict)
        assert shown.err.strip() and "\x1b" not in shown.out + shown.err


def test_a_table_fits_80_columns_in_a_pipe(capsys):
    from ropewalk import console

    console.table("t" * 30, ["model", *(f"perplexity {i}" for i in range(9))], [["name" * 9, *range(9)]])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) > 3


def test_what_is_said_holds_nothing_that_commands_the_terminal(capsys):
    console.say("a\x1b[2J\rb\ud800 é\nthere")
    console.table("t\x1b[2J", ("x\ud800",), [("\x1b]0;title\x07",)])
    said = capsys.readouterr().out
    assert said.startswith("a�[2J�b� é\nthere\n")
    assert not {"\x1b", "\r", "\x07", "\ud800"} & set(said)
    assert console.Progress("\x1b[2J", 1, "windows").line().startswith("�[2J 0/1")
