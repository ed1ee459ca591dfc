"""RULER's synthetic tasks, made here: prompts of an exact length in tokens, without a download.

Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context Language Models?",
arXiv:2404.06654. The prompts' wording and the tasks' parameters are RULER's; words come from our own
list (assets/words.txt). Of its 13 tasks these 11 are made here:

    niah_single_1   one number in repeated noise                niah_multikey_1   among 4 keys, in text
    niah_single_2   one number in text                          niah_multikey_2   among lines like it
    niah_single_3   one UUID in text                            niah_multikey_3   the same with UUIDs
    niah_multivalue 4 values of one key, in text                vt   a chain of 5 variables, in noise
    niah_multiquery 4 keys asked at once, in text               cwe  the 10 commonest words of a list
                                                                fwe  the 3 commonest coded words
qa_1 and qa_2 need SQuAD and HotpotQA and are not made. "Text" is what the user names (RULER: Paul
Graham's essays); without any it is the noise, and niah_single_2, then the same as niah_single_1, is out.

A prompt grows by *units* (a line of noise, a sentence, a word) until it nearly fills its length; what
is still missing, a unit or less than 1 %, is filled by the end of the noise, cut at a token, in front.
"""

from __future__ import annotations

import itertools
import re
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from random import Random

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
SHORT = 4096
"""Below this length (tokens) the lists of cwe are shorter, as in lm-eval's form of RULER."""

Encode = Callable[[str], list[int]]
Made = tuple[str, list[str]]
"""A prompt's text and its answers."""


class TooShort(ValueError):
    """The task does not fit into the asked length; its text says how long it must be."""


@dataclass(frozen=True)
class Sample:
    """One prompt of a task.

    name: unique within a run.  ids: the prompt's tokens (BOS, padding, text).  answers: all to be found.
    units: of filler.  padding: tokens of cut noise in front of the text.
    """

    name: str
    ids: list[int]
    answers: list[str]
    units: int
    padding: int


@dataclass(frozen=True)
class Task:
    """One task: ``make(random, units, length, haystack)``.

    room: tokens that the model may answer (RULER's ``tokens_to_generate``).  least: units of its
    smallest prompt.  text: whether its haystack is the text, where there is one.
    """

    make: Callable[[Random, int, int, Sequence[str]], Made]
    room: int
    least: int
    text: bool = False


def sample(
    task: str, length: int, index: int, *, encode: Encode, bos: int | None, haystack: Sequence[str], seed: int
) -> Sample:
    """The ``index``-th prompt of a task: exactly ``length - room`` tokens, the same for the same seed.

    length: tokens of prompt and answer together.  haystack: sentences of text, or nothing.
    Raises TooShort when even the smallest prompt is longer.
    """
    kind = TASKS[task]
    name = f"{task}/{length}/{index}"
    start = [] if bos is None else [bos]
    budget = length - kind.room - len(start)

    def tokens(units: int) -> tuple[list[int], list[str]]:
        text, answers = kind.make(Random(f"{seed}/{name}"), units, length, haystack)
        return encode(text), answers

    units, ids, answers = _fill(tokens, kind.least, budget)
    padding = budget - len(ids)
    front = _noise_tokens(encode, padding)
    return Sample(name, start + front + ids, answers, units, padding)


def sentences(text: str) -> list[str]:
    """A text's sentences, white space made single; cut after . ! ? before white space."""
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def _fill(
    tokens: Callable[[int], tuple[list[int], list[str]]], least: int, budget: int
) -> tuple[int, list[int], list[str]]:
    """Units whose prompt nearly fills ``budget`` tokens, by interpolation between what was measured."""
    best = tokens(least)
    if len(best[0]) > budget:
        raise TooShort(f"its smallest prompt is {len(best[0]) - budget} tokens too long")
    low, size = least, len(best[0])
    probe = tokens(least + 40)
    rate = max(0.1, (len(probe[0]) - size) / 40)
    high: int | None = None
    for _ in range(16):
        missing = budget - size
        if missing <= budget // 128:
            break
        step = int(missing / rate) if high is None else min(int(missing / rate), high - low - 1)
        if step < 1:
            break
        found = tokens(low + step)
        if len(found[0]) <= budget:
            rate = max(0.1, (len(found[0]) - size) / step)
            low, size, best = low + step, len(found[0]), found
        else:
            high = low + step
            rate = max(rate, (len(found[0]) - size) / step) * 1.01
    return low, *best


def _noise_tokens(encode: Encode, count: int) -> list[int]:
    """The last ``count`` tokens of repeated noise lines."""
    if count == 0:
        return []
    repeats = 2
    while len(ids := encode((NOISE + "\n") * repeats)) < count:
        repeats *= 2
    return ids[-count:]


@cache
def words() -> tuple[str, ...]:
    """The word list: no word is contained in another, so that one found in an answer is that word."""
    lines = resources.files("ropewalk").joinpath("assets/words.txt").read_text().splitlines()
    return tuple(word for line in lines if not line.startswith("#") for word in line.split())


# Needles in a haystack


def _needles(
    *,
    keys: int = 1,
    values: int = 1,
    asked: int = 1,
    key: str = "words",
    value: str = "numbers",
    hay: str = "text",
) -> Callable[[Random, int, int, Sequence[str]], Made]:
    """A needle-in-a-haystack task of RULER's family; hay: "noise", "text" or "needles"."""

    def make(random: Random, units: int, length: int, haystack: Sequence[str]) -> Made:
        used: set[str] = set()
        found = {
            _fresh(random, key, used): [_fresh(random, value, used) for _ in range(values)]
            for _ in range(keys)
        }
        needles = [_needle(value, k, v) for k, vs in found.items() for v in vs]
        random.shuffle(needles)
        query = random.sample(list(found), asked)
        if hay == "text" and haystack:
            lines = [haystack[i % len(haystack)] for i in range(units)]
        elif hay == "needles":
            lines = [
                _needle(value, _fresh(random, key, used), _fresh(random, value, used)) for _ in range(units)
            ]
        else:
            lines = [NOISE] * units
        places = sorted(random.randrange(units + 1) for _ in needles)
        for place, needle in reversed(list(zip(places, needles))):
            lines.insert(place, needle)
        context = (" " if hay == "text" and haystack else "\n").join(lines)
        return _question(value, context, query, several=asked * values > 1), [
            v for k in query for v in found[k]
        ]

    return make


def _needle(kind: str, key: str, value: str) -> str:
    return f"One of the special magic {kind} for {key} is: {value}."


def _question(kind: str, context: str, query: Sequence[str], several: bool) -> str:
    asked = query[0] if len(query) == 1 else f"{', '.join(query[:-1])}, and {query[-1]}"
    if several:
        first, ask, answer = f"Some special magic {kind} are", "What are all", f"magic {kind} for {asked}"
        verb, them = "are", kind
    else:
        them = kind[:-1]
        first, ask, answer = f"A special magic {them} is", "What is", f"magic {them} for {asked}"
        verb = "is"
    return (
        f"{first} hidden within the following text. Make sure to memorize it. "
        f"I will quiz you about the {them} afterwards.\n{context}\n"
        f"{ask} the special {answer} mentioned in the provided text? "
        f"The special {answer} mentioned in the provided text {verb}"
    )


def _fresh(random: Random, kind: str, used: set[str]) -> str:
    """A key or value that the prompt does not hold yet, so that the question has one answer."""
    while True:
        if kind == "numbers":
            made = str(random.randrange(10**6, 10**7))
        elif kind == "uuids":
            made = str(uuid.UUID(int=random.getrandbits(128), version=4))
        else:
            made = "-".join(random.sample(words(), 2))
        if made not in used:
            used.add(made)
            return made


# Variable tracking


def _variables(random: Random, units: int, length: int, haystack: Sequence[str]) -> Made:
    """One chain of assignments, five variables long, after a worked example (RULER's parameters)."""
    example, solved = _chain(random, 6, letters=3)
    text, answers = _chain(random, units, letters=5)
    return f"{example} {' '.join(solved)}\n\n{text}", answers


def _chain(random: Random, lines: int, letters: int, variables: int = 5) -> Made:
    names: list[str] = []
    while len(names) < variables:
        name = "".join(random.choices(string.ascii_uppercase, k=letters))
        if name not in names:
            names.append(name)
    value = random.randrange(10_000, 100_000)
    chain = [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a}" for a, b in itertools.pairwise(names))]
    context = [NOISE] * lines
    for i, place in enumerate(sorted(random.sample(range(lines + 1), variables))):
        context.insert(place + i, chain[i])
    text = "\n".join(context)
    return (  # "assgined" is RULER's own spelling: the prompt is kept as it is
        "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
        f"{text}\nQuestion: Find all variables that are assigned the value {value} in the text above. "
        "Answer: According to the chain(s) of variable assignment in the text above, "
        f"{variables} variables are assgined the value {value}, they are:"
    ), names


# Common and frequent words


def _common_words(random: Random, units: int, length: int, haystack: Sequence[str]) -> Made:
    """Ten words far more often than ``units`` others in a numbered list, after a worked example.

    RULER: 30 times against 3; in prompts below 4,096 tokens 6 times against once. Where the word list
    is too short for a long prompt both counts grow alike.
    """
    short = length < SHORT
    grow = max(1, -(-length // 32_768))
    example, solved = _word_list(random, 10 if short else 30, *((3, 1) if short else (10, 3)))
    text, answers = _word_list(random, units, *((6, 1) if short else (30 * grow, 3 * grow)))
    return f"{example} {_numbered(solved)}\n{text}", answers


def _word_list(random: Random, others: int, common: int, uncommon: int) -> Made:
    chosen = random.sample(words(), min(10 + others, len(words())))
    listed = chosen[:10] * common + chosen[10:] * uncommon
    random.shuffle(listed)
    return (
        "Below is a numbered list of words. In these words, some appear more often than others. "
        f"Memorize the ones that appear most often.\n{_numbered(listed)}\n"
        "Question: What are the 10 most common words in the above list? "
        "Answer: The top 10 words that appear most often in the list are:"
    ), chosen[:10]


def _numbered(listed: Sequence[str]) -> str:
    return " ".join(f"{i}. {word}" for i, word in enumerate(listed, 1))


def _frequent_words(random: Random, units: int, length: int, haystack: Sequence[str]) -> Made:
    """Coded words by Zipf's law with exponent 2: the k-th is 6 / (π k)² of all; the first is dots."""
    coded: dict[str, None] = {"...": None}
    while len(coded) < max(5, length // 50):
        coded["".join(random.choices(string.ascii_lowercase, k=6))] = None
    listed: list[str] = []
    for rank, word in enumerate(coded, 1):
        listed += [word] * int(units * 0.6079271 / rank**2)
    random.shuffle(listed)
    return (
        "Read the following coded text and track the frequency of each coded word. "
        f"Find the three most frequently appeared coded words. {' '.join(listed)}\n"
        "Question: Do not provide any explanation. Please ignore the dots '....'. "
        "What are the three most frequently appeared words in the above coded text? "
        "Answer: According to the coded text above, the three most frequently appeared words are:"
    ), list(coded)[1:4]


TASKS: dict[str, Task] = {
    "niah_single_1": Task(_needles(hay="noise"), 128, 1),
    "niah_single_2": Task(_needles(), 128, 1, text=True),
    "niah_single_3": Task(_needles(value="uuids"), 128, 1, text=True),
    "niah_multikey_1": Task(_needles(keys=4), 128, 1, text=True),
    "niah_multikey_2": Task(_needles(hay="needles"), 128, 1),
    "niah_multikey_3": Task(_needles(hay="needles", key="uuids", value="uuids"), 128, 1),
    "niah_multivalue": Task(_needles(values=4), 128, 1, text=True),
    "niah_multiquery": Task(_needles(keys=4, asked=4), 128, 1, text=True),
    "vt": Task(_variables, 30, 5),
    "cwe": Task(_common_words, 120, 10),
    "fwe": Task(_frequent_words, 50, 160),
}
"""Every task by RULER's name, in its order. fwe's 160: the third answer appears 6 times, the next 3."""
