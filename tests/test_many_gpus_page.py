"""Commands for many GPUs, in the page and in the scripts beside the recipes, are understood."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ropewalk.settings import parse_arguments
from ropewalk.verbs.finetune import EXAMPLE, Finetune

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "many-gpus.md").read_text(encoding="utf-8")
SCRIPTS = sorted((ROOT / "recipes" / "cluster").iterdir())


def lines(text: str) -> list[list[str]]:
    """The words of every line that calls a program, comments and continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", text).replace("'", " ")
    found = [shlex.split(line, comments=True) for line in joined.splitlines() if "finetune" in line]
    return [words for words in found if words and words[0] in ("ropewalk", "torchrun", "accelerate")]


def all_commands() -> list[list[str]]:
    pages = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S))
    return [words for text in (pages, *(path.read_text() for path in SCRIPTS)) for words in lines(text)]


@pytest.mark.parametrize("words", all_commands(), ids=lambda words: " ".join(words)[:60])
def test_every_command_for_many_gpus_is_understood(words):
    at = words.index("finetune")
    parse_arguments(Finetune, words[at + 1 :], "ropewalk finetune", EXAMPLE)
    assert words[:at] == ["ropewalk"] or words[at - 2 : at] == ["-m", "ropewalk"]


def test_torchruns_own_flags_are_torchruns():
    from torch.distributed.run import get_args_parser

    seen = 0
    for words in all_commands():
        if words[0] == "torchrun":
            script = words[words.index("-m") + 1]
            concrete = ["1" if word.startswith("$") else word for word in words[1:]]
            parsed = get_args_parser().parse_args(concrete)
            assert (parsed.training_script, parsed.rdzv_backend) in ((script, "c10d"), (script, "static"))
            seen += 1
    assert seen >= 4


def test_the_page_has_the_commands_and_the_scripts_are_shell():
    assert {words[0] for words in all_commands()} == {"ropewalk", "torchrun", "accelerate"}
    assert len(SCRIPTS) >= 2
    for path in SCRIPTS:
        subprocess.run(["bash", "-n", str(path)], check=True)
        assert path.name in PAGE
