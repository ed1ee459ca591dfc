"""Checkpoints of a training that goes on: whole or absent, checked before they are used, two of them kept.

The Trainer writes file by file into its own directory. Here that is ``WORK/partial/``; when all is
written, every file is hashed and flushed and the checkpoint is renamed to ``WORK/checkpoint-N``. What
lies under that name is complete, and what was damaged later is found by its hash and passed over.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .. import console
from ..files import remove_directory, sha256, sync_directory, sync_file, to_json, write_atomic

DIGESTS = "digests.json"
DATA_STATE = "data.json"
KEPT = 2


class Keeper:
    """The work directory of one training, beside its output: ``.OUT.training/``."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.partial = work / "partial"

    def begin(self) -> None:
        """Make the directory; drop what an earlier process left half-written."""
        self.work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.partial, ignore_errors=True)
        self.partial.mkdir()

    def seal(self, step: int, data: dict[str, Any]) -> Path:
        """Make the Trainer's finished ``partial/checkpoint-N`` a checkpoint, and drop the third newest."""
        written = self.partial / f"checkpoint-{step}"
        write_atomic(written / DATA_STATE, to_json(data))
        write_atomic(written / DIGESTS, to_json(_digests(written)))
        for file in written.iterdir():
            sync_file(file)
        sync_directory(written)
        place = self.work / written.name
        self._drop(place)
        os.rename(written, place)
        sync_directory(self.work)
        for old in self.checkpoints()[KEPT:]:
            self._drop(old)
        return place

    def _drop(self, checkpoint: Path) -> None:
        """Remove a checkpoint; its name goes first, so that a kill leaves no half of it under that name."""
        if checkpoint.exists():
            going = self.partial / f"old-{checkpoint.name}"
            os.rename(checkpoint, going)
            shutil.rmtree(going, ignore_errors=True)

    def checkpoints(self) -> list[Path]:
        """Checkpoints by their names alone, newest first."""
        found = [path for path in self.work.glob("checkpoint-*") if path.name[11:].isdigit()]
        return sorted(found, key=step_of, reverse=True)

    def newest(self) -> Path | None:
        """The newest checkpoint that is whole; a line is said about each damaged one passed over."""
        found = self.checkpoints()
        for path in found:
            problem = damage(path)
            if problem is None:
                return path
            last = "no other is left: the training starts again from the beginning"
            then = last if path == found[-1] else "trying the one before"
            console.say(f"checkpoint of step {step_of(path):,} is damaged ({problem}); {then}")
        return None

    def remove(self) -> None:
        """Drop the work directory: the training is complete."""
        remove_directory(self.work, self.work.with_name(self.work.name[1:].removesuffix(".training")))


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def snapshot_path(out: Path, step: int) -> Path:
    """Where `finetune --keep-at` leaves the model of one step.

    >>> snapshot_path(Path("runs/tuned"), 200).name
    'tuned-step-200'
    """
    return out.with_name(f"{out.name}-step-{step}")


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in a few words; None when every file is there and has its hash."""
    try:
        digests = json.loads((checkpoint / DIGESTS).read_text())
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        for name, (size, digest) in digests.items():
            file = checkpoint / name
            if file.stat().st_size != size:
                return f"{name} has {file.stat().st_size:,} bytes, not {size:,}"
            if sha256(file) != digest:
                return f"{name} has another content than was written"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        name = getattr(error, "filename", None)
        return f"{Path(name).name} is missing" if name else "its list of files cannot be read"
    for need in ("optimizer.pt", "scheduler.pt", DATA_STATE):
        if need not in digests:
            return f"{need} is missing"
    if not any(name.endswith(".safetensors") for name in digests):
        return "it holds no weights"
    if state.get("global_step") != step_of(checkpoint):
        return f"its state is of step {state.get('global_step')}"
    return None


def _digests(directory: Path) -> dict[str, list[Any]]:
    names = sorted(file.name for file in directory.iterdir() if file.is_file())
    return {name: [(directory / name).stat().st_size, sha256(directory / name)] for name in names}
