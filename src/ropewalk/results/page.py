"""The report as files: one self-contained page, Markdown, CSV and LaTeX tables, SVG and PNG figures."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from .collection import Collection, Model
from .commands import commands
from .conditions import conditions
from .overview import overview
from .phrasing import NOT_RUN, between, count, figure, percent
from .plots import Figure
from .section import Section
from .sections import sections
from .style import GLYPHS, THEMES, Slots, choose, css_variables
from .tables import Table, clean_line, markdown_text, to_latex, to_markdown
from .verdict import sureness, verdict

VEGA_LITE = "6.4"
"""The Vega-Lite version in which altair writes and vl-convert draws."""
INLINE_CSV = 300_000
"""Bytes of CSV up to which a table is downloadable from within the page."""
STILL_FONT = "Liberation Sans, Arial, sans-serif"


def write_report(
    found: Collection,
    out: Path,
    title: str | None = None,
    refresh: int | None = None,
    now: Section | None = None,
) -> dict[str, Any]:
    """Write everything into the directory ``out``; the verdict.

    refresh: seconds after which an open page loads itself again (while a run goes on), else None.
    now: the section that says how far a run is, which goes first.
    """
    slots = choose(found)
    judged, every = verdict(found), overview(found)
    shown, missing = sections(found, slots)
    shown = [now, *shown] if now else shown
    facts = conditions(found)
    stills = _draw(shown, slots, out / "figures")
    for table in [*(t for s in shown for t in s.tables), *([every] if every else []), *facts]:
        _write(out / "tables" / f"{table.name}.csv", table.csv)
        _write(out / "tables" / f"{table.name}.tex", to_latex(table))
    content: dict[str, Any] = {
        "title": heading(title),
        "verdict": judged,
        "glance": glance(judged),
        "overview": every,
        "story": found.subject.story,
        "sections": shown,
        "missing": missing,
        "conditions": facts,
        "commands": commands(found),
        "models": [_named(m, slots) for m in found.models[:24]],
        "more_models": max(0, len(found.models) - 24),
    }
    _write(out / "report.html", _html(content, slots, stills, refresh))
    _write(out / "report.md", _markdown(content))
    return judged


def write_waiting(now: Section, out: Path, title: str | None, refresh: int) -> None:
    """Write a page that says how far a run is which has no results yet."""
    slots = Slots({}, models=False)
    content = {
        **{"title": heading(title), "verdict": None, "glance": [], "sections": [now], "missing": []},
        "overview": None,
        **{"conditions": [], "commands": [], "models": [], "more_models": 0},
    }
    _write(out / "report.html", _html(content, slots, _draw([now], slots, out / "figures"), refresh))


def heading(title: str | None) -> str:
    """The page's title."""
    return clean_line(title) if title else "Context window report"


def _named(model: Model, slots: Slots) -> dict[str, Any]:
    slot = slots.by_label.get(model.label)
    glyph = "" if slot is None else GLYPHS[slot]
    return {"label": model.label, "story": model.story, "slot": slot, "glyph": glyph}


def glance(judged: dict[str, Any]) -> list[dict[str, str]]:
    """Four figures: usable window, perplexity at the new window, passkey, cost at the old window."""
    return [_glance_window(judged), _glance_perplexity(judged), _glance_passkey(judged), _glance_cost(judged)]


def _card(name: str, value: str | None, detail: str, before: str = "") -> dict[str, str]:
    return {"name": name, "value": value or NOT_RUN, "detail": detail, "before": before}


def _glance_window(judged: dict[str, Any]) -> dict[str, str]:
    usable = judged["usable"]
    if usable["after"] is None:
        return _card("Usable window", None, f"its config claims {count(usable['claimed'])} tokens")
    how = " and ".join(usable["basis"])
    detail = f"tokens, by {how}; its config claims {count(usable['claimed'])}"
    if usable["before"] is None:
        return _card("Usable window", count(usable["after"]), detail)
    if not usable["before_measured"]:
        detail += "; the one before is from the config, not measured"
    return _card("Usable window", count(usable["after"]), detail, count(usable["before"]))


def _glance_perplexity(judged: dict[str, Any]) -> dict[str, str]:
    if not judged["perplexity"]:
        return _card("Perplexity at the new window", None, "how well it predicts held-out text")
    one = judged["perplexity"][0]
    last, before = one["last"], one["before"]
    parts = [f"on {one['group']}"] if one["group"] else []
    interval = between(last["low"], last["high"])
    parts += [f"95 % interval {interval}"] if interval else []
    parts += [f"{count(last['n'])} tokens"] if last["n"] else []
    old = figure(before["perplexity"]) if before else ""
    return _card(f"Perplexity at {count(last['context'])}", figure(last["perplexity"]), "; ".join(parts), old)


def _glance_passkey(judged: dict[str, Any]) -> dict[str, str]:
    passkey = judged["passkey"]
    if passkey is None or passkey["k_max"] is None:
        return _card("Passkey found up to", None, "a number hidden in filler, asked for at the end")
    total = passkey["pooled"]
    detail = f"tokens back, of {count(passkey['target'])}"
    if total:
        detail += f"; {count(total['right'])} of {count(total['n'])} found ({sureness(total)})"
    before = "" if passkey["before"] is None else count(passkey["before"])
    return _card("Passkey found up to", count(passkey["k_max"]), detail, before)


def _glance_cost(judged: dict[str, Any]) -> dict[str, str]:
    cost = judged["cost"]
    if cost is None:
        return _card("Cost at the old window", None, "perplexity where the model was already good")
    detail = (
        f"perplexity at {count(cost['context'])} tokens: {figure(cost['before'])} → {figure(cost['after'])}"
    )
    if cost["group"] and len(judged["perplexity"]) > 1:
        detail = f"{cost['group']}: {detail}"
    if cost["low"] is not None:
        detail += (
            f"; 95 % interval {percent(cost['low'], signed=True)} to {percent(cost['high'], signed=True)}"
        )
    if cost["n"]:
        detail += f"; {count(cost['n'])} tokens"
    return _card("Cost at the old window", percent(cost["share"], signed=True), detail)


def _draw(shown: list[Section], slots: Slots, folder: Path) -> dict[str, str]:
    """Write every figure as SVG and PNG; the SVGs as data addresses by name."""
    folder.mkdir(parents=True)
    stills = {}
    config = {**slots.config("light"), "font": STILL_FONT}
    for one in (f for s in shown for f in s.figures):
        svg = _own_numbers(vl_convert.vegalite_to_svg(one.still(config), vl_version=VEGA_LITE))
        _write(folder / f"{one.name}.svg", svg)
        (folder / f"{one.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))
        stills[one.name] = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    return stills


def _own_numbers(svg: str) -> str:
    """Number a drawing's gradients from 0: the library counts on from drawing to drawing."""
    seen: dict[str, str] = {}

    def renumbered(match: re.Match[str]) -> str:
        number = seen.setdefault(match[2], str(len(seen)))
        return f"{match[1]}{number}{match[3]}"

    return re.sub(r'(url\(#gradient_|id="gradient_)(\d+)([)"])', renumbered, svg)


def _html(content: dict[str, Any], slots: Slots, stills: dict[str, str], refresh: int | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ropewalk.results", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_unbroken,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["value_and_interval"] = value_and_interval
    loader = environment.loader
    assert loader is not None
    style = loader.get_source(environment, "page.css")[0]
    script = loader.get_source(environment, "script.jinja")[0]
    figures: list[Figure] = [f for s in content["sections"] for f in s.figures]
    data = {
        "specs": {f.name: f.spec for f in figures},
        "config": {theme: slots.config(theme) for theme in THEMES},
    }
    library = _library() if figures else ""
    scripts = [library, script] if figures else [script]
    safe = jinja2.utils.markupsafe.Markup
    return environment.get_template("page.html.jinja").render(
        **content,
        stills=stills,
        refresh=refresh,
        colours={theme: safe(css_variables(theme)) for theme in THEMES},
        style=safe(style),
        data=safe(in_script(data)),
        scripts=[safe(text) for text in scripts],
        hashes=" ".join(f"'sha256-{_digest(text)}'" for text in scripts),
        csv=_csv_address,
        not_run=NOT_RUN,
    )


def value_and_interval(cell: str) -> tuple[str, str]:
    """A cell's value and its interval, which the page sets beneath it.

    >>> value_and_interval("9.41 (9.03–9.88)")
    ('9.41', '9.03–9.88')
    """
    found = re.fullmatch(r"(.+) \(([−\d.,]+(?:–| to )[−\d.,]+(?: %)?)\)", cell)
    return (found[1], found[2]) if found else (cell, "")


def _unbroken(value: Any) -> Any:
    """Keep a number and its per cent sign on one line (for plain text, before it is escaped)."""
    return re.sub(r"(?<=\d) %", "\u00a0%", value) if type(value) is str else value


def in_script(value: Any) -> str:
    """JSON that can stand in a script element: no character of it can end the element or open another."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    script: str = vl_convert.javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]
    return script.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _csv_address(table: Table) -> str:
    """Where the page's download button points: into the page itself, or for large tables at the file."""
    text = table.csv.encode()
    if len(text) > INLINE_CSV:
        return f"tables/{table.name}.csv"
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(text).decode()


def _markdown(content: dict[str, Any]) -> str:
    judged = content["verdict"]
    lines = [f"# {markdown_text(content['title'])}", "", f"**{markdown_text(judged['sentence'])}**", ""]
    lines += ["| at a glance | before | now | |", "| --- | ---: | ---: | --- |"]
    for card in content["glance"]:
        cells = (card["name"], card["before"] or "–", card["value"], card["detail"])
        lines.append("| " + " | ".join(map(markdown_text, cells)) + " |")
    lines.append("")
    if content["overview"]:
        lines += [to_markdown(content["overview"]), ""]
    for section in content["sections"]:
        lines += [f"## {markdown_text(section.title)}", "", markdown_text(section.lead), ""]
        for one in section.figures:
            lines += [
                f"![{markdown_text(one.alt)}](figures/{one.name}.svg)",
                "",
                markdown_text(one.caption),
                "",
            ]
        for table in section.tables:
            lines += [to_markdown(table), ""]
    lines += ["## Not run", ""]
    lines += [
        f"- {markdown_text(one.title)}: {NOT_RUN}{f' (`{one.how}`)' if one.how else ''}"
        for one in content["missing"]
    ] or ["Nothing."]
    lines += ["", "## Conditions", ""]
    for table in content["conditions"]:
        lines += [to_markdown(table), ""]
    lines += ["## Commands to repeat it", "", *(f"    {command}" for command in content["commands"]), ""]
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
