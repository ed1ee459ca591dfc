"""The verdict: what the results say of the longer model, as figures and as one sentence. Pure functions.

Usable by perplexity: the longest context measured up to which perplexity is never more than TOLERANCE above
the lowest at any shorter context. Usable by passkey: k_max, or the whole window where the key is found in
every prompt that fits into it. The usable window is the smaller of those that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ..metrics.intervals import paired_difference, wilson
from .collection import Collection, Model, Series, collect, number
from .phrasing import between, clean, count, figure, listed, percent, times

TOLERANCE = 0.05
"""How far (a share) perplexity may rise above its lowest before a context no longer counts as usable."""
LABELS = {
    "longer": "It worked",
    "partly": "It worked in part",
    "no gain": "It did not work",
    "not longer": "Not lengthened",
    "not measured": "Not measured",
    "not measured beyond": "Not measured at its window",
}
LEVEL = 0.005
"""A rise of perplexity up to this share is called level."""
COST_LIMIT = 0.5
"""Above this rise of perplexity at the old window (a share) a model is not said to read its new one."""
SHARED_KEYS = "the same at every distance"
"""What a passkey protocol says of its keys when they are the same in all cells."""


def verdict_of(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The verdict on a list of results (the content of results files), see `verdict`."""
    return verdict(collect([(f"result {i + 1}", result) for i, result in enumerate(results)]))


def verdict(found: Collection) -> dict[str, Any]:
    """What the results say of the longest, best prepared model among them.

    {"status": "longer" | "partly" | "no gain" | "not longer" | "not measured" | "not measured beyond",
     "label": str, "headline": str, "reasons": [str, ...], "sentence": all of it as one sentence,
     "subject": name, "baseline": name | None,
     "usable": {"before", "after", "claimed": tokens | None, "basis": [...], "before_measured": bool,
                "open": bool: whether "after" is where the measuring ended, not the reading},
     "perplexity": [...one a group of texts...], "passkey": {...} | None, "cost": {...} | None}
    """
    subject, baseline = found.subject, found.baseline
    perplexity = [p for p in (_perplexity(found, group) for group in found.of("perplexity")) if p]
    passkey = _passkey(found)
    before = usable(found, baseline)
    result: dict[str, Any] = {
        "subject": subject.label,
        "baseline": baseline.label if baseline else None,
        "usable": {
            "before": before or (None if subject.role == "original" else subject.original_window),
            "before_measured": before is not None,
            "after": usable(found, subject),
            "claimed": subject.window,
            "basis": _basis(perplexity, passkey),
            "open": _open(found, subject),
        },
        "perplexity": perplexity,
        "passkey": passkey,
        "cost": cost(found, subject, [p["group"] for p in perplexity]),
    }
    result["status"] = _status(result, subject)
    result["label"] = LABELS[result["status"]]
    result["headline"], result["reasons"] = _headline(result, subject), _reasons(result)
    because = f": {'; '.join(result['reasons'])}" if result["reasons"] else ""
    result["sentence"] = f"{result['headline']}{because}."
    return result


def usable_by_perplexity(rows: Sequence[dict[str, Any]]) -> int:
    """Longest context (tokens) up to which perplexity stays within TOLERANCE of the lowest before it.

    >>> usable_by_perplexity([{"context": 512, "perplexity": 8.3}, {"context": 1024, "perplexity": 135}])
    512
    """
    lowest, reached = float("inf"), 0
    for row in sorted(rows, key=lambda row: row["context"]):
        if row["perplexity"] > lowest * (1 + TOLERANCE):
            break
        lowest, reached = min(lowest, row["perplexity"]), int(row["context"])
    return reached


def k_max(series: Series | None) -> int | None:
    """Effective window by passkey, tokens, as the evaluation found it; None when it did not run."""
    found = None if series is None else number(series.summary.get("k_max"))
    return None if found is None else int(found)


def k_choice(series: Series | None) -> int | None:
    """How far back keys are read by choice, tokens, as the evaluation found it; None when it did not run."""
    found = None if series is None else number(series.summary.get("k_choice"))
    return None if found is None else int(found)


def usable_by_passkey(series: Series | None) -> int | None:
    """k_max; the whole window where the key is found in every prompt that fits into it (tokens).

    A prompt is longer than the distance it tests, so an original of window L cannot reach k_max = L.
    """
    reached = k_max(series)
    if series is None or reached is None:
        return None
    window = series.model.window or 0
    fitting = [row["distance"] for row in series.rows if 0 < (number(row.get("length")) or 0) <= window]
    return max(reached, window) if fitting and reached >= max(fitting) else reached


def pooled(series: Series) -> dict[str, Any] | None:
    """All passkey prompts together: {"right", "n", "rate", "low", "high"} (Wilson, 95 %).

    low and high are None where the same keys were asked for at every distance: the prompts are then not
    independent, and an interval from their number would claim more than is known.
    """
    rows = series.rows
    right, n = (sum(int(number(row.get(key)) or 0) for row in rows) for key in ("right", "n"))
    if n <= 0 or not 0 <= right <= n:
        return None
    shared = series.protocol.get("keys") == SHARED_KEYS
    low, high = (None, None) if shared else wilson(right, n)
    return {"right": right, "n": n, "rate": right / n, "low": low, "high": high}


def sureness(total: dict[str, Any]) -> str:
    """How sure a `pooled` rate is, in words."""
    if total["low"] is None:
        return "the same keys at every distance"
    return f"95 % interval {between(total['low'], total['high'], share=True)}"


def at(rows: Sequence[dict[str, Any]], context: int | None) -> dict[str, Any] | None:
    """The perplexity row of one context."""
    return next((row for row in rows if row["context"] == context), None)


def usable(found: Collection, model: Model | None) -> int | None:
    """The smallest of what perplexity (on every group of texts) and passkey allow; None: not measured."""
    return min((reached for reached, _ in _limits(found, model)), default=None)


def _limits(found: Collection, model: Model | None) -> list[tuple[int, bool]]:
    """(what it allows, whether nothing longer was measured) of each group of texts, and of passkey."""
    limits = []
    for group in found.of("perplexity"):
        series = found.get(model, "perplexity", group)
        if series:
            reached = usable_by_perplexity(series.rows)
            limits.append((reached, reached >= max(row["context"] for row in series.rows)))
    keys = found.get(model, "passkey")
    back = usable_by_passkey(keys)
    if keys is not None and back is not None:
        limits.append((back, back >= max((row["distance"] for row in keys.rows), default=0)))
    return limits


def _open(found: Collection, model: Model) -> bool:
    """Whether a model may read further than its results tell: all of the smallest limits are open ones."""
    limits = _limits(found, model)
    least = min((reached for reached, _ in limits), default=0)
    return 0 < least < (model.window or 0) and all(ended for reached, ended in limits if reached == least)


def _basis(perplexity: list[dict[str, Any]], passkey: dict[str, Any] | None) -> list[str]:
    basis = ["perplexity"] if perplexity else []
    return [*basis, "passkey"] if passkey and passkey["k_max"] is not None else basis


def _perplexity(found: Collection, group: str) -> dict[str, Any] | None:
    """How the subject's perplexity goes with context on one group of texts."""
    mine = found.get(found.subject, "perplexity", group)
    if mine is None:
        return None
    theirs = found.get(found.baseline, "perplexity", group)
    rows = mine.rows
    rises = [
        {"context": b["context"], "from": a["perplexity"], "to": b["perplexity"]}
        for a, b in pairwise(rows)
        if b["perplexity"] > a["perplexity"] * (1 + LEVEL)
    ]
    last = at(rows, found.subject.window) or rows[-1]
    comparable = theirs is not None and theirs.mark == mine.mark
    return {
        "group": clean(group),
        "contexts": [row["context"] for row in rows],
        "values": [row["perplexity"] for row in rows],
        "doublings": len(rows) > 1 and all(b["context"] == 2 * a["context"] for a, b in pairwise(rows)),
        "rises": rises,
        "falls": all(b["perplexity"] < a["perplexity"] for a, b in pairwise(rows)),
        "usable": usable_by_perplexity(rows),
        "last": {k: last.get(k) for k in ("context", "perplexity", "low", "high", "n", "sampled")},
        "before": at(theirs.rows, last["context"]) if comparable and theirs else None,
    }


def _passkey(found: Collection) -> dict[str, Any] | None:
    series = found.get(found.subject, "passkey")
    if series is None:
        return None
    target = number(series.summary.get("target")) or max(row["distance"] for row in series.rows)
    return {
        "k_max": k_max(series),
        "target": int(target),
        "pooled": pooled(series),
        "before": k_max(found.get(found.baseline, "passkey")),
        "read": k_choice(found.get(found.subject, "passkey-choice")),
    }


def cost(found: Collection, model: Model, groups: Sequence[str]) -> dict[str, Any] | None:
    """A model's perplexity at the old window against the baseline's, on the first group that both have."""
    old = found.subject.original_window
    for group in groups:
        raw = next(name for name in found.of("perplexity") if clean(name) == group)
        mine, theirs = (found.get(m, "perplexity", raw) for m in (model, found.baseline))
        if mine is None or theirs is None or mine.mark != theirs.mark:
            continue
        after, before = at(mine.rows, old), at(theirs.rows, old)
        if after and before and before["perplexity"] > 0:
            share = after["perplexity"] / before["perplexity"] - 1
            low, high = _paired(theirs, mine, old)
            return {
                "group": group,
                "context": old,
                "share": share,
                "low": low,
                "high": high,
                "before": before["perplexity"],
                "after": after["perplexity"],
                "n": number(after.get("n")),
            }
    return None


def _paired(before: Series, after: Series, context: int | None) -> tuple[float | None, float | None]:
    """95 % interval of the relative change of perplexity, paired over the documents that both files list."""
    pair = []
    for series in (before, after):
        documents = series.summary.get("by_document")
        one = documents.get(str(context)) if isinstance(documents, dict) else None
        if not isinstance(one, dict) or not isinstance(one.get("loss"), list):
            return None, None
        pair.append(one)
    if pair[0].get("n") != pair[1].get("n") or len(pair[0]["loss"]) != len(pair[1]["loss"]):
        return None, None
    found = paired_difference(pair[0]["loss"], pair[1]["loss"], pair[0]["n"])
    if found.low is None or found.high is None:
        return None, None
    return math.expm1(found.low), math.expm1(found.high)


def _status(result: dict[str, Any], subject: Model) -> str:
    windows = result["usable"]
    after, before, claimed = windows["after"], windows["before"] or 0, windows["claimed"] or 0
    if after is None:
        return "not measured"
    if subject.role == "original":
        return "not longer"
    if windows["open"]:
        return "not measured beyond"
    if after <= before:
        return "no gain"
    return "longer" if after >= claimed and not _costly(result) else "partly"


def _costly(result: dict[str, Any]) -> bool:
    return result["cost"] is not None and result["cost"]["share"] > COST_LIMIT


def _headline(result: dict[str, Any], subject: Model) -> str:
    """How far the model reads, good or bad."""
    windows, name = result["usable"], subject.label
    after, before, claimed = windows["after"], windows["before"], windows["claimed"]
    if result["status"] == "not measured":
        return f"{name} was not measured: neither perplexity nor passkey results are here"
    if result["status"] == "not longer":
        return f"{name} is an original model; its window of {count(claimed)} tokens was not lengthened"
    if result["status"] == "not measured beyond":
        well = "was measured only" if _costly(result) else "reads well"
        return f"{name} {well} up to {count(after)}, the longest measured; {count(claimed)} was not measured"
    if result["status"] == "no gain":
        return f"{name} reads no further than before: {count(after)} of the {count(claimed)} tokens it claims"
    if result["status"] == "longer":
        gain = f", {times(after / before)} as many as before ({count(before)})" if before else ""
        return f"{name} reads {count(after)} tokens{gain}"
    if after >= (claimed or 0):
        return f"{name} does not read its {count(claimed)} tokens well"
    return f"{name} reads {count(after)} of its {count(claimed)} tokens ({count(before)} before)"


def _reasons(result: dict[str, Any]) -> list[str]:
    if result["status"] == "not measured":
        return []
    return [*_perplexity_clause(result["perplexity"]), *_passkey_clause(result), *_cost_clause(result)]


def _perplexity_clause(found: list[dict[str, Any]]) -> list[str]:
    if not found:
        return ["perplexity was not measured"]
    bad = [p for p in found if p["rises"]]
    if bad:
        parts = []
        for p in bad:
            worst = max(p["rises"], key=lambda rise: rise["to"] / rise["from"])
            place = f" on {p['group']}" if p["group"] and len(found) > 1 else ""
            share = percent(worst["to"] / worst["from"] - 1, signed=True)
            change = f"{figure(worst['from'])} to {figure(worst['to'])}, {share}"
            parts.append(f"rises at {count(worst['context'])}{place} ({change})")
        return [f"perplexity {listed(parts)}"]
    first = found[0]
    if len(first["values"]) < 2:
        return [f"perplexity is {figure(first['values'][0])} at {count(first['contexts'][0])} tokens"]
    step = "every doubling" if all(p["doublings"] for p in found) else "every longer context"
    way = f"falls with {step}" if all(p["falls"] for p in found) else "does not rise with context"
    if len(found) > 1:
        return [f"perplexity {way} on all {len(found)} groups of texts"]
    return [f"perplexity {way} ({' → '.join(map(figure, first['values']))})"]


def _passkey_clause(result: dict[str, Any]) -> list[str]:
    passkey = result["passkey"]
    if passkey is None or passkey["k_max"] is None:
        return ["passkey retrieval was not measured"]
    reached, target = passkey["k_max"], passkey["target"]
    facts = [f"k_max {count(reached)}"]
    if passkey["before"] is not None:
        facts[0] += f", original {count(passkey['before'])}"
    total = passkey["pooled"]
    if total:
        facts.append(f"{count(total['right'])} of {count(total['n'])} right, {sureness(total)}")
    if reached >= target:
        head = "the passkey is found at every distance"
    elif reached > 0:
        head = f"the passkey is found only up to {count(reached)} of {count(target)} tokens back"
    else:
        head = "the passkey is not found even at the shortest distance"
    if (passkey["read"] or 0) > reached:
        head += f", though by choice among ten it is read up to {count(passkey['read'])}"
    return [f"{head} ({'; '.join(facts)})"]


def _cost_clause(result: dict[str, Any]) -> list[str]:
    cost = result["cost"]
    if cost is None:
        return []
    where = f"at the old window of {count(cost['context'])}"
    if cost["group"] and len(result["perplexity"]) > 1:
        where += f" on {cost['group']}"
    if abs(cost["share"]) < 0.0005:
        return [f"perplexity {where} is as before"]
    word = "costs" if cost["share"] > 0 else "gains"
    share = percent(abs(cost["share"]))
    facts = f"{figure(cost['before'])} → {figure(cost['after'])}"
    if cost["low"] is not None:
        facts += (
            f"; 95 % interval {percent(cost['low'], signed=True)} to {percent(cost['high'], signed=True)}"
        )
    return [f"{where} it {word} {share} of perplexity ({facts})"]
