"""`ropewalk finetune`: short next-token training at the model's window."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import console
from ..errors import UserError
from ..settings import option, to_arguments, to_record, tokens, verb

if TYPE_CHECKING:
    from ..model.shape import Shape
    from ..train.engine import Plan
    from ..train.memory import Load
    from ..train.spread import Spread

EXAMPLE = """ropewalk finetune longer-model tuned-model --data books.parquet:0.9 math.parquet:0.1
  ropewalk finetune longer-model tuned-model --data corpus/ --steps 400 --rate 5e-4 --dtype bf16
  torchrun --nproc-per-node 8 -m ropewalk finetune longer-model tuned-model --data corpus/"""


RANK = 8
"""Of adapters where the user says none: LongLoRA's (Chen et al. 2023, arXiv 2309.12307)."""


@dataclass(frozen=True)
class Finetune:
    """Train a checkpoint on text at its own window L', as the paper does: 1,000 steps of AdamW.

    Data: .txt .md .py .jsonl (also packed: .gz .zst .xz .bz2) .parquet files, directories, 'stdlib',
    hub:OWNER/NAME; FILE:0.9 gives a share. A killed training goes on with the same command; OUT appears
    when it is complete.
    """

    model: str = option(help="checkpoint directory, Hub id, or 'embedded'", positional=True)
    out: str = option(help="directory of the tuned checkpoint", positional=True)
    data: tuple[str, ...] = option(help="text to train on; NAME:SHARE for a mixture")
    steps: int = option(1000, help="optimizer steps")
    rate: float | None = option(None, help="peak learning rate (default by the model's size)")
    batch: int | None = option(None, help="sequences in an optimizer step (default by the model's size)")
    warmup: int = option(20, help="steps of linear warm-up from a tenth of the peak")
    schedule: Literal["constant", "linear", "cosine", "wsd"] = option(
        "constant", help="the rate after the warm-up; wsd: constant, then falling over the last fifth"
    )
    average: float | None = option(
        None,
        help="share of the steps, the last ones, of whose weights the mean is taken (default by the model's "
        "size, with the four below; 0: none)",
    )
    window: int | None = option(None, help="tokens in a sequence (default the model's window)", parse=tokens)
    packing: Literal["joined", "apart"] = option(
        "joined", help="documents in one window see each other, or not"
    )
    short_share: float | None = option(
        None,
        help="share of the steps whose windows are cut to the original L (default by the model's size)",
    )
    short_share_end: float | None = option(
        None, help="where that share has come, evenly, by the last step (default: it stays)"
    )
    repeats: float | None = option(
        None,
        help="passages for every 256 tokens that come back later in the window: asks for every distance "
        "(default by the model's size)",
    )
    repeats_end: float | None = option(
        None, help="where that density has come, evenly, by the last step (default: it stays)"
    )
    skip_positions: int | None = option(
        None, help="train on chunks of so many tokens, positions jumping across the window", parse=tokens
    )
    segments: int = option(2, help="runs of positions in a chunk with --skip-positions")
    column: str | None = option(None, help="text column of .jsonl and .parquet (default: told by itself)")
    seed: int = option(0, help="order of the data, and all chances")
    device: str = option("auto", help="auto, cpu or cuda")
    dtype: Literal["bf16", "float32"] | None = option(
        None, help="arithmetic; weights stay float32 (default bf16 on a GPU, float32 on a CPU)"
    )
    gpus: int | None = option(None, help="processes on this machine, one a GPU (default all GPUs)")
    parallel: Literal["auto", "data", "fsdp", "context"] = option(
        "auto",
        help="several processes: copies of the model, parts of it, or parts of each window too "
        "(auto: the first that fits)",
    )
    share_window: int | None = option(
        None, help="processes that hold one window together (default by memory, all with context)"
    )
    micro_batch: int | None = option(None, help="sequences in memory at once (default by memory)")
    recompute: bool | None = option(None, help="compute activations twice to save memory (default by memory)")
    tile: int | None = option(
        None,
        help="tokens at once in feed-forward parts and norms (default by memory; 0 for all)",
    )
    offload: bool | None = option(
        None, help="keep the layers' inputs in the host's memory, to save the GPU's (default by memory)"
    )
    compile: bool | None = option(
        None, help="compile layers and loss with torch.compile (default: on one GPU, where it pays)"
    )
    attention: str | None = option(None, help="attention of transformers (default sdpa)")
    only: tuple[str, ...] = option(
        (), help="train only the parameters whose names hold one of these, such as self_attn norm"
    )
    clip: float = option(1.0, help="largest norm of the gradient; 0 for none")
    save_every: int = option(100, help="steps between checkpoints")
    log_to: Literal["none", "tensorboard", "wandb"] = option(
        "none", help="log every step to TensorBoard or Weights & Biases too"
    )
    keep_at: tuple[int, ...] = option((), help="also leave the model after these steps, in OUT-step-N")
    lora: bool = option(False, help="train low-rank adapters of the attention instead of all weights")
    lora_rank: int | None = option(None, help=f"with --lora, rank of the adapters (default {RANK})")
    lora_embeddings: bool = option(False, help="with --lora, train embeddings and norms too")
    overwrite: bool = option(False, help="begin again where another training was")


@verb(Finetune)
def finetune(settings: Finetune) -> dict[str, Any]:
    """Train; returns the record of OUT (its ropewalk.json)."""
    _check(settings)
    from ..train.logs import prepare_logs

    prepare_logs(settings.log_to, Path(settings.out))
    from ..train.ranks import begin, end, one_voice

    device = _device(settings)
    processes = _processes(settings, device)
    if processes > 1:
        return _launch(settings, processes, device)
    with one_voice():
        begin(device)
        record = _train(settings, device)
        end()
    return record


def _train(settings: Finetune, device: str) -> dict[str, Any]:
    """What one process does: alone, or with others that were started beside it."""
    from ..data.mixture import parse_mixture
    from ..model.load import load_state, original_window
    from ..model.source import resolve
    from ..train.course import nothing_cut
    from ..train.feeding import Layout
    from ..train.job import Job, run
    from ..train.ranks import agree

    parts = parse_mixture(settings.data)
    source = resolve(settings.model)
    if source.kind == "gguf":
        raise UserError(f"{settings.model} is a GGUF file; make it a checkpoint first: `ropewalk extend`")
    if source.path.resolve() == Path(settings.out).resolve():
        raise UserError(f"output {settings.out} is the model itself; name another directory")
    state = load_state(source.path)
    window = settings.window or state.window
    if window > state.window:
        raise UserError(
            f"window {window:,} is longer than the model's {state.window:,}; `ropewalk extend` it first"
        )
    skip = settings.skip_positions
    if skip is not None and skip >= window:
        raise UserError(f"skip-positions {skip:,} is not shorter than the window {window:,}")
    settings, why = with_course(settings, source.path, window)
    plan = agree(lambda: _plan(settings, source.path, skip or window, device, why))
    for line in nothing_cut(to_record(settings), original_window(source.path), skip or window, bool(skip)):
        console.say(f"  {line}")
    layout = Layout(
        packing=settings.packing,
        short_share=settings.short_share or 0.0,
        original=original_window(source.path),  # of a window raised without scaling too
        skip_to=window if skip else 0,
        segments=settings.segments,
        seed=settings.seed,
        short_share_end=settings.short_share_end,
        steps=plan.steps,
        batch=plan.batch,
        repeats=settings.repeats or 0.0,
        repeats_end=settings.repeats_end,
    )
    return run(
        Job(
            source=source.path,
            out=Path(settings.out),
            parts=tuple(parts),
            column=settings.column,
            plan=plan,
            layout=layout,
            settings=to_record(settings),
            overwrite=settings.overwrite,
            keep_at=settings.keep_at,
        )
    )


def with_course(settings: Finetune, path: Path, window: int) -> tuple[Finetune, str]:
    """Settings with nothing left open of what is read in which order, and why so.

    path: of the checkpoint.   window: tokens in a sequence.
    """
    from ..model.load import original_window
    from ..model.weights import count_parameters
    from ..train.course import decided

    plain = settings.schedule == "constant" and settings.packing == "joined" and not settings.lora
    found, why = decided(
        to_record(settings),
        parameters=count_parameters(path),
        longer=window > original_window(path),
        tried=plain and settings.skip_positions is None,
    )
    return replace(settings, **found), why


def _check(settings: Finetune) -> None:
    """Refuse numbers that mean nothing, before anything is read."""
    least = {"steps": 1, "batch": 1, "warmup": 0, "window": 2, "skip_positions": 2, "micro_batch": 1}
    least |= {"save_every": 1, "lora_rank": 1, "seed": 0, "segments": 2, "tile": 0}
    for name, limit in least.items():
        value = getattr(settings, name)
        if value is not None and value < limit:
            raise UserError(f"{name} is {value}; at least {limit}")
    if settings.rate is not None and not (0 < settings.rate < 1):
        raise UserError(f"rate is {settings.rate}; a learning rate is above 0 and below 1, such as 5e-4")
    for name, of in (("average", " of the steps"), ("short_share", ""), ("short_share_end", "")):
        share = getattr(settings, name)
        if share is not None and not 0 <= share <= 1:
            raise UserError(f"{name} is {share}; a share{of} is from 0 to 1")
    for name in ("repeats", "repeats_end"):
        density = getattr(settings, name)
        if density is not None and not 0 <= density <= 4:
            raise UserError(
                f"{name} is {density}; passages for every 256 tokens, from 0 to 4 (1 overwrites 8 %)"
            )
    if (settings.repeats or settings.repeats_end) and settings.packing == "apart":
        raise UserError(
            "repeats and packing apart exclude each other: a window's passages must see each other"
        )
    for step in settings.keep_at:
        if not 0 < step < settings.steps:
            raise UserError(f"keep_at has {step}; a step between 0 and the {settings.steps} of the training")
    for name in ("lora_rank", "lora_embeddings"):
        if getattr(settings, name) and not settings.lora:
            raise UserError(f"{name} is {getattr(settings, name)}, and that is for adapters; add --lora")
    if settings.keep_at and settings.lora:
        raise UserError("keep_at and lora exclude each other: adapters are merged at the end only")
    if not (settings.clip >= 0 and math.isfinite(settings.clip)):
        raise UserError(f"clip is {settings.clip}; the largest norm of the gradient, or 0 for none")
    if settings.skip_positions and settings.packing == "apart":
        raise UserError("skip_positions and packing apart exclude each other: both set the positions")
    if settings.skip_positions and settings.segments > settings.skip_positions:
        raise UserError(f"segments is {settings.segments}, more than the {settings.skip_positions} tokens")


def _device(settings: Finetune) -> str:
    import torch

    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        raise UserError(f"device is {device!r}; choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device cuda: torch sees no GPU here; use --device cpu")
    return device


def _processes(settings: Finetune, device: str) -> int:
    """How many processes to start; 1 to train in this one."""
    import torch

    from ..model.load import load_state
    from ..model.source import resolve
    from ..model.weights import count_parameters
    from ..train.ranks import world
    from ..train.rates import batch_size
    from ..train.spread import processes_for

    ranks = world()[1]
    if ranks > 1:
        if settings.gpus is not None:
            raise UserError(f"gpus is {settings.gpus}, but a launcher has started {ranks} processes already")
        return 1
    available = torch.cuda.device_count() if device == "cuda" else 1
    if settings.gpus is not None:
        if device == "cuda" and settings.gpus > available:
            raise UserError(f"gpus is {settings.gpus}; this machine has {available}")
        return settings.gpus
    if available == 1:
        return 1
    path = resolve(settings.model).path
    length = settings.skip_positions or settings.window or load_state(path).window
    batch = settings.batch or batch_size(count_parameters(path), length)[0]
    if settings.parallel == "context" or settings.share_window:
        return available
    return processes_for(batch, available)


def _launch(settings: Finetune, processes: int, device: str) -> dict[str, Any]:
    """Start the processes that train, wait for them; the record that they left."""
    from ..files import read_record
    from ..train.launch import launch

    words = to_arguments(replace(settings, gpus=None, device=device))
    launch(["finetune", *words], processes, device == "cpu")
    record = read_record(settings.out)
    assert record is not None, f"{settings.out} has no record"
    return record


def _plan(settings: Finetune, path: Path, length: int, device: str, why: str = "as asked") -> Plan:
    """Decide what the user left open, and say everything with its reason."""
    import torch

    from ..model.weights import count_parameters
    from ..train.course import in_words
    from ..train.engine import Plan
    from ..train.ranks import world
    from ..train.rates import batch_size, peak_rate

    parameters = count_parameters(path)
    rate, why_rate = (settings.rate, "as asked") if settings.rate else peak_rate(parameters)
    batch, why_batch = (settings.batch, "as asked") if settings.batch else batch_size(parameters, length)
    if settings.recompute is False and (settings.tile or settings.offload):
        raise UserError(
            "tile and offload are for activations that are computed twice: not with --no-recompute"
        )
    if settings.only and settings.lora:
        raise UserError("only and lora exclude each other: --lora trains adapters alone")
    spread, load = _room(settings, path, parameters, length, batch, device)
    dtype = settings.dtype or ("bf16" if device == "cuda" else "float32")
    console.say(f"finetune {settings.model} -> {settings.out}: {parameters:,} parameters, {device}")
    console.say(f"  {settings.steps:,} steps" + (", as in the paper" if settings.steps == 1000 else ""))
    console.say(f"  peak rate {rate:g} ({why_rate}), from a tenth of it in {settings.warmup} steps, then")
    console.say(f"  {settings.schedule}; AdamW (0.9, 0.95), no weight decay, as in the paper")
    console.say(f"  batch {batch} sequences of {length:,} tokens ({why_batch}), {load.rows} at once")
    if world()[1] > 1:
        console.say(f"  {world()[1]} processes: {spread.why}")
    console.say(f"  {dtype}{', compiled' if load.compiled else ''}{_savings_in_words(load)}")
    if settings.steps <= settings.warmup:
        console.say(f"  the peak is never reached: all {settings.steps:,} steps are warm-up; lower --warmup")
    for line in in_words(to_record(settings), why):
        console.say(f"  {line}")
    if device == "cpu" and dtype == "bf16" and "AVX512" not in torch.backends.cpu.get_cpu_capability():
        console.say("  this CPU computes bf16 without instructions for it: float32 is many times faster")
    return Plan(
        steps=settings.steps,
        rate=rate,
        warmup=settings.warmup,
        schedule=settings.schedule,
        length=length,
        batch=batch,
        micro=load.rows,
        seed=settings.seed,
        device=device,
        dtype=dtype,
        save_every=settings.save_every,
        clip=settings.clip,
        log_to=settings.log_to,
        only=settings.only,
        compile=load.compiled,
        recompute=load.recompute,
        attention_kept=load.attention_kept,
        tile=load.tile,
        offload=load.offload,
        attention=settings.attention,
        lora=_adapters(settings),
        sharded=spread.sharded,
        context=spread.context,
        average=settings.average or 0.0,
    )


def _adapters(settings: Finetune) -> dict[str, Any] | None:
    """Rank and extent of the adapters; None where all weights are trained."""
    if not settings.lora:
        return None
    return {"rank": settings.lora_rank or RANK, "embeddings": settings.lora_embeddings}


def _compiled(settings: Finetune, parameters: int, tokens: int, device: str, ranks: int) -> bool:
    """Are the layers compiled? As asked; else on a GPU where it pays and few graphs serve all windows.

    One does where they are plainly causal and of one length, two where some are of the original length.
    """
    from ..train.forecast import compiles

    if settings.compile is not None:
        return settings.compile
    plain = settings.packing == "joined" and settings.attention in (None, "sdpa")
    alike = plain and settings.skip_positions is None
    pays = compiles(parameters, settings.steps * tokens, lora=settings.lora, ranks=ranks)
    return device == "cuda" and alike and pays


def _room(
    settings: Finetune, path: Path, parameters: int, length: int, batch: int, device: str
) -> tuple[Spread, Load]:
    """(how processes share the work, what one of them keeps in memory and how)."""
    import torch

    from ..model.config import as_read, text_part
    from ..model.load import read_config
    from ..model.shape import shape_from
    from ..train.forecast import refusal
    from ..train.memory import Load, choose
    from ..train.ranks import world
    from ..train.spread import choose_spread, held

    ranks = world()[1]
    config = text_part(as_read(read_config(path)))
    memory = torch.cuda.mem_get_info()[0] if device == "cuda" else None
    trained = parameters // 100 if settings.lora else parameters
    dtype: Literal["bf16", "float32"] = settings.dtype or "bf16"
    compiled = _compiled(settings, parameters, batch * length, device, ranks)
    alone = Load(parameters, trained, length, dtype=dtype, recompute=True, compiled=compiled)
    shape = shape_from(config)
    shared = settings.share_window
    spread = choose_spread(
        settings.parallel, shape, alone, ranks=ranks, batch=batch, context=shared, memory=memory
    )
    if spread.context > 1 and settings.packing == "apart":
        why = f"packing apart needs a mask that processes sharing a window do not have ({spread.why})"
        raise UserError(f"{why}; use joined")
    if spread.context > 1 and settings.attention not in (None, "sdpa"):
        raise UserError(f"attention {settings.attention}: processes that share a window use sdpa")
    shares = ranks // spread.context
    if batch % shares:
        who = "groups that share windows" if spread.context > 1 else "processes"
        raise UserError(f"batch {batch} does not divide by the {shares} {who}")
    load = held(alone, spread, ranks)
    micro, recompute = choose(
        config,
        parameters=parameters,
        trained=trained,
        length=load.length,
        rows=batch // shares,
        memory=memory,
        recompute=settings.recompute,
        compiled=compiled,
        shards=load.shards,
        copies=load.copies,
    )
    micro = settings.micro_batch or _begun(settings, batch // shares) or micro
    if batch // shares % micro:
        raise UserError(f"batch {batch} does not divide by {shares} × micro_batch {micro}")
    load = replace(load, rows=micro, recompute=recompute)
    if memory is not None and not settings.only and settings.micro_batch is None:
        reason = refusal(shape, load, memory)
        if reason is not None:
            raise UserError(reason)
    return spread, _with_savings(settings, shape, load, spread.context, memory)


def _with_savings(settings: Finetune, shape: Shape, load: Load, context: int, memory: int | None) -> Load:
    """The load with what saves memory, where asked or needed: see `SAVINGS`."""
    import psutil

    from ..train.memory import host_bytes, saved

    chosen = replace(load, recompute=load.recompute or bool(settings.tile or settings.offload))
    if chosen.recompute:
        form = saved(shape, chosen, memory, context)
        # With --only the sum is too high: no reason for the slow forms.
        chosen = replace(chosen, attention_kept=form.attention_kept) if settings.only else form
    if settings.tile is not None:
        chosen = replace(chosen, tile=settings.tile)
    if settings.offload is not None:
        chosen = replace(chosen, offload=settings.offload)
    if chosen.tile or chosen.offload:
        chosen = replace(chosen, attention_kept=False)
    wanted, free = host_bytes(shape, chosen), psutil.virtual_memory().available
    if wanted > free:
        raise UserError(
            f"layers' inputs need {wanted / 1e9:.1f} GB of the host's memory, {free / 1e9:.1f} GB are free; "
            "choose a shorter --window, more GPUs, or --no-offload"
        )
    return chosen


def _savings_in_words(load: Load) -> str:
    but = " but for attention" if load.attention_kept else ""
    words = [f"activations computed twice{but}"] if load.recompute else []
    words += [f"feed-forward parts and norms in tiles of {load.tile:,}"] if load.tile else []
    words += ["layers' inputs on the host"] if load.offload else []
    return "".join(f", {word}" for word in words)


def _begun(settings: Finetune, rows: int) -> int | None:
    """The micro-batch of a training to go on with, where ``rows`` divide by it: so its sums stay the same."""
    from ..train.identity import ROWS, read_settings

    out = Path(settings.out)
    before = None if settings.overwrite else read_settings(out.with_name(f".{out.name}.training"))
    micro = (before or {}).get(ROWS)
    return micro if isinstance(micro, int) and micro > 0 and rows % micro == 0 else None
