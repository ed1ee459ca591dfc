"""`ropewalk plan`: memory, time and tokens of a fine-tuning before a GPU is rented. No weight is loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import console
from ..errors import UserError
from ..settings import option, to_record, tokens, verb

if TYPE_CHECKING:
    from ..train.forecast import Question, Way

EXAMPLE = """ropewalk plan llama-2-7b --to 32k
  ropewalk plan path/to/model --to 128k --card h200 --gpus 8 --lora"""

STRIDE = 256
PASSKEYS = (32, 10)
"""Distances and keys of the passkey test."""


@dataclass(frozen=True)
class Plan:
    """What would `finetune` take at a window L': memory by part, operations, time on a named card?

    Full fine-tuning and LoRA, activations kept and computed again, side by side, and what would fit where
    something does not. Exit code 1 when what is asked for does not fit.
    """

    model: str = option(
        help="checkpoint directory, config.json, GGUF file, Hub id, or a known shape such as llama-2-7b",
        positional=True,
    )
    to: int | None = option(None, help="window L', tokens (default the model's window)", parse=tokens)
    card: str = option("h100", help="h100, h200, b200, a100, a100-40gb, l40s or rtx-4090")
    gpus: int = option(1, help="how many of them")
    steps: int = option(1000, help="optimizer steps")
    batch: int | None = option(None, help="sequences in an optimizer step (default by the model's size)")
    lora: bool = option(False, help="ask for LoRA: say what would fit if that does not")
    lora_rank: int = option(8, help="rank of the adapters")


@verb(Plan)
def plan(settings: Plan) -> dict[str, Any]:
    """Print and return the plan; writes nothing."""
    from ..train.cards import find_card
    from ..train.forecast import Question, as_record, chosen, cures, ways
    from ..train.rates import batch_size, peak_rate

    for name, least in {"gpus": 1, "steps": 1, "batch": 1, "lora_rank": 1, "to": 2}.items():
        value = getattr(settings, name)
        if value is not None and value < least:
            raise UserError(f"{name} is {value}; at least {least}")
    card = find_card(settings.card)
    name, config = find_config(settings.model)
    shape, parameters, adapters = _sizes(config, settings.lora_rank)
    window = settings.to or shape.window
    if window < 2:
        raise UserError(f"{settings.model} states no window; give one: --to 32k")
    batch, why = (settings.batch, "as asked") if settings.batch else batch_size(parameters, window)
    question = Question(shape, parameters, adapters, window, batch, settings.steps, card, settings.gpus)
    found = ways(question)
    asked = chosen(found, settings.lora)
    cure = [] if asked.fits else cures(question, settings.lora)
    result = {
        "model": name,
        "settings": to_record(settings),
        "parameters": parameters,
        "lora_parameters": adapters,
        "shape": asdict(shape),
        "window": window,
        "batch": batch,
        "tokens_a_step": question.tokens,
        "tokens": question.tokens * settings.steps,
        "rate": peak_rate(parameters)[0],
        "card": {**asdict(card), "gpus": settings.gpus},
        "ways": [as_record(one, question) for one in found],
        "asked": asked.name,
        "fits": asked.fits,
        "what_would_fit": cure,
        "evaluation": _evaluation(question),
        "exit_code": 0 if asked.fits else 1,
    }
    _tell(result, question, found, asked, why)
    return result


def find_config(model: str) -> tuple[str, dict[str, Any]]:
    """(name, config.json) of what the user named, without weights. Raises UserError."""
    from ..model.inspect import gguf_findings
    from ..model.known import known_config
    from ..model.load import read_config
    from ..model.source import config_source

    path = Path(model).expanduser()
    known = known_config(model)
    if known is not None and not path.exists():
        return model.lower(), known
    if path.is_file() and path.suffix == ".json":
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{model} cannot be read as JSON ({error})") from None
        if not isinstance(found, dict):
            raise UserError(f"{model} is not a mapping: not a transformers configuration")
        return path.stem if path.stem != "config" else path.resolve().parent.name, found
    source = config_source(model)
    if source.kind == "gguf":
        return source.name, gguf_findings(source.path)[0]
    return source.name, read_config(source.path)


def _sizes(config: dict[str, Any], rank: int) -> tuple[Any, int, int]:
    """(shape, parameters, parameters of adapters), counted on the model laid out without memory."""
    from ..model.shape import empty_model, shape_of
    from ..train.lora import attention_projections

    shape = shape_of(config)
    model = empty_model(config)
    parameters = sum(p.numel() for p in model.parameters())
    try:
        targets = set(attention_projections(model))
    except UserError:
        return shape, parameters, parameters // 100
    adapters = sum(
        rank * sum(module.weight.shape)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in targets and getattr(module, "weight", None) is not None
    )
    return shape, parameters, adapters


def _evaluation(question: Question) -> dict[str, float]:
    """Seconds of evaluating one model at L' on one card, bf16."""
    from ..train.pace import reading

    q = question
    distances, keys = PASSKEYS
    lengths = [q.window * (i + 1) // distances for i in range(distances)]
    passkeys = keys * sum(reading(q.shape, q.card, length, 1) for length in lengths if length)
    window = reading(q.shape, q.card, q.window, min(STRIDE, q.window))
    return {
        "perplexity_window_s": window,
        "perplexity_100k_tokens_s": window * 100_000 / min(STRIDE, q.window),
        "passkey_s": passkeys,
    }


def _tell(result: dict[str, Any], q: Question, found: list[Way], asked: Way, why: str) -> None:
    from ..train.course import RISING, course
    from ..train.forecast import gb
    from ..train.memory import host_bytes, room

    original = q.shape.window
    stretch = f", {q.window / original:g} × its {original:,}" if 0 < original < q.window else ""
    console.say(f"{result['model']}: {q.parameters:,} parameters, window {q.window:,} tokens{stretch}")
    console.say(f"{q.steps:,} steps of {q.batch} × {q.window:,} = {q.tokens:,} tokens: {why};")
    card = f"{q.cards} × {q.card.name}" if q.cards > 1 else q.card.name
    console.say(f"{result['tokens']:,} in all, on {card}: {gb(q.card.memory)}, {q.card.tflops:,g} TFLOP/s")
    names = list(dict.fromkeys(part for one in found for part in one.parts))
    rows: list[list[str]] = [
        [part, *(f"{one.parts[part] / 1e9:.2f}" if part in one.parts else "" for one in found)]
        for part in names
    ]
    rows.append(["peak, GB", *(f"{one.peak / 1e9:.1f}" for one in found)])
    rows.append([f"fits {room(q.card.memory) / 1e9:.0f} GB", *("yes" if one.fits else "no" for one in found)])
    rows.append(["sequences at once", *(str(one.load.rows) for one in found)])
    count = [record["operations"] / q.steps for record in result["ways"]]
    rows.append(["PFLOP a step", *(f"{one / 1e15:,.3g}" for one in count)])
    rows.append(["seconds a step", *(f"{one.pace.total:,.3g}" for one in found)])
    rows.append(["  of them attention", *(f"{one.pace.attention:,.3g}" for one in found)])
    rows.append(["tokens a second", *(f"{q.tokens / one.pace.total:,.0f}" for one in found)])
    rows.append(["hours in all", *(f"{one.pace.total * q.steps / 3600:,.3g}" for one in found)])
    titles = ["full", "recomputed", "LoRA", "recomputed"]
    console.table("One card's memory (GB at the peak), and time", ["", *titles], rows)
    if q.cards > 1:
        console.say(f"the {q.cards} cards have {asked.spread}; their exchange is not timed")
    cost = result["evaluation"]
    console.say(
        f"evaluation on one card: perplexity {_clock(cost['perplexity_100k_tokens_s'])} for 100,000 scored "
        f"tokens, passkey {_clock(cost['passkey_s'])}"
    )
    if asked.fits:
        host = host_bytes(q.shape, asked.load)
        beside = f", {gb(host)} of the host's memory" if host else ""
        console.say(f"finetune would do: {asked.name}, {asked.load.rows} at once, {gb(asked.peak)}{beside}")
        if (
            course(q.parameters, longer=0 < original < q.window)[0] is RISING
            and not result["settings"]["lora"]
        ):
            console.say("at this size finetune begins with short windows: less time (--short-share 0: this)")
    else:
        cure = ", or ".join(result["what_would_fit"]) or "nothing that is known here"
        console.say(f"{asked.name} does not fit ({gb(asked.peak)}); what would: {cure}")


def _clock(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else console.clock(seconds)
