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
evaluated by the same functions that the other verbs are, with the same settings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import console
from ..errors import UserError
from ..files import fingerprint, locked, read_record, require_ours, write_record
from ..settings import from_mapping, option, to_record, tokens, verb

EXAMPLE = """ropewalk run recipes/smollm2-135m-16k.yaml --data texts --out runs/smollm2
  ropewalk run recipe.yaml --set finetune.steps=50 --no-direct"""

SHORT = {"linear": "pi"}
"""How a method is called in the names of models; the others keep their own."""


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
    untrained: bool = option(False, help="also evaluate the interpolated model before its training")
    direct: bool = option(True, help="also fine-tune at L' without interpolation")
    report: dict = field(default_factory=dict, metadata={"help": "settings of `ropewalk report`"})


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
    require_ours(out)
    steps = plan_steps(recipe, out)
    if settings.dry_run:
        for step in steps:
            done = step.done is not None and step.done()
            console.say(f"{'done   ' if done else 'to do  '} {step.text}")
        return {"out": str(out), "steps": [step.text for step in steps]}
    with locked(out):
        out.mkdir(parents=True, exist_ok=True)
        record = {"verb": "run", "recipe": to_record(recipe), "settings": to_record(settings)}
        write_record(out, {**record, "fingerprint": fingerprint(record)})
        if recipe.about:
            console.say(recipe.about)
        for number, step in enumerate(steps, 1):
            console.say(f"\n[{number}/{len(steps)}] {step.text}")
            if step.done is not None and step.done():
                console.say("already complete for the same inputs")
            else:
                made = step.call()
    return {
        "out": str(out),
        "report": made["page"],
        "verdict": made["verdict"],
        "steps": [step.text for step in steps],
    }


def read_recipe(settings: Run) -> Recipe:
    """The recipe with the command line's changes, every name and value checked. Raises UserError."""
    import yaml

    path = settings.recipe
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no recipe {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"recipe {path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"recipe {path} is not a mapping of settings; see `ropewalk run -h`")
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
    )
    if settings.device:
        for section in (recipe.finetune, recipe.evaluate):
            section["device"] = settings.device
    _check(recipe, path)
    return recipe


def plan_steps(recipe: Recipe, out: Path) -> list[Step]:
    """The verbs to be called, in order."""
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
    short = SHORT.get(recipe.method, recipe.method)
    steps.append(_evaluate(recipe, base, recipe.name, out))
    interpolated = f"{recipe.name}-{short}-{recipe.to}"
    steps += _arm(recipe, base, interpolated, recipe.method, out)
    if recipe.direct:
        steps += _arm(recipe, base, f"{recipe.name}-direct-{recipe.to}", "none", out)
    steps.append(_report(recipe, out))
    return steps


def _arm(recipe: Recipe, base: str, name: str, method: str, out: Path) -> list[Step]:
    """extend, fine-tune and evaluate one arm."""
    from .extend import extend
    from .finetune import finetune

    longer = out / "checkpoints" / f"{name}-untrained"
    tuned = out / "checkpoints" / name
    wanted = {"model": base, "out": longer, "to": recipe.to, "method": method}
    steps = [
        Step(
            f"extend to {recipe.to:,} tokens by {method}: {longer.name}",
            lambda: extend(**wanted),
            lambda: _extended(longer, base, wanted),
        )
    ]
    if recipe.untrained and method != "none":
        steps.append(_evaluate(recipe, str(longer), longer.name, out))
    steps.append(
        Step(
            f"fine-tune {name}",
            lambda: finetune(
                **{"model": str(longer), "out": str(tuned), "overwrite": True, **recipe.finetune}
            ),
        )
    )
    return [*steps, _evaluate(recipe, str(tuned), name, out)]


def _extended(place: Path, base: str, wanted: dict[str, Any]) -> bool:
    """Was ``place`` made by `extend` from the same checkpoint with the same settings?"""
    from ..model.load import model_block
    from ..model.source import resolve

    record = read_record(place)
    if record is None or record.get("verb") != "extend" or not Path(resolve(base).path).exists():
        return False
    same = all(str(record["settings"].get(name)) == str(value) for name, value in wanted.items())
    return same and record["from"].get("hash") == model_block(resolve(base).path)["hash"]


def _evaluate(recipe: Recipe, model: str, name: str, out: Path) -> Step:
    from .evaluate import evaluate

    settings = {
        "target": recipe.to,
        **recipe.evaluate,
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
            **{**recipe.report, "title": title}, results=(str(out / "results"), *logs), out=out / "report"
        )

    return Step("report", call)


def _change(recipe: dict[str, Any], change: str) -> None:
    """Apply one ``SECTION.SETTING=VALUE``; the value is read as YAML."""
    import yaml

    name, equals, value = change.partition("=")
    section, _, setting = name.rpartition(".")
    if not equals or not setting:
        raise UserError(f"--set {change!r} is not SECTION.SETTING=VALUE")
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
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
        return value

    return {name: fill(value) for name, value in section.items()}


def _check(recipe: Recipe, path: Path) -> None:
    """Every section must build its verb's settings before the first step runs."""
    from .evaluate import Evaluate
    from .finetune import Finetune
    from .report import Report

    if "/" in recipe.name or recipe.name.startswith("."):
        raise UserError(
            f"recipe {path}: name is {recipe.name!r}; it becomes a directory, so no '/' or leading '.'"
        )
    own = {"model": "m", "out": "o"}
    from_mapping(Finetune, {**recipe.finetune, **own}, f"recipe {path}: finetune")
    from_mapping(Evaluate, {**recipe.evaluate, **own}, f"recipe {path}: evaluate")
    from_mapping(Report, {**recipe.report, "results": "r", "out": "o"}, f"recipe {path}: report")
