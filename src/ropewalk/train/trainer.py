"""transformers' Trainer with our loss, our data and our checkpoints, by its public hooks."""

from __future__ import annotations

import contextlib
import itertools
import math
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from .. import console
from ..errors import UserError
from .average import Average
from .feeding import Feeder
from .keeping import Keeper, step_of
from .lora import is_adapted, load_adapter, save_adapter
from .loss import LossModel
from .ranks import everywhere, world
from .rates import schedule_factor
from .sharding import is_sharded, load_optimizer_state, whole_optimizer_state, whole_weights


class WindowTrainer(Trainer):
    """Trains a `LossModel` on a `Feeder`'s batches.

    The weights of a checkpoint are loaded by `load_weights` before this is built; the Trainer restores
    optimizer, schedule, random generators and its own state from the same checkpoint.
    """

    def __init__(self, *, model: LossModel, args: TrainingArguments, feeder: Feeder, schedule: dict) -> None:
        super().__init__(model=model, args=args)
        self._feeder, self._schedule = feeder, schedule
        self._step_loss: Tensor | None = None
        self.sharded = is_sharded(model)

    def get_train_dataloader(self) -> Any:
        return self._feeder

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            optimizer = optimizer or self.optimizer
            assert optimizer is not None
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: schedule_factor(step, **self._schedule)
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._step_loss = loss if self._step_loss is None else self._step_loss + loss
        return loss

    def take_step_loss(self) -> float:
        """The loss of the micro-batches since the last call, which is the optimizer step's."""
        assert self._step_loss is not None
        loss, self._step_loss = float(self._step_loss), None
        return loss

    def compute_loss_context_manager(self) -> contextlib.ExitStack:
        """Where the model is spread over ranks, autocast too: accelerate then leaves the model alone."""
        stack = super().compute_loss_context_manager()
        if self.sharded and self.args.bf16:
            # Without its cache, which would hold a second copy of all weights until the pass ends.
            kind = self.args.device.type
            stack.enter_context(torch.autocast(kind, dtype=torch.bfloat16, cache_enabled=False))
        return stack

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the transformers model itself (or its adapter): a plain checkpoint, no pickles."""
        directory = Path(output_dir or str(self.args.output_dir))
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).model
        more = {"state_dict": whole_weights(model, self.args.should_save)} if self.sharded else {}
        if self.args.should_save:
            directory.mkdir(parents=True, exist_ok=True)
            if is_adapted(model):
                save_adapter(model, directory, **more)
            else:
                model.save_pretrained(directory, **more)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """As one process writes it, also when each rank holds a part."""
        if not self.sharded:
            return super()._save_optimizer_and_scheduler(output_dir)
        state = whole_optimizer_state(_plain(self.optimizer), self.args.should_save)
        assert self.lr_scheduler is not None
        if self.args.should_save:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.sharded or checkpoint is None:
            return super()._load_optimizer_and_scheduler(checkpoint)
        assert self.lr_scheduler is not None
        place = Path(checkpoint)
        state = torch.load(place / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True)
        load_optimizer_state(_plain(self.optimizer), state)
        self.lr_scheduler.load_state_dict(torch.load(place / "scheduler.pt", weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: `load_weights` did, with every name checked."""


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """torch's optimizer out of accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def load_weights(model: Any, checkpoint: Path) -> None:
    """Load a training checkpoint's weights into the model that it was written from.

    Raises AssertionError when a name is in one and not in the other (tied weights are written once).
    """
    adapter = checkpoint / "adapter_model.safetensors"
    if adapter.is_file():
        load_adapter(model, adapter)
        return
    state: dict[str, Tensor] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        state.update(load_file(file))
    found = model.load_state_dict(state, strict=False)
    tied = set(model.all_tied_weights_keys)
    assert not found.unexpected_keys, found.unexpected_keys
    assert set(found.missing_keys) <= tied, set(found.missing_keys) - tied
    model.tie_weights()


class Watch(TrainerCallback):
    """Between the Trainer's steps: is the loss finite, is a stop asked for, what is shown and kept."""

    def __init__(
        self,
        trainer: WindowTrainer,
        feeder: Feeder,
        keeper: Keeper,
        shown: console.Progress,
        tokens: int,
        average: Average | None = None,
    ) -> None:
        assert isinstance(trainer.model, LossModel)
        self.weights = [p for p in trainer.model.parameters() if p.requires_grad]
        self.trainer, self.feeder, self.keeper = trainer, feeder, keeper
        self.shown, self.tokens, self.average = shown, tokens, average
        self.asked: signal.Signals | None = None
        self.stop: signal.Signals | None = None
        self.passes = 0
        self.ends: list[float] = []

    @property
    def step_seconds(self) -> float | None:
        """The median time of a step; None with fewer than two."""
        spent = [after - before for before, after in itertools.pairwise(self.ends)]
        return statistics.median(spent) if spent else None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop before a loss or gradient that is not finite reaches the weights."""
        loss, stop = everywhere(self.trainer.take_step_loss(), self.asked or 0, args.device)
        self.stop = signal.Signals(int(stop)) if stop else None
        gradients = [p.grad for p in self.weights if p.grad is not None]
        total: Any = torch.nn.utils.get_total_norm(gradients)
        norm = float(total.full_tensor() if isinstance(total, DTensor) else total)
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient is {norm} (loss {loss:.3f})"
        kept = self.keeper.checkpoints()
        where = f"the checkpoint of step {step_of(kept[0]):,} is kept" if kept else "nothing was saved yet"
        raise UserError(
            f"{what} in step {state.global_step + 1:,}: stopped before the optimizer step; {where}; "
            "lower --rate, or look at the data"
        )

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            note = f"step {state.global_step:,}/{state.max_steps:,}, loss {logs['loss']:.3f}"
            self.shown.advance(self.tokens, note, (state.global_step, logs["loss"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ends.append(time.monotonic())
        if self.average is not None:
            self.average.note(state.global_step)
        passes = self.feeder.passes(state.global_step)
        if passes > max(1, self.passes):
            console.say(f"step {state.global_step:,}: pass {passes} over the data begins")
        self.passes = passes
        if world()[1] == 1:
            self.stop = self.asked  # several ranks agreed on it before the step
        if self.stop is not None:
            control.should_save = control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            if self.average is not None:
                self.average.save(self.keeper.partial / f"checkpoint-{state.global_step}")
            self.keeper.seal(state.global_step, self.feeder.state(state.global_step))
        self.trainer.accelerator.wait_for_everyone()


@contextlib.contextmanager
def stops_gently(watch: Watch) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the training behind the current step, saved; a second Ctrl-C ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _: Any) -> None:
        if watch.asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        watch.asked = signal.Signals(number)
        if world()[1] > 1:
            return  # a launcher that ends all because one failed sends it too: the others speak
        console.say("stopping behind this step, saved" + (" (Ctrl-C again: at once)" if number == 2 else ""))

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
