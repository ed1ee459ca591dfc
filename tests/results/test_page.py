"""The report's files: complete, small, self-contained, and safe against every name."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import fake_results as fake
import pytest

from ropewalk.results.collection import collect
from ropewalk.results.page import glance, in_script, write_report
from ropewalk.results.style import THEMES
from ropewalk.results.verdict import verdict


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def gathered(results):
    return collect([(f"{i}.json", one) for i, one in enumerate(results)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A report of everything."""
    out = tmp_path_factory.mktemp("report")
    write_report(gathered(fake.everything()), out)
    return out


@pytest.fixture(scope="module")
def page(whole):
    return Page((whole / "report.html").read_text())


def test_every_form_is_written(whole):
    figures = {p.stem for p in (whole / "figures").glob("*.svg")}
    assert figures == {p.stem for p in (whole / "figures").glob("*.png")}
    assert {
        "perplexity-stdlib",
        "passkey",
        "passkey-choice",
        "position-loss-stdlib",
        "training",
        "benchmark",
        "attention",
    } <= figures
    tables = {p.stem for p in (whole / "tables").glob("*.csv")}
    assert tables == {p.stem for p in (whole / "tables").glob("*.tex")}
    assert {"perplexity-stdlib", "passkey", "models", "data", "protocols", "environment"} <= tables
    assert (whole / "report.md").stat().st_size > 1000
    assert all((whole / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in figures)


def test_the_page_is_below_5_mb_and_asks_for_nothing_outside_itself(whole, page):
    assert (whole / "report.html").stat().st_size < 5_000_000
    addresses = [
        attrs.get(key) or "" for _, attrs in page.elements for key in ("src", "href") if key in attrs
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    style = re.search(r"<style>(.*?)</style>", (whole / "report.html").read_text(), re.S).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_every_figure_has_words_alternative_text_and_its_table_with_a_download(page):
    plots = [a for a in page.all("div") if a.get("class") == "plot"]
    assert len(plots) == len(page.all("figcaption")) >= 9
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)
    assert all(a["alt"] for a in page.all("img"))
    downloads = [a["download"] for a in page.all("a") if "download" in a]
    assert "perplexity-stdlib.csv" in downloads
    assert len(downloads) == len(page.all("table"))


def test_missing_evaluations_are_not_run_and_not_blank(tmp_path):
    write_report(gathered([fake.passkey(fake.model("m", "tuned"), 2048)]), tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text())
    words = " ".join(" ".join(page.words).split())
    assert "Perplexity by context size not run ropewalk evaluate MODEL --perplexity FILES" in words
    markdown = (tmp_path / "out" / "report.md").read_text()
    assert "- Perplexity by context size: not run" in markdown
    assert "| Cost at the old window | – | not run |" in markdown


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([" the one that", " 12345", " the one that"], "2 of 3 wrong answers hold no five digits"),
        ([" 12345"], "1 of 1 wrong answers are other numbers, such as “12345”"),
        ([], None),
        ([3, None, fake.HOSTILE], "1 of 1 wrong answers hold no five digits"),
        ("no list", None),
    ],
)
def test_what_a_model_says_instead_of_the_key_stands_on_the_page(tmp_path, said, wanted):
    result = fake.passkey(fake.model("m", "tuned"), 1024)
    result["rows"][-1]["wrong"] = said
    write_report(gathered([result]), tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text()
    words = " ".join(" ".join(Page(html).words).split())
    assert (wanted in words) if wanted else ("wrong answers" not in words)
    assert "<script>alert" not in html


def test_glance_has_the_four_figures():
    cards = glance(verdict(gathered(fake.everything())))
    assert [card["name"] for card in cards] == [
        "Usable window",
        "Perplexity at 2,048",
        "Passkey found up to",
        "Cost at the old window",
    ]
    assert [(card["before"], card["value"]) for card in cards] == [
        ("512", "2,048"),
        ("245", "8.49"),
        ("512", "2,048"),
        ("", "+13 %"),
    ]


def small_map(block):
    return fake.passkey_map(block, 1024)


def small_perplexity(block):
    return fake.perplexity(block, {512: 9.0, 1024: 8.0})


def hostile():
    """Results whose every name is an attack."""
    names = {"original": fake.HOSTILE, "direct": "</script><b>", "tuned": "=cmd()|' {{ 7*7 }} <!-- ${x}"}
    found = fake.everything(names)
    for one in found:
        one["data"] = [{"name": fake.HOSTILE, "sha256": fake.HOSTILE, "documents": 1}]
        one["protocol"][fake.HOSTILE] = fake.HOSTILE
        one["provenance"]["device"] = fake.HOSTILE
        for row in one["rows"]:
            for key in ("data", "task", "metric", "series"):
                if key in row:
                    row[key] = fake.HOSTILE + row[key]
    return found


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    out = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vl_convert.svg_to_png", lambda svg, scale: b"")
        write_report(gathered(hostile()), out, title=fake.HOSTILE)
    return out


def test_hostile_names_make_no_element_and_are_shown_as_text(attacked, page):
    found = Page((attacked / "report.html").read_text())
    kinds = {name for name, _ in page.elements}
    assert {name for name, _ in found.elements} <= kinds
    assert len(found.scripts) == len(page.scripts) == 3
    assert not any(key.startswith("on") for _, attrs in found.elements for key in attrs)
    words = "".join(found.words)
    assert "<script>alert('x')</script>" in words
    assert "{{ 7*7 }}" in words
    assert "\u202e" not in (attacked / "report.html").read_text()


def test_hostile_names_cannot_leave_the_page_through_files(attacked):
    names = [p.relative_to(attacked).as_posix() for p in attacked.rglob("*") if p.is_file()]
    assert all(
        re.fullmatch(r"(figures/|tables/)?[a-z0-9-]+\.(html|md|csv|tex|svg|png)", name) for name in names
    )
    for svg in (attacked / "figures").glob("*.svg"):
        assert "<script" not in svg.read_text()
        assert "<img" not in svg.read_text()


def test_json_in_a_script_element_has_no_sign_that_ends_it():
    text = in_script({"</script>": "<!-- & \u2028"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"</script>": "<!-- & \u2028"}


def test_the_same_results_give_the_same_report_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr("vl_convert.svg_to_png", lambda svg, scale: svg.encode())
    blocks = fake.model("base", "original"), fake.model("pi", "tuned")
    found = [make(block) for block in blocks for make in (small_map, small_perplexity)]
    written = []
    for name, results in (("one", found), ("two", found[::-1])):
        write_report(gathered(results), tmp_path / name)
        files = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        written.append({p.relative_to(tmp_path / name): p.read_bytes() for p in files})
    assert written[0] == written[1]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_a_contrast_of_4_5_and_marks_of_3(theme):
    """WCAG 2.2, success criteria 1.4.3 and 1.4.11."""
    look = THEMES[theme]
    assert contrast(look.ink, look.background) >= 7
    assert contrast(look.soft, look.background) >= 4.5
    assert all(contrast(colour, look.background) >= 3 for colour in look.colours)
    assert contrast(look.colours[2], look.background) >= 4.5  # links
