"""The model as it stands after chosen steps of a training, each a checkpoint of its own beside the output."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from .. import console
from ..errors import UserError
from ..files import fingerprint, new_directory, read_record, require_ours, write_record
from .identity import require_same
from .keeping import snapshot_path


def require_replaceable(place: Path, identity: dict[str, Any], overwrite: bool) -> None:
    """Refuse a snapshot's place that is not free, before a step is trained for nothing. Raises UserError.

    A snapshot of the same training may be replaced, with ``overwrite`` that of another one too; the end
    of a training never: its record's fingerprint is that of its identity alone, without a step.
    """
    require_ours(place, "finetune")
    record = read_record(place)
    if record is None:
        return
    if record.get("fingerprint") == fingerprint(record.get("identity")):
        raise UserError(
            f"{place} holds a finished training, and --keep-at would leave a model there; "
            "name another output, or remove it first"
        )
    if not overwrite:
        require_same(record.get("identity"), identity, place)


@dataclass(frozen=True)
class Snapshots:
    """steps: after which of them.   out: the training's output; a snapshot is OUT-step-N.

    fill(directory, step): put config, tokenizer and so on beside the weights; returns the record.
    dtype: of the weights on disk.
    """

    steps: tuple[int, ...]
    out: Path
    dtype: torch.dtype
    fill: Callable[[Path, int], dict[str, Any]]

    def seal(self, written: Path, step: int) -> None:
        """Make the weights at ``written`` (removed) the snapshot of ``step``, whole or absent."""
        place = snapshot_path(self.out, step)
        with new_directory(place, "finetune") as beside:
            for file in sorted(written.glob("*.safetensors*")):
                if file.suffix == ".json":
                    shutil.copyfile(file, beside / file.name)
                    continue
                weights = load_file(file)
                cast = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in weights.items()}
                save_file(cast, beside / file.name, metadata={"format": "pt"})
            write_record(beside, self.fill(beside, step))
            for file in beside.glob("*.safetensors"):
                os.chmod(file, (beside / "config.json").stat().st_mode & 0o777)
        shutil.rmtree(written, ignore_errors=True)
        console.say(f"the model after step {step:,} is kept in {place}")


class Snapshooter(TrainerCallback):
    """Writes the snapshots, before the checkpoint of the same step: a resumed training misses none."""

    def __init__(self, trainer: Any, snapshots: Snapshots, partial: Path) -> None:
        self.trainer, self.snapshots, self.partial = trainer, snapshots, partial

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step not in self.snapshots.steps:
            return
        written = self.partial / f"snapshot-{state.global_step}"
        self.trainer.save_model(str(written))
        if state.is_world_process_zero:
            self.snapshots.seal(written, state.global_step)
        self.trainer.accelerator.wait_for_everyone()
