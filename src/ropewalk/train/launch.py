"""Several processes on this machine, each running the same command line, by torchrun's own launcher."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import console
from ..errors import UserError
from .ranks import GRACE, REPORT, STARTER


def launch(arguments: Sequence[str], processes: int, cpu: bool) -> None:
    """Run ``ropewalk ARGUMENTS`` in so many processes that know each other, and wait for them.

    Raises UserError with what one of them had to say, KeyboardInterrupt after Ctrl-C and SystemExit(143)
    after SIGTERM once they have saved, and SystemExit with their exit code where they failed otherwise.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The launcher reports every end that is not the wished one at length; ours is said in one line.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    more: dict[str, Any] = {}
    if "shutdown_timeout" in {field.name for field in dataclasses.fields(LaunchConfig)}:
        more["shutdown_timeout"] = GRACE
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as place, _environment(Path(place), processes, cpu):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=Path(place).name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=place),
            **more,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "ropewalk", *arguments)
        except SignalException as error:
            if error.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(128 + error.sigval) from None
        except ChildFailedError as error:
            report = Path(place) / "report"
            if report.exists():
                raise UserError(report.read_text(encoding="utf-8")) from None
            raise _failure(error) from None


def _failure(error: Any) -> BaseException:
    rank, first = error.get_first_failure()
    if first.exitcode == -signal.SIGKILL:
        return UserError(
            f"process {rank} was killed (by the system when memory ran out?); "
            "the same command goes on from the last checkpoint"
        )
    return SystemExit(first.exitcode if first.exitcode > 0 else 128 - first.exitcode)


@contextlib.contextmanager
def _environment(place: Path, processes: int, cpu: bool) -> Iterator[None]:
    """While processes are started: where they leave an error, their threads, and text to the right stream."""
    more = {REPORT: str(place / "report"), STARTER: str(os.getpid())}
    if cpu and "OMP_NUM_THREADS" not in os.environ:
        more["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    stdout = None
    if console.stream() is sys.stderr:  # standard output is for the JSON alone
        sys.stdout.flush()
        stdout = os.dup(1)
        os.dup2(2, 1)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if stdout is not None:
            os.dup2(stdout, 1)
            os.close(stdout)
