"""One training from its plan to its finished weights: the Trainer set up, resumed, run and read out."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import GenerationConfig, PrinterCallback, TrainerState, TrainingArguments

from .. import console
from ..errors import UserError
from ..model.attention import kernel
from ..model.compiling import compiled, compiling
from ..model.load import load_model
from ..model.quiet import quiet
from ..starving import told
from .average import Average
from .context import adopt, context_group
from .feeding import Feeder
from .keeping import DATA_STATE, Keeper, step_of
from .kernels import fastest_alone, fastest_training
from .lora import add_adapter, in_words, without_casts
from .loss import LossModel, plain_head, plain_model
from .ranks import agree, everywhere, require_shared, world
from .recompute import compile_layers, recompute_layers
from .sharding import shard, whole_weights
from .snapshots import Snapshooter, Snapshots
from .tiles import tile_layers
from .trainer import Watch, WindowTrainer, load_weights, stops_gently


@dataclass(frozen=True)
class Plan:
    """A training with every number decided (the paper's section 3.1 unless said otherwise).

    length: tokens in a row.   batch: rows in an optimizer step, on all ranks together.
    micro: rows in memory at once, on one rank; divides batch / ranks.
    dtype: "bf16" is autocast over float32 weights.   clip: largest norm of the gradient, 0 for no limit.
    recompute: activations are dropped and computed again in the backward pass.
    attention_kept: with recompute, what attention gives is kept all the same.
    compile: the layers and the loss, by torch.compile.
    tile: tokens at once in feed-forward parts and norms, 0 for all: see tiles.py.
    offload: with recompute, the layers' inputs wait in the host's memory.
    only: words; parameters whose names hold none of them stay as they are. Empty: all are trained.
    sharded: weights, gradients and optimizer state are spread over all ranks.
    context: ranks that hold one window together, 1 for none; only with ``sharded``.
    average: share of the steps, the last ones, over which the weights' mean is taken; 0 for the last weights.
    """

    steps: int
    rate: float
    warmup: int
    schedule: Literal["constant", "linear", "cosine", "wsd"]
    length: int
    batch: int
    micro: int
    seed: int
    device: str
    dtype: Literal["bf16", "float32"]
    save_every: int
    clip: float = 1.0
    log_to: Literal["none", "tensorboard", "wandb"] = "none"
    compile: bool = False
    recompute: bool = False
    attention_kept: bool = False
    tile: int = 0
    offload: bool = False
    attention: str | None = None
    lora: dict[str, Any] | None = None
    only: tuple[str, ...] = ()
    sharded: bool = False
    context: int = 1
    average: float = 0.0

    @property
    def accumulate(self) -> int:
        """Micro-batches of one rank in an optimizer step."""
        return self.batch * self.context // (self.micro * world()[1])

    @property
    def step_tokens(self) -> int:
        """Tokens in an optimizer step."""
        return self.batch * self.length


@dataclass(frozen=True)
class Outcome:
    """A finished training: the model in memory (its adapter on it, with LoRA), and what was logged.

    model: on rank 0; None on the others where the model was sharded.
    attention: the kernel behind it, "torch" where torch chose.
    seconds: median time of an optimizer step.   peak: bytes of a GPU's memory at most, on the fullest one.
    began: the step that this process went on from, 0 where it trained them all.
    """

    model: Any
    log: list[dict[str, float]]
    passes: int
    attention: str
    seconds: float | None = None
    peak: int | None = None
    began: int = 0


def train(
    path: Path, plan: Plan, feeder: Feeder, keeper: Keeper, snapshots: Snapshots | None = None
) -> Outcome:
    """Train the checkpoint at ``path``, going on from the newest whole checkpoint in the work directory.

    snapshots: the steps after which the model is left as a checkpoint of its own.

    Raises UserError: the loss is not finite, or memory does not suffice.
    Raises KeyboardInterrupt (Ctrl-C) or SystemExit(143) (SIGTERM) once the state is saved.
    """
    agree(keeper.begin)
    require_shared(keeper.partial)
    checkpoint = agree(keeper.newest)
    model = _prepare(path, plan, checkpoint)
    if plan.lora:
        console.say(f"  {in_words(model)}")
    if checkpoint is not None:
        feeder.restore(json.loads((checkpoint / DATA_STATE).read_text()))
        console.say(f"going on from step {step_of(checkpoint):,}")
    done = step_of(checkpoint) if checkpoint is not None else 0
    with _enough_memory(plan, lambda: done):
        attention = _choose_kernel(model, plan, feeder.plainly_causal)
    own_head = plain_head(model)
    if plan.compile:
        compile_layers(plain_model(model), recompute=plan.recompute, attention_kept=plan.attention_kept)
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = LossModel(model, own_head=own_head, offload=plan.offload, compiled=plan.compile)
        trainer = WindowTrainer(
            model=_spread(whole, plan),
            args=_arguments(plan, keeper),
            feeder=feeder,
            schedule={"steps": plan.steps, "warmup": plan.warmup, "schedule": plan.schedule},
        )
        total = plan.steps * plan.step_tokens
        with console.progress("finetune", total, "tokens", done * plan.step_tokens) as shown:
            average = _average(model, plan, checkpoint)
            watch = Watch(trainer, feeder, keeper, shown, plan.step_tokens, average)
            _only_our_callbacks(trainer, watch)
            if snapshots is not None:
                trainer.add_callback(Snapshooter(trainer, snapshots, keeper.partial))
            with stops_gently(watch), kernel(attention), compiling(), without_casts(model, plan.dtype):
                if done < plan.steps:
                    _run(trainer, plan, checkpoint)
                else:  # killed behind the last step: the Trainer would take one more
                    assert checkpoint is not None
                    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    _end_if_asked(watch, trainer.state.global_step, plan)
    if plan.compile and done < plan.steps and not compiled():
        console.say("torch.compile failed here: the layers were trained as they are, at their own speed")
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    used = torch.cuda.max_memory_allocated() if plan.device == "cuda" else 0
    peak = int(everywhere(0.0, used, plan.device)[1]) or None
    if plan.sharded:
        model = _whole(model, path, plan)
    if average is not None and model is not None:
        average.apply(model)
    return Outcome(model, log, feeder.passes(plan.steps), attention, watch.step_seconds, peak, done)


def _end_if_asked(watch: Watch, step: int, plan: Plan) -> None:
    """End the process where a signal ended the training behind ``step``, before its last one."""
    if watch.stop is None or step >= plan.steps:
        return
    console.say(f"stopped behind step {step:,}; the same command goes on from there")
    if watch.stop.name == "SIGINT":
        raise KeyboardInterrupt
    raise SystemExit(143)


def _prepare(path: Path, plan: Plan, checkpoint: Path | None) -> Any:
    """The model with everything on it that the plan asks for, and the checkpoint's weights."""
    torch.manual_seed(plan.seed)
    weights = "bfloat16" if plan.lora and plan.dtype == "bf16" else "float32"
    model = load_model(path, dtype=weights, attention=plan.attention)
    model.generation_config = GenerationConfig.from_model_config(model.config)  # the original is copied
    if plan.lora:
        model = add_adapter(model, **plan.lora)
    elif plan.only:
        _train_only(model, plan.only)
    if checkpoint is not None:
        load_weights(model, checkpoint)
    base = model.get_base_model() if plan.lora else model
    if plan.recompute and not plan.compile:  # compiled layers have a way of their own
        recompute_layers(base, attention_kept=plan.attention_kept)
    if plan.tile:
        tile_layers(base, plan.tile)
    return model


def _average(model: Any, plan: Plan, checkpoint: Path | None) -> Average | None:
    """The mean of the weights that is asked for, as far as the checkpoint has it."""
    if not plan.average:
        return None
    found = Average(model, steps=plan.steps, share=plan.average, keep=world()[0] == 0)
    if checkpoint is not None:
        found.restore(checkpoint)
    return found


def _spread(model: LossModel, plan: Plan) -> LossModel:
    """The model with its attention and its weights spread over the ranks, as the plan has it."""
    if plan.context > 1:
        adopt(model.model, context_group(plan.context))
    if plan.sharded:
        shard(model, plan.device)
    return model


def _whole(model: Any, path: Path, plan: Plan) -> Any:
    """The sharded model in one piece, on rank 0 and its CPU; None elsewhere."""
    first = world()[0] == 0
    weights = whole_weights(model, first)
    if not first:
        return None
    found = _prepare(path, plan, None)
    found.load_state_dict(weights)
    return found


def _choose_kernel(model: Any, plan: Plan, causal: bool) -> str:
    """The attention kernel to train with: on a GPU the one that a real pass finds fastest.

    causal: are all windows plainly causal? With a mask, the choice is left to torch.
    """
    if plan.device != "cuda" or not causal or plan.attention not in (None, "sdpa"):
        return "torch"
    if plan.context > 1:
        return "torch"  # flash attention alone knows a causal mask of fewer queries than keys
    if plan.sharded or plan.compile:  # not here as a whole; not yet compiled, and too large as it is
        name, seconds = fastest_alone(plain_model(model).config, plan.micro, plan.length)
    else:
        model.to("cuda").train()
        name, seconds = fastest_training(model, plan.micro, plan.length, plan.dtype == "bf16")
    name = agree(lambda: name)
    tried = ", ".join(f"{one} {1000 * spent:.0f} ms" for one, spent in seconds.items())
    console.say(f"  attention by {name} (forward and backward of {plan.micro} x {plan.length:,}: {tried})")
    return name


def _train_only(model: Any, words: tuple[str, ...]) -> None:
    """Leave only the parameters that one of ``words`` is part of the name of for training."""
    names = [name for name, _ in model.named_parameters()]
    for word in words:
        if not any(word in name for name in names):
            parts = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
            raise UserError(f"--only {word}: no parameter of that name; the names' parts: {', '.join(parts)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(word in name for word in words))


def _arguments(plan: Plan, keeper: Keeper) -> TrainingArguments:
    found = TrainingArguments(
        output_dir=str(keeper.partial),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro,
        gradient_accumulation_steps=plan.accumulate,
        learning_rate=plan.rate,
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.95,
        weight_decay=0.0,
        max_grad_norm=plan.clip,
        seed=plan.seed,
        use_cpu=plan.device == "cpu",
        bf16=plan.dtype == "bf16",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=plan.save_every,
        save_total_limit=None,
        ignore_data_skip=True,
        report_to=plan.log_to,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
    )
    if found.n_gpu > 1:
        found._n_gpu = 1  # one process trains on one GPU; more GPUs have their own processes
    return found


@contextlib.contextmanager
def _enough_memory(plan: Plan, done: Callable[[], int]) -> Iterator[None]:
    """Inside, a device that runs out of memory is a UserError. done: optimizer steps that are finished."""
    try:
        yield
    except torch.OutOfMemoryError:
        where = f" on process {world()[0]} of {world()[1]}" if world()[1] > 1 else ""
        open_ways = {
            "--micro-batch 1": plan.micro > 1,
            "--recompute": not plan.recompute,
            "--tile 2048": not plan.tile,
            "--offload": not plan.offload,
            "--lora": not plan.lora,
            "a shorter --window": True,
            "more GPUs (--parallel fsdp, context)": plan.context == 1,
        }
        cures = ", ".join(way for way, is_open in open_ways.items() if is_open)
        rows = f"{plan.micro} rows" if plan.micro > 1 else "1 row"
        raise UserError(
            f"the device's memory does not suffice in step {done() + 1:,}{where} with {rows} of "
            f"{plan.length:,} tokens at once; give {cures}; the last checkpoint is kept"
        ) from None


def _only_our_callbacks(trainer: WindowTrainer, watch: Watch) -> None:
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(watch)


def _run(trainer: WindowTrainer, plan: Plan, checkpoint: Path | None) -> None:
    try:
        with _enough_memory(plan, lambda: trainer.state.global_step):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint is not None else None)
    except (OSError, SafetensorError) as error:  # a full disk, data that vanished
        reason = told(error) or error
        raise UserError(f"the training stopped: {reason}; the last checkpoint is kept") from None
    except RuntimeError as error:
        if not any(words in str(error) for words in ("PytorchStreamWriter", "unexpected pos")):
            raise  # so torch.save says that the disk is full
        raise UserError(
            "the training stopped: a checkpoint cannot be written whole: free some space or raise the limit "
            "on a file's size, then run the same command again; the last checkpoint is kept"
        ) from None
