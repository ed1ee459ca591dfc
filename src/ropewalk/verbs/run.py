"""`ropewalk run`: a recipe from the original checkpoint to the report; steps that are done are skipped.

A recipe is a YAML file (`Recipe` below has every key):

    name: smollm2
    model: smollm2                # directory, Hub id, GGUF file, or a packaged name
    to: 16k                       # L'
    data: path/to/texts           # what {data} stands for below
    direct: true                  # also: fine-tuned at L' without interpolation
    finetune: {data: ["{data}/train.parquet"], steps: 200}
    evaluate: {perplexity: ["books={data}/test.parquet"], passkey: true}

Arms: the original as it is; directly fine-tuned; interpolated and fine-tuned. Each is extended, trained and
evaluated by the same functions that the other verbs are, with the same settings. More is said with

    base: other.yaml              # everything that is not said here; sections are merged
    arms:                         # instead of the two: methods and windows side by side (`Arm` has every key)
      - {method: linear}
      - {method: yarn, finetune: {rate: 1.0e-4}}
    by_steps: {at: [0, 100, 200], passkey: true}     # evaluations of the model on its way, of one training
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import console
from ..board import published
from ..errors import UserError
from ..files import fingerprint, from_yaml, locked, read_record, require_ours, write_record
from ..settings import from_mapping, option, to_record, tokens, verb

EXAMPLE = """ropewalk run recipes/smollm2-135m-16k.yaml --data texts --out runs/smollm2
  ropewalk run recipe.yaml --set finetune.steps=50 --no-direct"""

SHORT = {"linear": "pi", "none": "direct"}
"""How a method is called in the names of models; the others keep their own."""
LONGEST_NAME = 80
"""Of a recipe: it is part of the names of files."""

OWN = {"overwrite": True}
"""How a run evaluates: its results are its own, and a model trained anew replaces what it was before."""

ORIGINAL = "original"
"""What ``--arms`` calls the model as it is."""


@dataclass(frozen=True)
class Run:
    """Walk a recipe: extend, fine-tune, evaluate and report, the arms side by side.

    Steps already complete for the same inputs are skipped, so the same command goes on after any
    interruption. It ends with a verdict in one sentence and the page that proves it.
    """

    recipe: Path = option(help="YAML file, see docs/tutorial.md", positional=True)
    out: Path | None = option(None, help="directory of everything made (default runs/NAME)")
    data: str | None = option(None, help="directory that {data} in the recipe stands for")
    direct: bool | None = option(None, help="also fine-tune without interpolation (default: the recipe's)")
    set: tuple[str, ...] = option((), help="change the recipe: SECTION.SETTING=VALUE, or SETTING=VALUE")
    device: str | None = option(None, help="auto, cpu or cuda (default: the recipe's, else auto)")
    arms: tuple[str, ...] = option(
        (), help="walk these arms only, such as original pi-16384 direct-16384 (default: all)"
    )
    report: bool = option(True, help="end with the report")
    dry_run: bool = option(False, help="print the steps and whether each is done; do nothing")


@dataclass(frozen=True)
class Recipe:
    """What a recipe file says; the sections take the settings of the verb they are named after."""

    name: str = option(help="what results call the model")
    model: str = option(help="directory, Hub id, GGUF file, 'embedded' or 'smollm2'")
    to: int = option(help="target window L', tokens", parse=tokens)
    finetune: dict = option(help="settings of `ropewalk finetune`")
    evaluate: dict = option(help="settings of `ropewalk evaluate`")
    about: str = option("", help="one line on what this recipe shows")
    data: str | None = option(None, help="directory that {data} stands for")
    method: str = option("linear", help="linear (Position Interpolation) or another of `extend --method`")
    window: int | None = option(
        None, help="window L that the model really has: `extend --window`", parse=tokens
    )
    untrained: bool = option(False, help="also evaluate the interpolated model before its training")
    direct: bool = option(True, help="also fine-tune at L' without interpolation")
    arms: tuple[dict, ...] = option((), help="the arms, instead of method, untrained and direct")
    by_steps: dict = field(default_factory=dict, metadata={"help": "at: steps; else settings of evaluate"})
    report: dict = field(default_factory=dict, metadata={"help": "settings of `ropewalk report`"})


@dataclass(frozen=True)
class Arm:
    """One way to the longer window: a method, and what it changes in the recipe's sections."""

    method: str = option("linear", help="of `extend --method`; none is direct fine-tuning")
    to: int | None = option(None, help="target window, tokens (default: the recipe's)", parse=tokens)
    name: str | None = option(None, help="what results call it behind the recipe's name (default: pi-16384)")
    after: str | None = option(None, help="begin from this arm's tuned model, not from the original")
    untrained: bool = option(False, help="also evaluate it before its training")
    finetune: dict = field(default_factory=dict, metadata={"help": "changes of the recipe's section"})
    evaluate: dict = field(default_factory=dict, metadata={"help": "changes of the recipe's section"})
    by_steps: dict = field(default_factory=dict, metadata={"help": "changes of the recipe's section"})


@dataclass(frozen=True)
class Step:
    """One call of one verb. done: are its outputs complete for the same inputs? (None: the verb tells)"""

    text: str
    call: Callable[[], dict[str, Any]]
    done: Callable[[], bool] | None = None


@verb(Run)
def run(settings: Run) -> dict[str, Any]:
    """Walk the recipe; {"out", "report", "verdict", "steps"}."""
    recipe = read_recipe(settings)
    out = settings.out or Path("runs") / recipe.name
    require_ours(out, "run")
    steps = plan_steps(recipe, out, settings.arms)
    if settings.report:
        steps.append(_report(recipe, out))
    if settings.dry_run:
        for step in steps:
            done = step.done is not None and step.done()
            console.say(f"{'done   ' if done else 'to do  '} {step.text}")
        return {"out": str(out), "steps": [step.text for step in steps]}
    _require_possible(recipe)
    with locked(out):
        out.mkdir(parents=True, exist_ok=True)
        record = {"verb": "run", "recipe": to_record(recipe), "settings": to_record(settings)}
        write_record(out, {**record, "fingerprint": fingerprint(record)})
        if recipe.about:
            console.say(recipe.about)
        made: dict[str, Any] = {}
        with published(out) as board:
            for number, step in enumerate(steps, 1):
                console.say(f"\n[{number}/{len(steps)}] {step.text}")
                if board is not None:
                    board.begin(steps=[one.text for one in steps], step=number)
                if step.done is not None and step.done():
                    console.say("already complete for the same inputs")
                else:
                    made = step.call()
    return {
        "out": str(out),
        "report": made.get("page"),
        "verdict": made.get("verdict"),
        "steps": [step.text for step in steps],
    }


def read_recipe(settings: Run) -> Recipe:
    """The recipe with the command line's changes, every name and value checked. Raises UserError."""
    path = settings.recipe
    found = _read(path)
    for change in settings.set:
        _change(found, change)
    for name in ("data", "direct"):
        if getattr(settings, name) is not None:
            found[name] = getattr(settings, name)
    recipe = from_mapping(Recipe, found, str(path))
    recipe = replace(
        recipe,
        finetune=_fill(recipe.finetune, recipe, path),
        evaluate=_fill(recipe.evaluate, recipe, path),
        by_steps=_fill(recipe.by_steps, recipe, path),
        arms=tuple(_fill(arm, recipe, path) for arm in recipe.arms),
    )
    if settings.device:
        for section in (recipe.finetune, recipe.evaluate, *([recipe.by_steps] if recipe.by_steps else [])):
            section["device"] = settings.device
    _check(recipe, path)
    return recipe


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe file as a mapping, on top of its ``base``. Raises UserError."""
    if path.resolve() in seen:
        raise UserError(f"recipe {path} is its own base")
    try:
        found = from_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe {path}" + (f", the base of {seen[-1]}" if seen else "")) from None
    except (OSError, ValueError) as error:
        raise UserError(f"recipe {path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"recipe {path} is not a mapping of settings; see `ropewalk run -h`")
    base = found.pop("base", None)
    if base is None:
        return found
    if not isinstance(base, str):
        raise UserError(f"recipe {path}: base is {base!r}, not the path of a recipe")
    return _merged(_read(path.parent / base, (*seen, path.resolve())), found)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``under``; mappings are merged, all else is replaced."""
    both = dict(under)
    for name, value in over.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def arms_of(recipe: Recipe) -> dict[str, Arm]:
    """The recipe's arms by their names (as results have them, without the recipe's). Raises UserError."""
    said = recipe.arms or (
        {"method": recipe.method, "untrained": recipe.untrained and recipe.method != "none"},
        *([{"method": "none"}] if recipe.direct else []),
    )
    found: dict[str, Arm] = {}
    for number, one in enumerate(said, 1):
        arm = from_mapping(Arm, one, f"arm {number}")
        to = arm.to or recipe.to
        name = arm.name or f"{SHORT.get(arm.method, arm.method)}-{to}"
        if name in found or name == ORIGINAL or "/" in name:
            raise UserError(f"arm {number}: the name {name!r} is taken or has a '/' in it; give another name")
        if arm.after is not None and arm.after not in found:
            raise UserError(f"arm {number}: after is {arm.after!r}, no arm before it ({', '.join(found)})")
        found[name] = replace(arm, to=to, name=name)
    return found


def plan_steps(recipe: Recipe, out: Path, wanted: tuple[str, ...] = ()) -> list[Step]:
    """The verbs to be called, in order, but for the report. wanted: names of arms; empty for all."""
    from ..model.convert import to_checkpoint
    from ..model.source import resolve

    source = resolve(recipe.model)
    steps: list[Step] = []
    base = recipe.model
    if source.kind == "gguf":
        place = out / "checkpoints" / recipe.name
        base = str(place)
        steps.append(
            Step(
                f"convert {source.path.name} to a checkpoint, the original as it is",
                lambda: {"out": str(to_checkpoint(source, place))},
                lambda: (read_record(place) or {}).get("from", {}).get("file") == source.path.name,
            )
        )
    arms = arms_of(recipe)
    for name in wanted:
        if name not in (ORIGINAL, *arms):
            raise UserError(f"no arm {name!r} in the recipe; it has {', '.join((ORIGINAL, *arms))}")
    if not wanted or ORIGINAL in wanted:
        steps.append(_evaluate(recipe, base, recipe.name, out))
    for name, arm in arms.items():
        if not wanted or name in wanted:
            steps += _arm(recipe, arm, base, out)
    return steps


def _arm(recipe: Recipe, arm: Arm, base: str, out: Path) -> list[Step]:
    """extend, fine-tune and evaluate one arm; evaluate it on its way where the recipe wants that."""
    from ..train.keeping import snapshot_path
    from .extend import extend
    from .finetune import finetune

    assert arm.to is not None
    name = f"{recipe.name}-{arm.name}"
    longer = out / "checkpoints" / f"{name}-untrained"
    tuned = out / "checkpoints" / name
    if arm.after is not None:
        base = str(out / "checkpoints" / f"{recipe.name}-{arm.after}")
    window = recipe.window if arm.after is None else None  # the arm before it has it in its factor
    wanted = {"model": base, "out": longer, "to": arm.to, "method": arm.method, "window": window}
    training = {**recipe.finetune, **arm.finetune}
    on_the_way = {**recipe.by_steps, **arm.by_steps}
    last, at = training.get("steps", 1000), on_the_way.pop("at", [])
    between = [step for step in at if 0 < step < last]
    if between:
        training["keep_at"] = between
    steps = [
        Step(
            f"extend to {arm.to:,} tokens by {arm.method}: {longer.name}",
            lambda: extend(**wanted),
            lambda: _extended(longer, base, wanted),
        )
    ]
    if arm.untrained:
        steps.append(_evaluate(recipe, str(longer), longer.name, out, arm))
    steps.append(
        Step(
            f"fine-tune {name}",
            lambda: finetune(**{"model": str(longer), "out": str(tuned), "overwrite": True, **training}),
        )
    )
    for step in at:
        place = longer if step == 0 else tuned if step == last else snapshot_path(tuned, step)
        steps.append(_on_the_way({"target": arm.to, **on_the_way}, place, f"{name}-step-{step}", out))
    return [*steps, _evaluate(recipe, str(tuned), name, out, arm)]


def _on_the_way(wanted: dict[str, Any], model: Path, name: str, out: Path) -> Step:
    """Evaluate one arm as it stands after so many steps, apart from the results of finished models."""
    from .evaluate import evaluate

    settings = {**OWN, **wanted, "model": str(model), "name": name, "out": str(out / "by-steps")}
    return Step(f"evaluate {name}", lambda: evaluate(**settings))


def _extended(place: Path, base: str, wanted: dict[str, Any]) -> bool:
    """Was ``place`` made by `extend` from the same checkpoint with the same settings?"""
    from ..model.load import model_block
    from ..model.source import resolve

    record = read_record(place)
    if record is None or record.get("verb") != "extend" or not Path(resolve(base).path).exists():
        return False
    same = all(str(record["settings"].get(name)) == str(value) for name, value in wanted.items())
    return same and record["from"].get("hash") == model_block(resolve(base).path)["hash"]


def _evaluate(recipe: Recipe, model: str, name: str, out: Path, arm: Arm | None = None) -> Step:
    from .evaluate import evaluate

    settings = {
        **OWN,
        "target": recipe.to if arm is None else arm.to,
        **recipe.evaluate,
        **({} if arm is None else arm.evaluate),
        "model": model,
        "name": name,
        "out": str(out / "results"),
    }
    return Step(f"evaluate {name}", lambda: evaluate(**settings))


def _report(recipe: Recipe, out: Path) -> Step:
    from .report import report

    def call() -> dict[str, Any]:
        logs = sorted(str(path) for path in (out / "checkpoints").glob("*/training.json"))
        title = recipe.report.get("title") or f"{recipe.name}: a window of {recipe.to:,} tokens"
        return report(
            **{**recipe.report, "title": title},
            results=(str(out / "results"), *logs),
            out=out / "report",
            card=tuple(str(Path(log).parent) for log in logs),
        )

    return Step("report", call)


def _change(recipe: dict[str, Any], change: str) -> None:
    """Apply one ``SECTION.SETTING=VALUE``; the value is read as YAML."""
    name, equals, value = change.partition("=")
    section, _, setting = name.rpartition(".")
    if not equals or not setting:
        raise UserError(f"--set {change!r} is not SECTION.SETTING=VALUE")
    try:
        read = from_yaml(value)
    except ValueError:
        raise UserError(f"--set {change!r}: the value is not YAML") from None
    place = recipe.setdefault(section, {}) if section else recipe
    if not isinstance(place, dict):
        raise UserError(f"--set {change!r}: {section!r} has no settings")
    place[setting] = read


def _fill(section: dict[str, Any], recipe: Recipe, path: Path) -> dict[str, Any]:
    """The section with ``{data}`` replaced by the recipe's data directory."""

    def fill(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [fill(item) for item in value]
        if isinstance(value, str) and "{data}" in value:
            if recipe.data is None:
                raise UserError(f"recipe {path}: {value!r} needs a data directory; give --data DIR")
            return value.replace("{data}", str(recipe.data))
        if isinstance(value, dict):
            return {name: fill(item) for name, item in value.items()}
        return value

    return {name: fill(value) for name, value in section.items()}


def _check(recipe: Recipe, path: Path) -> None:
    """Every section must build its verb's settings before the first step runs."""
    from .evaluate import Evaluate
    from .finetune import Finetune
    from .report import Report

    if "/" in recipe.name or recipe.name.startswith(".") or not 0 < len(recipe.name) <= LONGEST_NAME:
        raise UserError(
            f"recipe {path}: name is {recipe.name[:LONGEST_NAME]!r}; it becomes a directory, so 1 to "
            f"{LONGEST_NAME} characters, no '/' and no leading '.'"
        )
    own = {"model": "m", "out": "o"}
    for section in (recipe.finetune, *(arm.get("finetune", {}) for arm in recipe.arms)):
        if isinstance(section, dict) and {"model", "out"} & set(section):
            raise UserError(
                f"recipe {path}: finetune names a model or an output; the recipe's steps decide them"
            )
    for name, arm in {"": Arm(), **arms_of(recipe)}.items():
        where = f"recipe {path}: " + (f"arm {name}: " if name else "")
        from_mapping(Finetune, {**recipe.finetune, **arm.finetune, **own}, where + "finetune")
        from_mapping(Evaluate, {**recipe.evaluate, **arm.evaluate, **own}, where + "evaluate")
        if recipe.by_steps or arm.by_steps:
            last = {**recipe.finetune, **arm.finetune}.get("steps", 1000)
            _check_by_steps({**recipe.by_steps, **arm.by_steps}, last, where + "by_steps")
    from_mapping(Report, {**recipe.report, "results": "r", "out": "o"}, f"recipe {path}: report")


def _require_possible(recipe: Recipe) -> None:
    """Refuse what a later step would refuse, before the first one takes its hour. Raises UserError."""
    from ..data.mixture import parse_mixture
    from ..data.text import shards
    from ..model.device import choose_device
    from ..model.gguf_in import gguf_config, read_gguf
    from ..model.load import read_config
    from ..model.scaling import extended_config
    from ..model.source import resolve
    from .evaluate import Evaluate, groups
    from .finetune import Finetune
    from .finetune import _check as check_training

    source = resolve(recipe.model)
    if source.kind == "gguf":
        config = gguf_config(read_gguf(source.path))
    else:
        config = read_config(source.path)
    for arm in [Arm(method="", to=recipe.to), *arms_of(recipe).values()]:
        training = from_mapping(Finetune, {**recipe.finetune, **arm.finetune, "model": "m", "out": "o"})
        measuring = from_mapping(Evaluate, {**recipe.evaluate, **arm.evaluate, "model": "m", "out": "o"})
        check_training(training)
        for device in (training.device, measuring.device):
            choose_device(device, "auto", several=True)
        texts = [part.sources for part in parse_mixture(training.data)]
        for words in (measuring.perplexity, measuring.position_loss, measuring.attention):
            texts += groups(words).values()
        for sources in texts:
            shards(sources, training.column or measuring.column)
        if measuring.contexts and min(measuring.contexts) < measuring.stride + 2:
            raise UserError(
                f"context {min(measuring.contexts)} must be longer than the stride of {measuring.stride} "
                "tokens by 2 or more"
            )
        if arm.method and arm.after is None:
            assert arm.to is not None
            extended_config(config, arm.to, arm.method, window=recipe.window)


def _check_by_steps(section: dict[str, Any], last: int, where: str) -> None:
    from .evaluate import Evaluate

    at = section.get("at")
    if not isinstance(at, list) or not all(type(step) is int and step >= 0 for step in at):
        raise UserError(f"{where}: at is {at!r}, not a list of steps, such as [0, 200]")
    if max(at, default=0) > last:
        raise UserError(f"{where}: at has {max(at)}, behind the last step, {last}")
    rest = {key: value for key, value in section.items() if key != "at"}
    from_mapping(Evaluate, {**rest, "model": "m", "out": "o"}, where)
