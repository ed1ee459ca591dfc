"""Tables in CSV, Markdown and LaTeX show every name as it is."""

from __future__ import annotations

import csv
import io
import re

import fake_results as fake
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ropewalk.results.phrasing import between, clean, figure, percent, times
from ropewalk.results.tables import (
    SHOWN,
    Table,
    clean_line,
    latex_text,
    markdown_text,
    to_csv,
    to_latex,
    to_markdown,
)

NASTY = st.text(st.characters(codec="utf-8"), max_size=60) | st.just(fake.HOSTILE)


def table(name: str, rows: int = 1) -> Table:
    return Table("t", name, [name, "x"], [[name, "1"]] * rows, [{"model": name, "x": 1.5}] * rows, (name,))


@given(NASTY)
def test_csv_gives_the_cleaned_name_back_and_never_a_formula(name):
    rows = list(csv.reader(io.StringIO(to_csv(table(name)), newline="")))
    assert rows[0] == ["model", "x"]
    assert rows[1][0].lstrip("'") == clean(name).lstrip("'")
    assert rows[1][0][:1] not in ("=", "+", "-", "@")


@settings(max_examples=200)
@given(NASTY)
def test_markdown_shows_the_name_as_text(name):
    tokens = MarkdownIt("commonmark").enable("table").parse(f"x {markdown_text(name)} x")
    inline = [child for token in tokens for child in token.children or []]
    assert {child.type for child in inline} <= {"text", "text_special"}
    shown = "".join(child.content for child in inline)
    assert shown.split() == f"x {clean_line(name)} x".split()


@given(NASTY)
def test_a_name_makes_no_markdown_cell_of_its_own(name):
    lines = to_markdown(table(name)).splitlines()
    row = next(line for line in lines if line.startswith("| ---")), lines[4]
    assert len(re.findall(r"(?<!\\)\|", row[1])) == 3


@given(NASTY)
def test_latex_is_ascii_and_every_special_sign_is_escaped(name):
    text = latex_text(name)
    assert text.isascii()
    bare = re.sub(r"\\(text[a-z]+|ldots)\{\}|\\[{}$&#_%]|\$(\\[a-z]+|-)\$", "", text)
    assert not re.search(r"[\\{}$&#_%~^<>|\"]", bare)


def test_latex_has_as_many_cells_in_each_row_as_columns():
    text = to_latex(table(fake.HOSTILE, 3))
    body = text.split("\\midrule")[1].split("\\bottomrule")[0].strip().splitlines()
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body] == [1, 1, 1]
    assert "\\begin{tabular}{lr}" in text


def test_a_long_table_says_what_it_leaves_out_and_the_csv_has_all():
    long = table("m", SHOWN + 40)
    assert f"{SHOWN} of {SHOWN + 40} rows shown" in to_markdown(long)
    assert to_markdown(long).count("| m |") == SHOWN + 1
    assert to_csv(long).count("\r\n") == SHOWN + 41


def test_figures_have_three_digits():
    shown = [figure(x) for x in (8.314, 24.25, 135.2, 3469.4, 0.0834, 0, -0.99999, None)]
    assert shown == ["8.31", "24.2", "135", "3,469", "0.0834", "0", "−1.00", "–"]


def test_shares_and_intervals():
    assert [percent(x) for x in (0.934, 0.025, 1.0, 0.0)] == ["93 %", "2.5 %", "100 %", "0 %"]
    assert [percent(x, signed=True) for x in (0.132, -0.021, 0.0)] == ["+13 %", "−2.1 %", "0 %"]
    assert between(0.902, 0.957, share=True) == "90–96 %"
    assert between(8.15, 8.91) == "8.15–8.91"
    assert between(None, 3.0) == ""
    assert [times(x) for x in (4, 2.5)] == ["4×", "2.5×"]
