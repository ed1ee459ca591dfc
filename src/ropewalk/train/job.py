"""A fine-tuning as a user means it: checkpoint and text in, tuned checkpoint out, resumable in between."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import console
from ..data.mixture import Amount, Part, open_mixture
from ..data.text import describe
from ..data.windows import Encode, Marks
from ..errors import UserError
from ..files import fingerprint, locked, new_directory, read_record, require_ours, write_record
from ..model.card import origin, write_card
from ..model.checkpoint import same_companions
from ..model.inspect import inspect_directory
from ..model.load import load_config, load_tokenizer, model_block
from ..model.quiet import quiet
from ..model.source import Source, display_name
from ..results.record import provenance, write_result
from .adapters import write_base
from .engine import Outcome, Plan, train
from .feeding import Feeder, Layout
from .identity import ROWS, SETTINGS, difference, is_same, read_settings, require_same, write_settings
from .keeping import Keeper, snapshot_path
from .lora import ADAPTER, merge, save_adapter
from .ranks import agree, local_rank, world
from .snapshots import Snapshots, require_replaceable

LOG = "training.json"
AHEAD = 4
"""Micro-batches that are tokenised beside a GPU's work."""


@dataclass(frozen=True)
class Job:
    """source: checkpoint directory.   out: the tuned one.   settings: what the user said, as a record.

    keep_at: steps after which the model is left in OUT-step-N too.
    """

    source: Path
    out: Path
    parts: tuple[Part, ...]
    column: str | None
    plan: Plan
    layout: Layout
    settings: dict[str, Any]
    overwrite: bool = False
    keep_at: tuple[int, ...] = ()


def run(job: Job) -> dict[str, Any]:
    """Train, or go on, or say that it is done; returns OUT's record. Raises UserError."""
    block, data = _same_everywhere(job)
    identity = _identity(job, block, data)
    keeper = Keeper(job.out.parent / f".{job.out.name}.training")
    started = time.monotonic()
    with contextlib.ExitStack() as held:
        done = agree(lambda: _begin(job, identity, keeper, held))
        if done is not None:
            return done
        try:
            snapshots = _snapshots(job, block, data, identity)
            outcome = train(job.source, job.plan, _feeder(job), keeper, snapshots)
        except BaseException:
            if world()[0] == 0 and not keeper.checkpoints():
                keeper.remove()  # nothing to go on from: leave nothing behind
            raise
        record = agree(lambda: _write(job, outcome, block, data, identity))
        if world()[0] == 0:
            keeper.remove()
            console.say(_end_in_words(job, outcome, time.monotonic() - started))
    return record


def _same_everywhere(job: Job) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(what identifies the model, and the data), looked at once on each host. Raises UserError."""

    def look() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        words = [source for part in job.parts for source in part.sources]
        return model_block(job.source), describe(words)

    first = agree(look)
    if local_rank() == 0 and world()[0] != 0:
        changed = difference(_identity(job, *first), _identity(job, *look()))
        if changed is not None:
            raise UserError(f"{socket.gethostname()} has another model or other data than rank 0: {changed}")
    return first


def _begin(
    job: Job, identity: dict[str, Any], keeper: Keeper, held: contextlib.ExitStack
) -> dict[str, Any] | None:
    """Take hold of OUT; the record of a training that is complete, None for one to begin or go on with."""
    require_ours(job.out, "finetune")
    held.enter_context(locked(job.out))
    done = _completed(job, identity)
    if done is None:
        for step in job.keep_at:
            require_replaceable(snapshot_path(job.out, step), identity, job.overwrite)
        _claim(keeper, job, identity)
        return None
    found = read_settings(keeper.work)
    if found is None or is_same(found, identity):
        keeper.remove()  # the process that finished was killed before it could
    console.say(f"{job.out} is already trained with these settings on these data")
    return done


def _completed(job: Job, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The record of a finished OUT with the same identity. Raises UserError when it is another's."""
    record = read_record(job.out)
    if record is None:
        return None
    before = record.get("identity")
    whole = record.get("fingerprint") == fingerprint(before)  # and no snapshot of one of its steps
    if whole and is_same(before, identity):
        return record
    if job.overwrite:
        return None
    require_same(before, identity, job.out)
    return None


def _claim(keeper: Keeper, job: Job, identity: dict[str, Any]) -> None:
    """Make the work directory this training's; checkpoints of another, or of an unknown one, are refused."""
    begun = bool(keeper.checkpoints())
    found = read_settings(keeper.work) if begun else None
    if job.overwrite and not is_same(found, identity):
        keeper.remove()
    elif begun and found is None:
        raise UserError(
            f"{keeper.work} holds checkpoints, but its {SETTINGS} cannot be read, so nothing says of which "
            "training: restore that file, or give --overwrite to begin again"
        )
    else:
        require_same(found, identity, job.out)
    write_settings(keeper.work, {**identity, ROWS: job.plan.micro})


def _identity(job: Job, block: dict[str, Any], data: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that decides which weights come out, as flat JSON."""
    plan, layout = job.plan, job.layout
    found = {
        "model": block["hash"],
        "data": [f"{one['name']} {one['sha256'][:16]}" for one in data],
        "shares": [part.weight for part in job.parts],
        "column": job.column,
        "steps": plan.steps,
        "rate": plan.rate,
        "warmup": plan.warmup,
        "schedule": plan.schedule,
        "window": plan.length,
        "batch": plan.batch,
        "seed": plan.seed,
        "dtype": plan.dtype,
        "clip": plan.clip,
        "lora": plan.lora,
        "only": list(plan.only),
        "packing": layout.packing,
        "short_share": layout.short_share,
        "skip_positions": layout.skip_to,
        "segments": layout.segments if layout.skip_to else 0,
    }
    if layout.repeats:
        found["repeats"] = layout.repeats
    if layout.repeats_end is not None:
        found["repeats_end"] = layout.repeats_end
    if plan.average:
        found["average"] = plan.average
    if layout.short_share_end is not None:
        found["short_share_end"] = layout.short_share_end
    if job.keep_at:
        found["keep_at"] = list(job.keep_at)
    return found


def _snapshots(
    job: Job, before: dict[str, Any], data: list[dict[str, Any]], identity: dict[str, Any]
) -> Snapshots | None:
    """What is to be left of the model on the way; None where nothing is asked for."""
    import torch

    if not job.keep_at:
        return None

    def fill(beside: Path, step: int) -> dict[str, Any]:
        _copy_companions(job.source, beside)
        after = _block_after(job, before, beside, step, data, f"{job.out.name}-step-{step}")
        record = {
            "verb": "finetune",
            "settings": job.settings,
            "identity": identity,
            "fingerprint": fingerprint({**identity, "step": step}),
            "model": after,
            "from": before,
        }
        write_card(beside, record, origin(Source("directory", job.source, display_name(job.source))))
        return record

    return Snapshots(job.keep_at, job.out, load_config(job.source).dtype or torch.float32, fill)


def _feeder(job: Job) -> Feeder:
    plan = job.plan
    tokenizer = load_tokenizer(job.source)
    mixture, sizes = open_mixture(
        job.parts,
        encoder(tokenizer),
        plan.length,
        marks=marks_of(tokenizer),
        seed=plan.seed,
        column=job.column,
    )
    for part, amount in zip(job.parts, sizes):
        _say_passes(part, amount, plan, job.layout)
    rank, ranks = world()
    return Feeder(
        mixture,
        job.layout,
        micro=plan.micro,
        accumulate=plan.accumulate,
        rank=rank // plan.context,
        ranks=ranks // plan.context,
        part=rank % plan.context,
        parts=plan.context,
        ahead=0 if plan.device == "cpu" else AHEAD,
    )


def _say_passes(part: Part, amount: Amount, plan: Plan, layout: Layout) -> None:
    """How much of a text will be read, how often; and whether its documents ask for the whole window."""
    need = plan.steps * plan.step_tokens * part.weight
    name = " ".join(part.sources) if len(part.sources) <= 3 else f"{len(part.sources)} sources"
    if amount.tokens is None:
        console.say(f"data {name}: size unknown, streamed; {need:,.0f} tokens are needed")
    else:
        passes = need / max(1, amount.tokens)
        read = f"{passes:.1f} passes over it" if passes > 1 else f"{passes:.0%} of it will be read"
        text = f"data {name}: about {_round(amount.tokens):,} tokens, {need:,.0f} are needed"
        console.say(f"{text}: {read}")
    window = layout.skip_to or plan.length
    if amount.document is not None and amount.document < window / 2:
        cure = "" if layout.repeats or layout.repeats_end else ", or --repeats"
        console.say(
            f"  its documents have about {_round(round(amount.document)):,} tokens: windows of {window:,} "
            f"join several, which teach little of their far end; better longer ones{cure}"
        )


def encoder(tokenizer: Any) -> Encode:
    """Text to token ids without special tokens."""

    def encode(text: str) -> Sequence[int]:
        return tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    return encode


def marks_of(tokenizer: Any) -> Marks:
    """BOS in front of a document where the tokenizer itself puts one; EOS behind it where it has one."""
    first = tokenizer("a")["input_ids"][:1]
    bos = tokenizer.bos_token_id
    return Marks(bos=bos if bos is not None and first == [bos] else None, eos=tokenizer.eos_token_id)


def _write(
    job: Job, outcome: Outcome, before: dict[str, Any], data: list[dict[str, Any]], identity: dict[str, Any]
) -> dict[str, Any]:
    """OUT: the weights in the source's own precision, its config and tokenizer, the log, the record.

    With LoRA the weights are the merged ones, and ``adapter/`` holds the adapter and what tells its
    base: see `write_base`.
    """
    import torch

    dtype = load_config(job.source).dtype or torch.float32
    rows = _rows(outcome, job.plan)
    with new_directory(job.out, "finetune") as beside:
        model = outcome.model
        with quiet():
            if job.plan.lora:
                save_adapter(model, beside / ADAPTER)
                write_base(beside / ADAPTER, job.source, before["name"])
                model = merge(model, dtype)
            model.to(dtype).save_pretrained(beside)
        _copy_companions(job.source, beside)
        for file in beside.rglob("*.safetensors"):
            os.chmod(file, (beside / "config.json").stat().st_mode & 0o777)
        after = _block_after(job, before, beside, job.plan.steps, data, job.out.name)
        record = {
            "verb": "finetune",
            "settings": job.settings,
            "identity": identity,
            "fingerprint": fingerprint(identity),
            "model": after,
            "from": before,
        }
        write_result(beside / LOG, _log(job, outcome, after, data, rows))
        write_card(beside, record, origin(Source("directory", job.source, display_name(job.source))))
        write_record(beside, record)
        for finding in inspect_directory(beside):
            console.say(f"! {finding.text}; {finding.cure}")
    return record


def _copy_companions(source: Path, target: Path) -> None:
    """The source's config, tokenizer, generation settings and licence, as they are: see `COMPANIONS`."""
    (target / "generation_config.json").unlink(missing_ok=True)  # transformers' own guess at it
    same_companions(source, target)
    shutil.copyfile(source / "config.json", target / "config.json")


def _block_after(
    job: Job, before: dict[str, Any], beside: Path, steps: int, data: list[dict[str, Any]], name: str
) -> dict[str, Any]:
    block = model_block(beside, name=name)
    for key in ("original_window", "factor", "method"):  # what no config tells: see `model_block`
        block[key] = before[key]
    earlier = (before.get("trained") or {}).get("steps", 0)
    block["trained"] = {
        "steps": steps,
        "tokens": steps * job.plan.step_tokens,
        "window": job.layout.skip_to or job.plan.length,
        "rate": job.plan.rate,
        "data": [one["name"] for one in data],
        **({"steps_before": earlier} if earlier else {}),
        **({"lora": job.plan.lora} if job.plan.lora else {}),
        **({"only": list(job.plan.only)} if job.plan.only else {}),
        **({"average": job.plan.average} if job.plan.average and steps == job.plan.steps else {}),
        **_repeats(job.layout),
    }
    return block


def _repeats(layout: Layout) -> dict[str, float]:
    """What the record of a model says of the passages that came back in its training."""
    found = {"repeats": layout.repeats} if layout.repeats or layout.repeats_end else {}
    return found if layout.repeats_end is None else {**found, "repeats_end": layout.repeats_end}


def _rows(outcome: Outcome, plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "step": int(entry["step"]),
            "loss": float(entry["loss"]),
            "tokens": int(entry["step"]) * plan.step_tokens,
            "learning_rate": float(entry["learning_rate"]),
        }
        for entry in outcome.log
    ]


def _log(
    job: Job, outcome: Outcome, after: dict[str, Any], data: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    import torch

    plan, layout = job.plan, job.layout
    seconds = outcome.seconds if plan.device == "cuda" else None
    protocol = {
        "name": "next-token",
        "optimizer": "AdamW",
        "betas": [0.9, 0.95],
        "weight_decay": 0.0,
        "peak_rate": plan.rate,
        "warmup": plan.warmup,
        "schedule": plan.schedule,
        "average": plan.average,
        "clip": plan.clip,
        "steps": plan.steps,
        "batch": plan.batch,
        "length": plan.length,
        "tokens_a_step": plan.step_tokens,
        "packing": layout.packing,
        "short_share": layout.short_share,
        "short_share_end": layout.short_share_end,
        "repeats": layout.repeats,
        "repeats_end": layout.repeats_end,
        "skip_positions_to": layout.skip_to or None,
        "shares": _shares(job.parts),
        "lora": plan.lora,
        "only": list(plan.only),
    }
    return {
        "evaluation": "training",
        "model": after,
        "protocol": protocol,
        "data": data,
        "rows": rows,
        "summary": {
            "loss_last_tenth": _last_loss(rows),
            "tokens": rows[-1]["tokens"],
            "passes": outcome.passes,
            # on a CPU the same inputs give the same bytes, so no time is among them
            "tokens_per_second": round(plan.step_tokens / seconds) if seconds else None,
            "peak_bytes": outcome.peak,
            "processes": world()[1],
        },
        "provenance": provenance(
            device=torch.cuda.get_device_name() if plan.device == "cuda" else plan.device,
            dtype=plan.dtype,
            seed=plan.seed,
            attention=outcome.attention,
        ),
    }


def _last_loss(rows: list[dict[str, Any]]) -> float:
    """The mean loss of the last tenth of the steps."""
    last = rows[-max(1, len(rows) // 10) :]
    return math.fsum(row["loss"] for row in last) / len(last)


def _end_in_words(job: Job, outcome: Outcome, seconds: float) -> str:
    """What came out, and what this process did for it."""
    tokens = (job.plan.steps - outcome.began) * job.plan.step_tokens
    loss = _last_loss(_rows(outcome, job.plan))
    text = f"wrote {job.out}: loss {loss:.3f} in the last tenth of the steps, "
    text += f"{tokens:,} tokens in {console.clock(seconds)}"
    return text + (f" from step {outcome.began:,} on" if outcome.began else "")


def _round(number: int) -> int:
    """To three digits: what an estimate can bear."""
    digits = max(0, len(str(number)) - 3)
    return round(number, -digits)


def _shares(parts: Sequence[Part]) -> dict[str, float]:
    """Each part's share by its files' names; with their folder where two parts have the same names."""
    for kept in (1, 2, 99):

        def name(source: str, kept: int = kept) -> str:
            return source if source.startswith("hub:") else "/".join(Path(source).parts[-kept:])

        found = {" ".join(map(name, part.sources)): part.weight for part in parts}
        if len(found) == len(parts):
            break
    return found
