"""Answers RULER's questions by reading the prompt alone, without knowing how it was made."""

from __future__ import annotations

import re
from collections import Counter


def solve(prompt: str) -> str:
    """The answers to the last question of a prompt, with blanks between."""
    if "VAR " in prompt:
        return _variables(prompt)
    if "numbered list of words" in prompt:
        last = prompt[prompt.rindex("Below is a numbered list") :]
        listed = re.findall(r"\d+\. (\w+)", last[: last.rindex("Question:")])
        return " ".join(word for word, _ in Counter(listed).most_common(10))
    if "coded text" in prompt:
        coded = prompt[prompt.index("coded words. ") + 13 : prompt.rindex("\nQuestion:")].split()
        return " ".join(word for word, _ in Counter(coded).most_common(4) if word != "...")
    return _needles(prompt)


def _needles(prompt: str) -> str:
    asked = prompt[prompt.rindex("special magic") :]
    held = re.findall(r"One of the special magic \w+ for (\S+) is: (\S+)\.(?=\s)", prompt)
    keys = re.search(r"for (.+) mentioned", asked).group(1).replace("and ", "").split(", ")
    return " ".join(value for key, value in held if key in keys)


def _variables(prompt: str) -> str:
    last = prompt[prompt.rindex("Memorize and track") :]
    value = re.search(r"assigned the value (\d+)", last).group(1)
    holds: list[str] = []
    for name, given in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", last):
        if given == value or given in holds:
            holds.append(name)
    return " ".join(holds)
