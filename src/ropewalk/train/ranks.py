"""The processes of one training: which one this is, what they agree on, and which one speaks for all.

torchrun, `accelerate launch` and `--gpus` start one process for each GPU (or several on a CPU) and say in
the environment which one it is: its rank. With one process everything here is free of effect.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .. import console
from ..errors import UserError

T = TypeVar("T")

PATIENCE = datetime.timedelta(hours=1)
"""How long one process waits for the others: rank 0 writes and hashes large checkpoints meanwhile."""

REPORT = "ROPEWALK_REPORT"
"""Variable with the file into which an error goes when the process that started all of them says it."""

STARTER = "ROPEWALK_STARTER"
"""Variable with the id of the process that started all of them, which they do not outlive."""

GRACE = 600
"""Seconds that processes get to save after Ctrl-C or SIGTERM. torch before 2.13 allows 30 at most."""

_store: Any = None


def world() -> tuple[int, int]:
    """(rank, ranks) of this process, as its launcher says."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """The number of this process among those on its host: the GPU that it has."""
    return int(os.environ.get("LOCAL_RANK", 0))


def begin(device: str) -> None:
    """Join the other processes, once; all but rank 0 fall silent. device: "cpu" (gloo) or "cuda" (NCCL).

    Raises UserError: a host has fewer GPUs than processes, or accelerate is told to shard by itself.
    """
    global _store
    rank, ranks = world()
    if ranks == 1:
        return
    follow_starter()
    import torch
    import torch.distributed as dist

    for name in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        if os.environ.get(name, "false").lower() in ("true", "1"):
            raise UserError(f"{name} is set: leave it out of accelerate's config and give --parallel fsdp")
    if rank != 0:
        console.silence()
    if device == "cuda":
        if local_rank() >= torch.cuda.device_count():
            raise UserError(
                f"{socket.gethostname()} has {torch.cuda.device_count()} GPUs and at least "
                f"{local_rank() + 1} processes; start one for each GPU"
            )
        torch.cuda.set_device(local_rank())
    if dist.is_initialized():
        return
    try:
        store, rank, ranks = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=ranks,
            timeout=PATIENCE,
            device_id=torch.device("cuda", local_rank()) if device == "cuda" else None,
        )
    except (dist.DistError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the {ranks} processes do not find each other: {reason}") from None
    _store = dist.PrefixStore("ropewalk", store)


def follow_starter() -> None:
    """End as after SIGTERM, saved, when the process that started this one is gone: killed, it is silent."""
    starter = int(os.environ.get(STARTER, 0))

    def follow() -> None:
        while os.getppid() == starter:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)

    if starter:
        threading.Thread(target=follow, daemon=True, name="follow-starter").start()


def end() -> None:
    """Leave the other processes, when all went well."""
    global _store
    if world()[1] > 1:
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()
        _store = None


def agree(work: Callable[[], T]) -> T:
    """What ``work`` returned on rank 0, on every rank; when it fails there, all end, and rank 0 says why."""
    rank, ranks = world()
    if ranks == 1:
        return work()
    import torch.distributed as dist

    box: list[Any] = [False, None]
    try:
        if rank == 0:
            box = [True, work()]
    finally:
        dist.broadcast_object_list(box, src=0)
    if not box[0]:
        raise SystemExit(2)
    return box[1]


def everywhere(value: float, worst: float, device: Any) -> tuple[float, float]:
    """(mean of ``value``, maximum of ``worst``) over all ranks."""
    ranks = world()[1]
    if ranks == 1:
        return value, worst
    import torch
    import torch.distributed as dist

    found = [torch.zeros(2, device=device, dtype=torch.float64) for _ in range(ranks)]
    dist.all_gather(found, torch.tensor([value, worst], device=device, dtype=torch.float64))
    table = torch.stack(found)
    return float(table[:, 0].mean()), float(table[:, 1].max())


def require_shared(directory: Path) -> None:
    """Refuse when a directory that rank 0 has made is not to be seen from this process."""
    for _ in range(20):
        if directory.is_dir():
            return
        time.sleep(0.5)  # what a network file system may take
    raise UserError(f"{socket.gethostname()} does not see {directory}: put the output where all hosts see it")


@contextlib.contextmanager
def one_voice() -> Iterator[None]:
    """Inside, what ends all processes is said by one of them; the others end without a word.

    A UserError becomes exit code 2 everywhere. When another process is gone, so is this one.
    """
    if world()[1] == 1:
        yield
        return
    try:
        yield
    except UserError as error:
        _say(error)
    except KeyboardInterrupt:
        if world()[0] == 0 and REPORT not in os.environ:
            raise
        raise SystemExit(130) from None
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        time.sleep(2)  # the one that failed speaks first
        _say(
            UserError(
                "the training stopped: another of its processes ended; "
                "the same command goes on from the last checkpoint"
            )
        )


def _say(error: UserError) -> None:
    first = True
    with contextlib.suppress(Exception):  # the store has gone with the host that held it: speak
        first = _store is None or _store.add("said", 1) == 1
    if not first:
        raise SystemExit(2)
    if REPORT not in os.environ:
        raise error
    Path(os.environ[REPORT]).write_text(str(error), encoding="utf-8")
    raise SystemExit(2)


def _lost_another(error: RuntimeError) -> bool:
    import torch.distributed as dist

    text = str(error)
    return isinstance(error, dist.DistError) or any(
        sign in text for sign in ("gloo", "Connection closed by peer", "NCCL", "Connection reset")
    )
