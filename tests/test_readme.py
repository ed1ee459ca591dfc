"""What the README and the docs say is so: commands parse, links lead somewhere, tables are in step."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk
from ropewalk.cli import VERBS
from ropewalk.settings import parse_arguments

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("dev/*.md")])
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")


def fenced(text: str, language: str) -> str:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return "\n".join(body for name, body in blocks if name == language)


def commands() -> list[str]:
    lines = [line.split("#")[0].strip() for line in fenced(README + TUTORIAL, "sh").splitlines()]
    return [line for line in lines if line.startswith("ropewalk ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_and_the_tutorial_is_understood(command):
    verb, *words = shlex.split(command)[1:]
    function = getattr(ropewalk, verb)
    example = sys.modules[function.__module__].EXAMPLE
    parse_arguments(function.settings, words, f"ropewalk {verb}", example)


def test_the_readme_has_commands_for_the_whole_way():
    verbs = {command.split()[1] for command in commands()}
    assert {"run", "extend", "finetune", "evaluate", "report"} <= verbs
    targets = re.findall(r"^make (\w+)", fenced(README, "sh"), re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert targets == ["demo", "test"] and all(f"\n{target}:" in makefile for target in targets)


def test_every_python_call_of_the_readme_fits_its_function():
    import ast

    calls = [node for node in ast.walk(ast.parse(fenced(README, "python"))) if isinstance(node, ast.Call)]
    assert len(calls) == 4
    for call in calls:
        function = getattr(ropewalk, call.func.attr)
        arguments = [ast.literal_eval(a) for a in call.args]
        named = {k.arg: ast.literal_eval(k.value) for k in call.keywords}
        inspect.signature(function).bind(*arguments, **named)


def test_the_tutorials_recipe_is_one(tmp_path):
    from ropewalk.verbs.run import Run, read_recipe

    path = tmp_path / "recipe.yaml"
    path.write_text(fenced(TUTORIAL, "yaml"))
    recipe = read_recipe(Run(recipe=path))
    assert recipe.to == 32768 and recipe.finetune["data"] == ["texts/train.parquet"]


def shape(text: str) -> dict[str, list[str]]:
    """What two languages of one page have in common: everything that is not prose."""
    code = [line.split("#")[0].rstrip() for line in re.findall(r"^(?:make|ropewalk|import) .*$", text, re.M)]
    return {
        "headings": re.findall(r"^(#+) ", text, re.M),
        "commands": code,
        "python": fenced(text, "python").splitlines(),
        "tree": re.findall(r"^(\S+/)\s", fenced(text, ""), re.M),
        "links": re.findall(r"\]\(((?!README)[^)\s]+)\)", text),
        "verbs": re.findall(r"^\| (`\w+`) \|", text, re.M),
        "tables": [re.sub(r"[^|]", "", line) for line in text.splitlines() if line.startswith("|")],
        "names": sorted(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))),
        "figures": re.findall(r"\d[\d,.]*\d|\d", re.sub(r"<!--.*?-->", "", text)),
    }


@pytest.mark.parametrize("part", list(shape("")))
def test_the_chinese_readme_is_in_step_with_the_english_one(part):
    """Same headings, commands, code, links, tables and figures, in the same order."""
    ours, theirs = shape(README)[part], shape(CHINESE)[part]
    assert ours, part
    if part == "figures":  # word order differs between the languages; dates and sizes do not
        ours, theirs = sorted(ours), sorted(theirs)
    assert ours == theirs


def test_every_verb_is_in_the_readme_and_in_the_package():
    assert set(re.findall(r"^\| `(\w+)` \|", README, re.M)) == set(VERBS) == set(ropewalk._VERBS)


def test_the_tree_of_the_readme_stands():
    names = re.findall(r"^(\S+/)\s", fenced(README, ""), re.M)
    assert "src/ropewalk/verbs/" in names
    for name in names:
        assert (ROOT / name).is_dir(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("#"):
            assert (page.parent / target.split("#")[0]).exists(), f"{page.name}: {target}"


def test_the_reference_is_what_the_code_says():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "reference.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_tables_are_what_the_committed_results_say():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "tables.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
