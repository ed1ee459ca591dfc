"""The table of verbs; nothing else. A verb's module is imported when it is called, torch when it works."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from . import __version__, console
from .errors import UserError
from .files import to_json
from .settings import parse_arguments
from .starving import cured, told

VERBS = {
    "demo": "the whole way on the embedded model, on this machine, in minutes",
    "run": "walk a recipe: extend, fine-tune, evaluate, report; skips what is done",
    "plan": "memory, time and tokens of a fine-tuning before a GPU is rented",
    "extend": "checkpoint of window L -> checkpoint of window L' (config only, same weights)",
    "finetune": "short training at the new window",
    "evaluate": "perplexity, passkey and more of one checkpoint -> results",
    "sweep": "methods × factors without training, ranked",
    "doctor": "what RoPE will this checkpoint really get, in each engine?",
    "report": "results -> page, tables, figures",
    "ask": "questions about a long document, or a conversation, in the terminal",
    "export": "GGUF for llama.cpp with the right rope keys, or an adapter merged into its base",
}


EXIT_CODES = {
    0: "done",
    1: "finished with findings (`doctor`; `plan`: it does not fit), or a fault of our own with its traceback",
    2: "bad input or a refusal of the system, said in one line; nothing half-written is left",
    130: "interrupted (Ctrl-C); the same command goes on from there",
    143: "ended from outside (SIGTERM) during a training, which was saved; the same command goes on",
}

LONGEST_LINE = 1500
"""Characters of a complaint: what a file holds may be as long as it likes."""


def usage() -> str:
    """The page that `ropewalk -h` prints."""
    lines = [
        "usage: ropewalk VERB [settings]    (ropewalk VERB -h for one verb's page)",
        "",
        "Lengthen the context window of a RoPE language model by Position Interpolation,",
        "and prove that it worked.",
        "",
        *(f"  {name:10} {text}" for name, text in VERBS.items()),
        "",
        "  --json     before the verb: print the result as JSON, human text on standard error",
        "  --version  print the version",
        "",
        "exit codes: 0 done; 1 findings, or our fault; 2 bad input, said in one line;",
        "            130 interrupted; 143 ended from outside, saved",
        "",
        "example:",
        "  ropewalk extend path/to/model longer-model --to 32k",
    ]
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text as one line in which nothing commands the terminal, whatever the file it came from holds."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words[:1]
    words = words[1:] if as_json else words
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] == "--version":
        print(f"ropewalk {__version__}")
        return 0
    with console.on_stderr() if as_json else contextlib.nullcontext():
        code, result = _call(words)
    speaks = os.environ.get("RANK", "0") == "0"  # of several processes, one
    if as_json and result is not None and speaks:
        print(to_json(result), end="")
    return code


def _call(words: list[str]) -> tuple[int, dict[str, Any] | None]:
    """(exit code, what the verb gave, None where it gave nothing)."""
    try:
        if words[0] not in VERBS:
            raise UserError(f"no verb {words[0]!r}; verbs: {', '.join(VERBS)}")
        module = importlib.import_module(f"ropewalk.verbs.{words[0]}")
        function = getattr(module, words[0])
        settings = parse_arguments(function.settings, words[1:], f"ropewalk {words[0]}", module.EXAMPLE)
        result = function(settings)
    except UserError as error:
        print(f"ropewalk: {printable(cured(str(error)))}", file=sys.stderr)
        return 2, None
    except KeyboardInterrupt:
        print("ropewalk: interrupted; the same command goes on from here", file=sys.stderr)
        return 130, None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0, None
    except Exception as error:
        line = told(error)
        if line is None:
            raise
        print(f"ropewalk: {printable(line)}", file=sys.stderr)
        return 2, None
    return int(result.get("exit_code", 0)), result


if __name__ == "__main__":  # `-m ropewalk.cli`, as scripts from before `-m ropewalk` have it
    sys.exit(main())
