"""The evidence of a report, section by section, in the page's order; and what was not run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from ..metrics.retrieval import DIGITS, first_digits
from . import plots
from .attention_section import attention
from .choice_section import passkey_choice
from .collection import Collection, Series
from .comparisons import benchmark, other, ruler, summarization
from .phrasing import between, clean, count, figure, percent
from .plots import THRESHOLD, Figure
from .section import Missing, Section, best_first, left_out, notes, of_group, record, slug
from .style import Slots
from .sweep_section import sweep
from .tables import Table
from .verdict import k_max, pooled, usable_by_perplexity

Builder = Callable[[Collection, Slots], Section | None]


def sections(found: Collection, slots: Slots) -> tuple[list[Section], list[Missing]]:
    """Every section that has results, and the others as not run."""
    present, missing = [], []
    for builder, title, how in BUILDERS:
        section = builder(found, slots)
        if section is None:
            missing.append(Missing(title, how))
        else:
            present.append(section)
    return present + [other(found, name) for name in found.others()], missing


def perplexity(found: Collection, slots: Slots) -> Section | None:
    """Perplexity by context size, a figure and a table for each group of texts."""
    groups = found.of("perplexity")
    figures, tables = [], []
    for group, series in groups.items():
        name, title = slug("perplexity", group), of_group("Perplexity by context size", group)
        table = _perplexity_table(name, title, series)
        spec, legend = plots.perplexity(series, slots, found.subject.original_window, found.subject.window)
        caption = _perplexity_words(found, series) + left_out(series, slots)
        alt = _alt("Line chart of perplexity", series)
        close = _close_up(found, series, slots, name, title)
        figures.append(Figure(name, title, caption, alt, spec, legend, None if close else table))
        figures += [dataclasses.replace(close, table=table)] if close else []
        tables.append(table)
    if not tables:
        return None
    lead = (
        "Perplexity says how well a model predicts held-out text: how many equally likely tokens "
        "it hesitates "
        "between, on average. A model that uses a longer context gets a lower value from it; one "
        "that is lost "
        "beyond its window gets a much higher one."
    )
    return Section("perplexity", "Perplexity by context size", lead, figures, tables)


def _close_up(found: Collection, series: list[Series], slots: Slots, name: str, title: str) -> Figure | None:
    """The same figure without the values that dwarf the others, where there are such."""
    values = [row["perplexity"] for s in series if s.model.label in slots.by_label for row in s.rows]
    mine, _ = best_first(found, series)
    if mine is None or not plots.steep([{"y": value} for value in values]):
        return None
    limit = 1.6 * max(row["perplexity"] for row in mine.rows)
    if sum(value <= limit for value in values) < 2 or max(values) <= limit:
        return None
    old, new = found.subject.original_window, found.subject.window
    spec, legend = plots.perplexity(series, slots, old, new, limit)
    caption = f"The same without values above {figure(limit)}: here the differences that matter can be seen."
    alt = _alt("Close-up of the chart of perplexity", series)
    return Figure(f"{name}-close", f"{title}, close up", caption, alt, spec, legend)


def _perplexity_table(name: str, title: str, series: list[Series]) -> Table:
    contexts = sorted({row["context"] for s in series for row in s.rows})
    rows = []
    for s in series:
        mine = {row["context"]: row for row in s.rows}
        cells = []
        for context in contexts:
            row = mine.get(context)
            interval = between(row.get("low"), row.get("high")) if row else ""
            cells.append(
                "–" if row is None else figure(row["perplexity"]) + (f" ({interval})" if interval else "")
            )
        scored = [row["n"] for row in s.rows if row.get("n")]
        tokens = (
            count(min(scored)) + (f"–{count(max(scored))}" if max(scored) != min(scored) else "")
            if scored
            else "–"
        )
        rows.append([s.label, count(s.model.window), *cells, count(usable_by_perplexity(s.rows)), tokens])
    said = [
        "With each value its 95 % interval over documents. Usable: longest context whose perplexity is at "
        "most 5 % above the lowest at any shorter one. n: tokens scored in a cell."
    ]
    if any(row.get("sampled") for s in series for row in s.rows):
        said.append("Some cells score a sample of the windows, the same for every model; the CSV says which.")
    records = [record(s, row) for s in series for row in s.rows]
    columns = ["model", "window", *(f"{count(c)}" for c in contexts), "usable", "n"]
    return Table(name, title, columns, rows, records, (*said, *notes(series)))


def _perplexity_words(found: Collection, series: list[Series]) -> str:
    mine, theirs = best_first(found, series)
    words = "Lower is better; a line that falls to the right uses what is further back."
    if mine and len(mine.rows) > 1:
        first, last = mine.rows[0], mine.rows[-1]
        way = "falls" if last["perplexity"] < first["perplexity"] else "rises"
        words += (
            f" {mine.model.label} {way} from {figure(first['perplexity'])} at "
            f"{count(first['context'])} tokens "
            f"to {figure(last['perplexity'])} at {count(last['context'])}."
        )
    if theirs and theirs.rows:
        last = theirs.rows[-1]
        words += f" {theirs.model.label} is at {figure(last['perplexity'])} with {count(last['context'])}."
    return words


def position_loss(found: Collection, slots: Slots) -> Section | None:
    """Loss by position with bands."""
    groups = found.of("position-loss")
    figures, tables = [], []
    for group, series in groups.items():
        name, title = slug("position-loss", group), of_group("Loss by position", group)
        places = sorted({(row["from"], row["to"]) for s in series for row in s.rows})
        rows = []
        for low, high in places:
            cells = [f"{count(low)}–{count(high)}"]
            for s in series[:DRAWN_COLUMNS]:
                row = next((r for r in s.rows if (r["from"], r["to"]) == (low, high)), None)
                interval = between(row.get("low"), row.get("high")) if row else ""
                cells.append(
                    "–" if row is None else f"{row['loss']:.3f}" + (f" ({interval})" if interval else "")
                )
            rows.append(cells)
        columns = ["positions", *(s.label for s in series[:DRAWN_COLUMNS])]
        table = Table(
            name,
            title,
            columns,
            rows,
            [record(s, r) for s in series for r in s.rows],
            ("Nats a token, with 95 % intervals.", *_columns_left(series), *notes(series)),
        )
        spec, legend = plots.position_loss(series, slots, found.subject.original_window, found.subject.window)
        caption = (
            "Each point is the mean loss of the tokens that far into a document, the band its 95 % "
            "interval. A "
            "model that reads its whole window stays low or sinks to the right; a step up at the old window "
            "means that it is lost beyond." + left_out(series, slots)
        )
        figures.append(
            Figure(name, title, caption, _alt("Line chart of loss by position", series), spec, legend, table)
        )
        tables.append(table)
    if not tables:
        return None
    lead = "How hard each place of a long text is for the model, from its first token to its last."
    return Section("position-loss", "Loss by position", lead, figures, tables)


DRAWN_COLUMNS = 8
"""Models that stand side by side in a table whose rows are not models."""


def passkey(found: Collection, slots: Slots) -> Section | None:
    """Passkey accuracy by distance, k_max marked."""
    series = found.of("passkey").get("", [])
    if not series:
        return None
    rows, shared = [], False
    for s in series:
        total = pooled(s)
        shared |= total is not None and total["low"] is None
        reached, target = k_max(s), s.summary.get("target")
        rows.append(
            [
                s.label,
                count(s.model.window),
                "–" if reached is None else count(reached),
                count(target) if isinstance(target, (int, float)) else "–",
                f"{count(total['right'])} of {count(total['n'])}" if total else "–",
                _rate(total),
            ]
        )
    records = [record(s, row) for s in series for row in s.rows]
    summary = Table(
        "passkey",
        "Passkey retrieval",
        ["model", "window", "k_max", "of", "found", "rate"],
        rows,
        records,
        (
            "k_max: largest distance such that at every tested distance up to it at least "
            f"{percent(THRESHOLD)} are "
            "found. Rate: over all distances, with its 95 % Wilson interval"
            + (", except where all distances share their keys." if shared else "."),
            *_instead(series),
            *notes(series),
        ),
    )
    spec, legend = plots.passkey(series, slots, found.subject.original_window)
    fewest = min((int(r["n"]) for s in series for r in s.rows if r.get("n")), default=None)
    caption = (
        "The higher and the further to the right, the better. Triangles mark k_max, the distance "
        "up to which the "
        f"key is found; the dashed line is the {percent(THRESHOLD)} that count as found."
    )
    if fewest:
        caption += f" Every point is {count(fewest)} prompts, so its bar (95 %) is wide."
    title = "Passkeys found by distance"
    alt = _alt("Line chart of the share of passkeys found", series)
    drawn = Figure("passkey", title, caption + left_out(series, slots), alt, spec, legend, summary)
    lead = (
        "A five-digit number is hidden in filler text and asked for at the end. It can only be "
        "answered by looking "
        "back over the whole distance, so it shows how far back the model really reads."
    )
    return Section("passkey", "Passkey retrieval", lead, [drawn], [summary, _passkey_by_distance(series)])


def _instead(series: list[Series]) -> list[str]:
    """What a model says where it does not find the key: another number, or no number, is another fault."""
    found = []
    for s in series[:DRAWN_COLUMNS]:
        kept = [row["wrong"] for row in s.rows if isinstance(row.get("wrong"), list)]
        wrong = [text for texts in kept for text in texts if isinstance(text, str)]
        if not wrong:
            continue
        bare = [text for text in wrong if len(first_digits(text)) < DIGITS]
        such = max(bare or wrong, key=(bare or wrong).count)
        part = f"{count(len(bare or wrong))} of {count(len(wrong))} wrong answers"
        what = "hold no five digits, most often" if bare else "are other numbers, such as"
        found.append(f"{s.label}: {part} {what} “{clean(such)}”.")
    return found


def _rate(total: dict[str, Any] | None) -> str:
    if not total:
        return "–"
    interval = between(total["low"], total["high"], share=True)
    return percent(total["rate"]) + (f" ({interval})" if interval else "")


def _passkey_by_distance(series: list[Series]) -> Table:
    distances = sorted({row["distance"] for s in series for row in s.rows})
    by = [{row["distance"]: row for row in s.rows} for s in series[:DRAWN_COLUMNS]]
    rows = []
    for distance in distances:
        found = [mine.get(distance) for mine in by]
        rows.append(
            [
                count(distance),
                *(
                    "–"
                    if r is None
                    else f"{r.get('right', '–')} of {r.get('n', '–')} "
                    f"({between(r.get('low'), r.get('high'), share=True)})"
                    for r in found
                ),
            ]
        )
    columns = ["distance, tokens", *(s.label for s in series[:DRAWN_COLUMNS])]
    records = [record(s, row) for s in series for row in s.rows]
    said = ("With 95 % Wilson intervals.", *_columns_left(series))
    return Table("passkey-by-distance", "Passkeys found at each distance", columns, rows, records, said)


def passkey_map(found: Collection, slots: Slots) -> Section | None:
    """Heat maps of length by depth, one a model."""
    series = found.of("passkey-map").get("", [])
    figures, tables = [], []
    for s in [s for s in series if s.model.label in slots.by_label]:
        name, title = slug("passkey-map", s.model.label), f"Passkeys by length and depth: {s.label}"
        lengths, depths = (sorted({row[key] for row in s.rows}) for key in ("length", "depth"))
        cells = {(row["length"], row["depth"]): row for row in s.rows}
        rows = [[percent(d), *(percent(cells[n, d]["rate"]) for n in lengths)] for d in depths]
        sizes = sorted({int(row["n"]) for row in s.rows if row.get("n")})
        each = f"n: {'–'.join(map(count, sizes[:: max(1, len(sizes) - 1)]))} prompts a cell." if sizes else ""
        table = Table(
            name,
            title,
            ["depth", *map(count, lengths)],
            rows,
            [record(s, r) for r in s.rows],
            (f"Columns: length of the prompt, tokens. {each} Intervals are in the CSV.", *notes([s])),
        )
        whole = sum(row["rate"] >= 1 for row in s.rows)
        caption = (
            "Each cell is one length of prompt (across) and one place of the key (down; 0 % is the start). "
            f"Where the colour fades, the model does not look. {s.model.label} finds every key in "
            f"{count(whole)} of {count(len(s.rows))} cells."
        )
        spec, legend = plots.passkey_map(s)
        figures.append(
            Figure(name, title, caption, _alt("Heat map of passkeys found", [s]), spec, legend, table)
        )
        tables.append(table)
    if not tables:
        return None
    lead = "The same test with the key at every depth of prompts of every length."
    return Section("passkey-map", "Passkey by length and depth", lead, figures, tables)


def training(found: Collection, slots: Slots) -> Section | None:
    """Training curves."""
    series = found.of("training").get("", [])
    if not series:
        return None
    rows = []
    for s in series:
        first, last = s.rows[0], s.rows[-1]
        end = [row["loss"] for row in s.rows[-max(1, len(s.rows) // 10) :]]
        tokens = last.get("tokens")
        rows.append(
            [
                s.label,
                count(last["step"]),
                count(tokens) if isinstance(tokens, (int, float)) else "–",
                f"{first['loss']:.3f}",
                f"{math.fsum(end) / len(end):.3f}",
            ]
        )
    table = Table(
        "training",
        "Fine-tuning",
        ["model", "steps", "tokens", "first loss", "last tenth"],
        rows,
        [record(s, row) for s in series for row in s.rows],
        ("Loss in nats a token, on training text; of the last tenth of the steps the mean.",),
    )
    spec, legend = plots.training(series, slots)
    longest = max(len(s.rows) for s in series)
    thinned = f" At most {plots.POINTS} steps of a run are drawn." if longest > plots.POINTS else ""
    caption = (
        "Loss on the training text, step by step"
        + (" (pale), and the mean of the steps around each. It" if longest > 60 else ". It")
        + " should sink quickly at first, since only the positions are new to the model, and then level off."
        + thinned
        + left_out(series, slots)
    )
    alt = _alt("Line chart of training loss by step", series)
    drawn = Figure("training", "Training loss by step", caption, alt, spec, legend, table)
    return Section(
        "training", "Fine-tuning", "How the short training at the new window went.", [drawn], [table]
    )


def _columns_left(series: list[Series]) -> list[str]:
    if len(series) <= DRAWN_COLUMNS:
        return []
    return [f"The first {DRAWN_COLUMNS} of {len(series):,} models; the CSV has all."]


def _alt(kind: str, series: list[Series]) -> str:
    names = ", ".join(clean(s.model.label) for s in series[:4])
    more = f" and {len(series) - 4:,} more" if len(series) > 4 else ""
    return f"{kind} for {names}{more}. The values are in the table beneath."


BUILDERS: tuple[tuple[Builder, str, str], ...] = (
    (perplexity, "Perplexity by context size", "ropewalk evaluate MODEL --perplexity FILES"),
    (position_loss, "Loss by position", "ropewalk evaluate MODEL --position-loss FILES"),
    (passkey, "Passkey retrieval", "ropewalk evaluate MODEL --passkey"),
    (passkey_choice, "Passkey by choice", "ropewalk evaluate MODEL --passkey-choice"),
    (passkey_map, "Passkey by length and depth", "ropewalk evaluate MODEL --passkey-grid"),
    (training, "Training curve", "ropewalk finetune MODEL OUT --data FILES"),
    (benchmark, "Benchmarks inside the old window", "ropewalk evaluate MODEL --benchmark"),
    (ruler, "RULER by length", "ropewalk evaluate MODEL --ruler"),
    (summarization, "Summarization of long documents", "ropewalk evaluate MODEL --summarization"),
    (attention, "Attention scores past the window", "ropewalk evaluate MODEL --attention FILES --target L'"),
    (sweep, "Methods without training", "ropewalk sweep MODEL --to L' --data FILES"),
)
