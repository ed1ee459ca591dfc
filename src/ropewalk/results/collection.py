"""Results files gathered for a report: which models, in which order, and which figures may be compared.

A series is one model's rows of one evaluation on one group of texts. Two series of the same evaluation and
group are comparable when their protocol and their data's hashes are equal; those that differ from the
reference carry a mark (†) wherever they are shown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import fingerprint
from .phrasing import clean, count, plain, times

MARK = "†"
FORMS: dict[str, tuple[str, ...]] = {
    "perplexity": ("context", "perplexity"),
    "position-loss": ("from", "to", "loss"),
    "passkey": ("distance", "rate"),
    "passkey-choice": ("distance", "rate"),
    "passkey-map": ("length", "depth", "rate"),
    "training": ("step", "loss"),
    "benchmark": ("accuracy",),
    "ruler": ("length", "score"),
    "summarization": ("score",),
    "attention": ("distance", "score"),
    "sweep": (),
}
"""Evaluations that the report knows, in the page's order, with the numbers that every row of them has."""
GROUPED = ("perplexity", "position-loss")
"""Evaluations of groups of texts; their summaries say which documents were read, and their tokens."""
ORDERS = {
    "perplexity": ("context",),
    "position-loss": ("from",),
    "passkey": ("distance",),
    "passkey-choice": ("distance",),
    "passkey-map": ("length", "depth"),
    "training": ("step",),
    "ruler": ("length",),
    "attention": ("distance",),
}
"""By which numbers rows are put in order; those of other evaluations keep their own."""
METHODS = {
    "linear": "Position Interpolation",
    "dynamic": "dynamic NTK",
    "ntk": "NTK-aware scaling",
    "yarn": "YaRN",
    "llama3": "Llama 3 scaling",
    "longrope": "LongRoPE",
}
ROLES = ("original", "raised", "direct", "scaled", "tuned")
_PER_RUN = ("contexts", "lengths", "seconds", "window")
"""Settings that choose which rows there are, or follow from the model, and change no comparison."""


@dataclass(frozen=True)
class Model:
    """One checkpoint as the results files describe it, with the name by which the report calls it."""

    key: str
    label: str
    hash: str
    window: int | None
    original_window: int | None
    factor: float | None
    method: str
    parameters: int | None
    steps: int | None
    tokens: int | None
    repeats: float | None
    block: dict[str, Any]

    @property
    def scaled(self) -> bool:
        """Whether its positions or frequencies are rescaled."""
        return self.method not in ("", "none", "default") and (self.factor or 1) != 1

    @property
    def role(self) -> str:
        """One of ROLES: what was done to it."""
        if self.scaled:
            return "tuned" if self.steps else "scaled"
        longer = (self.window or 0) > (self.original_window or self.window or 0)
        if self.steps:
            return "direct"
        return "raised" if longer else "original"

    @property
    def story(self) -> str:
        """What was done to it, in words."""
        if self.role == "original":
            return f"as it was, window {count(self.window)}"
        tuned = f"fine-tuned {count(self.steps)} steps" if self.steps else "not fine-tuned"
        if self.tokens:
            tuned += f" ({count(self.tokens)} tokens)"
        if self.repeats:
            tuned += ", passages coming back in its windows"
        if not self.scaled:
            return f"no interpolation, window {count(self.window)}, {tuned}"
        name = METHODS.get(self.method, self.method)
        return f"{name} {times(self.factor or 1)} to {count(self.window)}, {tuned}"


@dataclass(frozen=True)
class Series:
    """One model's rows of one evaluation on one group of texts."""

    model: Model
    evaluation: str
    group: str
    rows: list[dict[str, Any]]
    summary: dict[str, Any]
    protocol: dict[str, Any]
    data: list[dict[str, Any]]
    provenance: dict[str, Any]
    mark: str = ""

    @property
    def label(self) -> str:
        """The model's name with the mark of what cannot be compared."""
        return self.model.label + (f" {self.mark}" if self.mark else "")

    @cached_property
    def conditions(self) -> str:
        """Equal for two series whose figures may stand side by side."""
        protocol = {k: v for k, v in self.protocol.items() if k not in _PER_RUN and v is not None}
        data = [b for b in self.data if b.get("name") == self.group] or self.data
        read = (
            [self.summary.get(key) for key in ("documents", "tokens")] if self.evaluation in GROUPED else []
        )
        return fingerprint([protocol, [b.get("sha256", b.get("name")) for b in data], read])


@dataclass(frozen=True)
class Collection:
    """Everything a report shows: models in their order, series in the order of evaluation, group, model."""

    models: list[Model]
    series: list[Series]
    subject: Model
    baseline: Model | None

    def of(self, evaluation: str) -> dict[str, list[Series]]:
        """Series of one evaluation by group of texts; not to be changed."""
        return self._by_evaluation.get(evaluation, {})

    @cached_property
    def _by_evaluation(self) -> dict[str, dict[str, list[Series]]]:
        found: dict[str, dict[str, list[Series]]] = {}
        for one in self.series:
            found.setdefault(one.evaluation, {}).setdefault(one.group, []).append(one)
        return found

    def get(self, model: Model | None, evaluation: str, group: str = "") -> Series | None:
        """A model's series, comparable with the reference if there is such a one."""
        if model is None:
            return None
        mine = self._by_model.get((evaluation, group, model.key), ())
        return min(mine, key=lambda s: bool(s.mark), default=None)

    @cached_property
    def _by_model(self) -> dict[tuple[str, str, str], list[Series]]:
        found: dict[tuple[str, str, str], list[Series]] = {}
        for one in self.series:
            found.setdefault((one.evaluation, one.group, one.model.key), []).append(one)
        return found

    def others(self) -> list[str]:
        """Evaluations found that the report has no section for."""
        return sorted({s.evaluation for s in self.series} - set(FORMS))


def collect(results: Iterable[tuple[Path | str, dict[str, Any]]]) -> Collection:
    """Order models, choose subject and baseline, split files into series and mark what is not comparable.

    results: (path, content of a results file that `read_result` accepted).
    Raises UserError for a row without its figures.
    """
    found = list(results)
    assert found, "a report needs at least one result"
    models = _models([result["model"] for _, result in found])
    names = _names(models)
    split: dict[tuple[str, ...], Series] = {}
    for path, result in found:
        for one in _split(path, result, models[_key(result["model"], names)]):
            split[one.evaluation, one.group, one.model.key, one.conditions] = one
    ordered = sorted(models.values(), key=_place)
    place = {model.key: i for i, model in enumerate(ordered)}
    known = {name: i for i, name in enumerate(FORMS)}

    def position(one: Series) -> tuple[Any, ...]:
        rank = known.get(one.evaluation, len(known))
        return rank, one.evaluation, one.group, place[one.model.key], one.conditions

    series = sorted(split.values(), key=position)
    subject = _subject(ordered, series)
    return Collection(ordered, _marked(series, subject), subject, _baseline(ordered, subject))


def difference(one: Series, reference: Series) -> str:
    """In what two series' conditions differ, in words."""
    parts = []
    for key in sorted({*one.protocol, *reference.protocol} - set(_PER_RUN)):
        ours, theirs = one.protocol.get(key), reference.protocol.get(key)
        if ours != theirs:
            parts.append(f"{clean(key)} {plain(ours)} instead of {plain(theirs)}")
    hashes = [[str(b.get("sha256", ""))[:12] for b in s.data] for s in (one, reference)]
    if hashes[0] != hashes[1]:
        parts.append(f"other data ({plain(hashes[0])} instead of {plain(hashes[1])})")
    elif one.summary.get("documents") != reference.summary.get("documents"):
        parts.append("other documents of the same data")
    elif one.summary.get("tokens") != reference.summary.get("tokens"):
        parts.append("another tokenizer: the documents have other numbers of tokens")
    return "; ".join(parts)


def references(series: Sequence[Series]) -> Series:
    """The series of one table by whose conditions the others are judged: the first without a mark."""
    return next((s for s in series if not s.mark), series[0])


def number(value: Any) -> float | None:
    """A number as it is, anything else None."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _names(models: dict[str, Model]) -> dict[str, str]:
    """The key to use for a block without a hash: that of the only model of its name."""
    by_name: dict[str, list[str]] = {}
    for key in models:
        by_name.setdefault(key.rpartition("@")[0], []).append(key)
    return {name: keys[0] for name, keys in by_name.items() if len(keys) == 1}


def _key(block: dict[str, Any], names: dict[str, str] | None = None) -> str:
    name, digits = str(block.get("name", "unnamed")), str(block.get("hash") or "")
    return (names or {}).get(name, f"{name}@{digits}") if not digits else f"{name}@{digits}"


def _models(blocks: Sequence[dict[str, Any]]) -> dict[str, Model]:
    """Each model once, under a label of its own."""
    first: dict[str, dict[str, Any]] = {}
    for block in blocks:
        first.setdefault(_key(block), block)
    hashed = {key.rpartition("@")[0] for key in first if not key.endswith("@")}
    lone = {key for key in first if key.endswith("@") and key[:-1] in hashed}
    if lone:
        several = {n for n in hashed if sum(k.rpartition("@")[0] == n for k in first if k not in lone) > 1}
        first = {k: b for k, b in first.items() if k not in lone or k[:-1] in several}
    labels: dict[str, list[str]] = {}
    for key, block in first.items():
        labels.setdefault(clean(block.get("name", "unnamed")), []).append(key)
    models = {}
    for label, keys in labels.items():
        for i, key in enumerate(sorted(keys)):
            digits = clean(first[key].get("hash") or "")[:6] or f"no {i + 1}"
            models[key] = _model(key, first[key], label if len(keys) == 1 else f"{label} ({digits})")
    return models


def _model(key: str, block: dict[str, Any], label: str) -> Model:
    trained = block.get("trained") if isinstance(block.get("trained"), dict) else {}
    assert isinstance(trained, dict)

    def whole(value: Any) -> int | None:
        found = number(value)
        return None if found is None else int(found)

    return Model(
        key=key,
        label=label,
        hash=clean(block.get("hash") or ""),
        window=whole(block.get("window")),
        original_window=whole(block.get("original_window")) or whole(block.get("window")),
        factor=number(block.get("factor")),
        method=clean(block.get("method") or "").lower(),
        parameters=whole(block.get("parameters")),
        steps=whole(trained.get("steps")),
        repeats=number(trained.get("repeats")) or number(trained.get("repeats_end")),
        tokens=whole(trained.get("tokens")),
        block=block,
    )


def _place(model: Model) -> tuple[Any, ...]:
    """Sizes apart; then original, direct fine-tuning, interpolated; the paper's method first."""
    return (
        model.parameters or 0,
        ROLES.index(model.role),
        model.method != "linear",
        model.method,
        model.window or 0,
        model.factor or 1,
        model.steps or 0,
        model.label,
        model.key,
    )


def _split(path: Path | str, result: dict[str, Any], model: Model) -> Iterator[Series]:
    """A file's rows by group of texts; passkey rows on a grid of lengths and depths are a map."""
    evaluation, rows = clean(result["evaluation"]), result["rows"]
    if evaluation == "passkey" and _is_grid(rows):
        evaluation = "passkey-map"
    groups: dict[str, list[dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        for field in FORMS.get(evaluation, ()):
            if number(row.get(field)) is None:
                raise UserError(
                    f"results file {path}: row {i + 1} of {evaluation} has no number {field!r} "
                    f"({clean(row.get(field))[:40]}); run the evaluation again"
                )
        groups.setdefault(str(row.get("data", "")) if evaluation in GROUPED else "", []).append(row)
    for group, mine in groups.items():
        yield Series(
            model,
            evaluation,
            group,
            sorted(mine, key=lambda row: [row[field] for field in ORDERS.get(evaluation, ())]),
            result["summary"],
            _used(result["protocol"], mine),
            [block for block in result["data"] if isinstance(block, dict)],
            result["provenance"],
        )


def _used(protocol: dict[str, Any], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The protocol without how sampled losses are corrected, where no row's were: it is no difference."""
    corrected = any(row.get("control") is not None for row in rows)
    return {key: value for key, value in protocol.items() if key != "control" or corrected}


def _is_grid(rows: Sequence[dict[str, Any]]) -> bool:
    cells = {(row.get("length"), row.get("depth")) for row in rows}
    lengths, depths = {length for length, _ in cells}, {depth for _, depth in cells}
    return len(lengths) > 1 and len(depths) > 1 and len(cells) == len(lengths) * len(depths)


def _marked(series: list[Series], subject: Model) -> list[Series]:
    """Mark every series whose conditions differ from the subject's (or the first's) of its table."""
    tables: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        if one.evaluation != "training":  # a loss curve is a record of each run, not a comparison
            tables.setdefault((one.evaluation, one.group), []).append(one)
    expected = {
        table: next((s for s in mine if s.model.key == subject.key), mine[0]).conditions
        for table, mine in tables.items()
    }
    return [
        dataclasses.replace(one, mark=MARK)
        if expected.get((one.evaluation, one.group), one.conditions) != one.conditions
        else one
        for one in series
    ]


def _subject(models: list[Model], series: list[Series]) -> Model:
    """The model that the verdict is about: measured, fine-tuned, interpolated, of the longest window."""
    measured = {s.model.key for s in series if s.evaluation in ("perplexity", "passkey")}

    def rank(model: Model) -> tuple[Any, ...]:
        return (
            model.key in measured,
            ROLES.index(model.role),
            model.method == "linear",
            model.window or 0,
            model.steps or 0,
            model.parameters or 0,
        )

    return max(models, key=rank)


def _baseline(models: list[Model], subject: Model) -> Model | None:
    """The model that the subject was made from: an original, if possible of its size and old window."""
    originals = [m for m in models if m.role == "original" and m.key != subject.key]

    def rank(model: Model) -> tuple[bool, bool]:
        return model.window == subject.original_window, model.parameters == subject.parameters

    best = max(originals, key=rank, default=None)
    return best if best is not None and best.window == subject.original_window else None
