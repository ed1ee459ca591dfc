"""Write docs/cli.md and docs/api.md from the code: flags from the settings, the rest from docstrings.

    python docs/reference.py            write them
    python docs/reference.py --check    exit 1 when one is not in step (the test suite calls this)

The settings classes are imported, which is quick; all else is read without being run.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
from pathlib import Path
from typing import get_type_hints

from ropewalk.cli import EXIT_CODES, VERBS
from ropewalk.settings import parser

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "ropewalk"
PUBLIC = {
    "rope": ("The maths of positions: pure functions of tensors and numbers.", ("*",)),
    "metrics": ("The arithmetic of scores: pure functions of numbers.", ("*",)),
    "evals": (
        "What each evaluation can be told: `evaluate --set EVALUATION.SETTING=VALUE`, or `run(lm, settings, "
        "cells)` of the module.",
        ("*",),
    ),
    "data": (
        "Text to token windows, and the prompts of the synthetic tests.",
        ("windows", "passkey", "text"),
    ),
    "results": ("Results files.", ("record", "collection", "cells")),
    "model": ("Checkpoints on disk and in memory.", ("load", "lm", "swap", "source")),
}
"""Packages of the API page, in its order: what they are, and their modules that people use."""
SETTINGS_ALONE = ("evals",)
"""Packages of whose modules the settings classes are shown, and how they are run is not."""
MADE = "<!-- written by docs/reference.py; change the code instead -->"


def cli_page() -> str:
    """Every verb with its flags, defaults and example; the exit codes."""
    parts = [
        f"# Command line\n\n{MADE}",
        "`ropewalk VERB -h` prints the same. Every verb is also a Python function, `ropewalk.VERB(...)`, "
        "whose arguments are the flags with `_` for `-`.",
        "`ropewalk --json VERB ...` prints the result as JSON on standard output and human text on standard "
        "error. Colours and moving lines appear on a terminal only.",
        "## Exit codes\n\n" + table(("code", "meaning"), [(str(k), text) for k, text in EXIT_CODES.items()]),
        "## Verbs\n\n"
        + table(("verb", "what it does"), [(f"[`{v}`](#{v})", text) for v, text in VERBS.items()]),
        *(verb_part(name) for name in VERBS),
    ]
    return "\n\n".join(parts) + "\n"


def verb_part(name: str) -> str:
    """One verb's section."""
    module = importlib.import_module(f"ropewalk.verbs.{name}")
    settings = getattr(module, name).settings
    rows = []
    for action in parser(settings, f"ropewalk {name}", module.EXAMPLE)._actions:
        if action.dest == "help":
            continue
        flag = ", ".join(f"`{one}`" for one in action.option_strings) or f"`{action.metavar}`"
        values = f" `{action.metavar}`" if action.option_strings and action.metavar else ""
        rows.append((flag + values, action.help.replace("%%", "%")))
    extra = [f.name for f in dataclasses.fields(settings) if get_type_hints(settings)[f.name] is dict]
    example = "\n".join(line.strip() for line in module.EXAMPLE.splitlines())
    parts = [
        f"## {name}",
        f"{inspect.getdoc(settings)}",
        f"```sh\n{example}\n```",
        table(("flag", "meaning"), rows),
    ]
    return "\n\n".join(parts + ([f"From Python and recipes only: {', '.join(extra)}."] if extra else []))


def api_page() -> str:
    """Public functions and classes of each package, with signature and docstring."""
    parts = [
        f"# Python API\n\n{MADE}",
        "The verbs are functions of the package: `ropewalk.extend(...)` and so on, see [cli.md](cli.md). "
        "Beneath them lie these. Imports go down only: cli, verbs, train and evals, model and data and "
        "results, rope and metrics.",
    ]
    for package, (about, modules) in PUBLIC.items():
        parts.append(f"## ropewalk.{package}\n\n{about}")
        for path in sorted((SOURCE / package).glob("*.py")):
            if path.stem != "__init__" and (modules == ("*",) or path.stem in modules):
                found = module_part(path, f"ropewalk.{package}.{path.stem}", package in SETTINGS_ALONE)
                parts += found if len(found) > 1 else []
    return "\n\n".join(parts) + "\n"


def module_part(path: Path, name: str, settings_alone: bool) -> list[str]:
    """A module's own words, then each public function and class (or settings class) that has a docstring."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = [f"### {name}\n\n{ast.get_docstring(tree)}"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if settings_alone and not node.name.endswith("Settings"):
                continue
            words = ast.get_docstring(node)
            if words:
                parts.append(f"```text\n{signature(node)}\n```\n\n{quoted(words)}")
    return parts


def signature(node: ast.FunctionDef | ast.ClassDef) -> str:
    """``def name(arguments) -> result``, or a class with its annotated fields."""
    if isinstance(node, ast.FunctionDef):
        result = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"def {node.name}({ast.unparse(node.args)}){result}"
    fields = [ast.unparse(one) for one in node.body if isinstance(one, ast.AnnAssign)]
    return "\n    ".join([f"class {node.name}:", *fields])


def quoted(words: str) -> str:
    """A docstring as Markdown shows it, line by line: its examples and tables keep their columns."""
    return f"```text\n{words}\n```" if "\n" in words else words.replace("<", "&lt;")


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    stale = []
    for name, text in (("cli.md", cli_page()), ("api.md", api_page())):
        path = ROOT / "docs" / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(f"docs/{name}")
            if "--check" not in sys.argv[1:]:
                path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv[1:] and stale:
        print(f"not in step with the code: {', '.join(stale)}; run python docs/reference.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
