"""One dataclass is the flags, the YAML, the Python arguments and the record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.errors import UserError
from ropewalk.settings import from_mapping, option, parse_arguments, to_record, tokens, verb


@dataclass(frozen=True)
class Sample:
    """A sample."""

    model: str = option(help="the model", positional=True)
    to: int = option(help="the window", parse=tokens)
    rate: float = option(1e-3, help="the rate")
    method: Literal["linear", "none"] = option("linear", help="the method")
    files: tuple[str, ...] = option((), help="the files")
    seed: int | None = option(None, help="the seed")
    deep: bool = option(True, help="whether")
    out: Path = option(Path("out"), help="where")


@verb(Sample)
def sample(settings: Sample) -> dict:
    """Say it back."""
    return to_record(settings)


def read(*words: str) -> Sample:
    return parse_arguments(Sample, words, "ropewalk sample", "ropewalk sample m --to 8k")


def test_flags_python_and_yaml_build_the_same_settings():
    by_flags = read("m", "--to", "8k", "--files", "a", "b", "--no-deep", "--out", "there")
    by_yaml = from_mapping(
        Sample, {"model": "m", "to": "8k", "files": ["a", "b"], "deep": False, "out": "there"}
    )
    assert by_flags == by_yaml
    assert sample("m", to=8192, files=("a", "b"), deep=False, out="there") == to_record(by_flags)


@given(
    to=st.integers(1, 10**9),
    rate=st.floats(1e-9, 1, allow_nan=False),
    files=st.lists(st.text(max_size=5).filter(lambda text: "\0" not in text), max_size=4),
    seed=st.none() | st.integers(0, 99),
)
def test_the_record_builds_the_settings_again(to, rate, files, seed):
    one = Sample(model="m", to=to, rate=rate, files=tuple(files), seed=seed)
    assert from_mapping(Sample, to_record(one)) == one


@pytest.mark.parametrize(("text", "value"), [("8192", 8192), ("8k", 8192), ("32K", 32768), ("1m", 1048576)])
def test_tokens_are_read_as_people_write_them(text, value):
    assert tokens(text) == value


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"model": "m"}, "'to' is missing"),
        ({"model": "m", "to": "many"}, "to is 'many', not a whole number"),
        ({"model": "m", "to": 2.5}, "to is 2.5"),
        ({"model": "m", "to": True}, "to is True"),
        ({"model": "m", "to": 1, "mehtod": "linear"}, "did you mean 'method'"),
        ({"model": "m", "to": 1, "method": "cubic"}, "choose one of linear, none"),
        ({"model": "m", "to": 1, "deep": "yes"}, "not true or false"),
        ({"model": 3, "to": 1}, "not a text"),
        ({"model": None, "to": 1}, "no value"),
        ({"model": "m", "to": 1, "files": {"a": 1}}, "not a list"),
        ({"model": "m", "to": float("inf")}, "not a whole number"),
    ],
)
def test_a_wrong_value_is_named_with_its_cure(values, part):
    with pytest.raises(UserError, match=part.replace("(", r"\(")) as caught:
        from_mapping(Sample, values, "recipe.yaml: extend")
    assert str(caught.value).startswith("recipe.yaml: extend: ")
    assert "\n" not in str(caught.value)


def test_a_list_flag_given_twice_adds():
    assert read("m", "--to", "1", "--files", "a", "--files", "b", "c").files == ("a", "b", "c")


def test_an_unknown_flag_is_one_line():
    with pytest.raises(UserError, match="--too"):
        read("m", "--to", "1", "--too", "2")


def test_help_shows_defaults_and_ends_with_the_example(capsys):
    with pytest.raises(SystemExit) as stopped:
        read("-h")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith("ropewalk sample m --to 8k")
    assert "(default 0.001)" in shown
