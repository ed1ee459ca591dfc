"""The report page in a real browser: drawn, quiet, readable everywhere, and deaf to hostile names."""

from __future__ import annotations

import base64
import sys
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

import chromium
import fake_results as fake

from ropewalk.results.collection import collect
from ropewalk.results.page import write_report

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium (apt-get install chromium)"),
]


def attack(results):
    """Every name an attack."""
    for one in results:
        one["model"]["name"] = fake.HOSTILE + one["model"]["name"]
        for row in one["rows"]:
            for key in ("data", "task", "metric", "series"):
                if key in row:
                    row[key] = fake.HOSTILE + str(row[key])
        for block in one["data"]:
            block["name"] = fake.HOSTILE + block["name"]
    return results


def written(out, results):
    write_report(collect([(f"{i}.json", one) for i, one in enumerate(results)]), out)
    return out / "report.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    out = tmp_path_factory.mktemp("pages")
    return {
        "plain": written(out / "plain", fake.everything()),
        "hostile": written(out / "hostile", attack(fake.everything())),
        "empty": written(out / "empty", [fake.training(fake.model("m", "tuned"), 3)]),
    }


@pytest.fixture(scope="module")
def browser():
    with chromium.Chromium() as found:
        yield found


@pytest.fixture(autouse=True)
def fresh(request):
    if "browser" in request.fixturenames:
        browser = request.getfixturevalue("browser")
        browser.size(1100, 900)
        browser.scheme("light")
        browser.send("Storage.clearDataForOrigin", origin="file://", storageTypes="local_storage")
    yield


@pytest.mark.parametrize("name", ["plain", "hostile", "empty"])
def test_every_figure_is_drawn_without_a_complaint_or_a_request(browser, pages, name):
    browser.open(pages[name])
    browser.drawn("light")
    marks = browser.run(
        "[...document.querySelectorAll('.plot')].map(p => p.querySelectorAll('svg path, svg rect').length)"
    )
    assert marks
    assert all(count > 5 for count in marks)
    assert browser.complaints() == []
    assert browser.requests() == []


def test_hovering_a_point_shows_its_values(browser, pages):
    browser.open(pages["plain"])
    browser.drawn("light")
    place = browser.run(
        """(() => {
          const plot = document.querySelector('[data-figure="perplexity-stdlib"]');
          plot.scrollIntoView({block: "center", behavior: "instant"});
          const points = plot.querySelectorAll('.mark-symbol path');
          const box = points[points.length - 1].getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        })()"""
    )
    browser.mouse(*place)
    browser.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    said = browser.run("document.querySelector('#vg-tooltip-element').innerText")
    assert "pi-2048" in said
    assert "8.49" in said
    assert "95 % interval" in said
    assert "61,440" in said


def test_a_hostile_name_in_a_tooltip_is_text(browser, pages):
    browser.open(pages["hostile"])
    browser.drawn("light")
    browser.run("window.alert = () => { window.attacked = true; }")
    place = browser.run(
        """(() => {
          const plot = document.querySelector('[data-figure^="perplexity"]');
          plot.scrollIntoView({block: "center", behavior: "instant"});
          const box = plot.querySelector('.mark-symbol path').getBoundingClientRect();
          return [box.x + box.width / 2, box.y + box.height / 2];
        })()"""
    )
    browser.mouse(*place)
    browser.wait("document.querySelector('#vg-tooltip-element.visible') !== null")
    assert (
        browser.run("document.querySelectorAll('#vg-tooltip-element img, #vg-tooltip-element script').length")
        == 0
    )
    assert "<script>alert('x')</script>" in browser.run(
        "document.querySelector('#vg-tooltip-element').innerText"
    )
    assert browser.run("window.attacked") is None
    assert browser.complaints() == []


def test_hostile_names_are_shown_as_text(browser, pages):
    browser.open(pages["hostile"])
    browser.drawn("light")
    heading = browser.run("document.querySelector('h1').innerText")
    assert heading.startswith("<script>alert('x')</script> & \"q\"")
    assert browser.run("document.querySelectorAll('img:not(.still)').length") == 0
    assert browser.run("document.scripts.length") == 3


def test_the_theme_follows_the_system_and_its_button_redraws_the_figures(browser, pages):
    browser.scheme("dark")
    browser.open(pages["plain"])
    browser.drawn("dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = browser.run(ground)
    line = (
        "document.querySelector('[data-figure=\"perplexity-stdlib\"] .mark-line path').getAttribute('stroke')"
    )
    first = browser.run(line)
    browser.run("document.getElementById('theme').click()")
    browser.drawn("light")
    assert browser.run(ground) != dark
    assert browser.run(line) != first
    assert (
        browser.run("document.getElementById('theme').getAttribute('aria-label')")
        == "Switch to the dark theme"
    )
    browser.open(pages["plain"])
    browser.drawn("light")  # the choice was kept
    browser.run("document.getElementById('theme').click()")
    browser.drawn("dark")
    assert browser.run(ground) == dark
    assert browser.complaints() == []


@pytest.mark.parametrize("name", ["plain", "hostile", "empty"])
@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_page_does_not_scroll_sideways(browser, pages, name, width):
    browser.size(width, 844, mobile=True)
    browser.open(pages[name])
    browser.drawn("light")
    browser.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.run("document.documentElement.scrollWidth") <= width
    beyond = browser.run(
        f"""[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg')
            && e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert beyond == []


def test_the_keyboard_reaches_theme_sections_tables_and_downloads(browser, pages):
    browser.open(pages["plain"])
    browser.drawn("light")
    seen = []
    for _ in range(60):
        for kind in ("rawKeyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(
            browser.run(
                "(e => [e.tagName, e.className, e.id, getComputedStyle(e).outlineStyle])"
                "(document.activeElement)"
            )
        )
    assert seen[0][1] == "skip"
    assert seen[1][2] == "theme"
    assert {"A", "BUTTON", "DIV", "SUMMARY"} <= {tag for tag, *_ in seen}
    assert all(outline != "none" for tag, *_, outline in seen if tag != "BODY")


def test_every_figure_and_table_has_a_name_for_screen_readers(browser, pages):
    browser.open(pages["plain"])
    browser.drawn("light")
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    images = [n for n in nodes if n.get("role", {}).get("value") in ("image", "img") and not n.get("ignored")]
    assert images
    assert all(n["name"]["value"] for n in images)
    assert browser.run(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)"
    )
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_print_shows_light_still_figures_even_from_the_dark_page(browser, pages):
    browser.scheme("dark")
    browser.open(pages["plain"])
    browser.drawn("dark")
    browser.send("Emulation.setEmulatedMedia", media="print")
    shown = browser.run(
        """[getComputedStyle(document.body).backgroundColor,
            [...document.querySelectorAll('.still')].every(i => i.offsetHeight > 50),
            [...document.querySelectorAll('.plot')].every(p => p.offsetHeight === 0)]"""
    )
    browser.send("Emulation.setEmulatedMedia", media="")
    assert shown == ["rgb(255, 255, 255)", True, True]


def test_without_scripts_the_still_figures_stand_in(browser, pages):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages["plain"])
        shown = browser.run("[...document.querySelectorAll('.still')].every(i => i.offsetHeight > 50)")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
    assert shown


def test_a_download_holds_the_tables_csv(browser, pages):
    browser.open(pages["plain"])
    address = browser.run("document.querySelector('a[download=\"perplexity-stdlib.csv\"]').href")
    text = base64.b64decode(address.split(",")[1])
    assert address.startswith("data:text/csv")
    assert text == (pages["plain"].parent / "tables" / "perplexity-stdlib.csv").read_bytes()
