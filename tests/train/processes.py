"""Several processes that train together over gloo, forked from the test's own: nothing is imported twice."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(work: Callable[[], object], ranks: int, log: Path) -> list[int]:
    """Fork ``ranks`` processes, each doing ``work`` as one of them; their ids. Output goes to LOG.RANK."""
    import torch
    import torch._dynamo  # which DTensor would import in every child

    import ropewalk.train.job  # noqa: F401 - with all it imports, for the same reason

    torch.set_num_threads(1)  # a forked process has no other threads
    port, children = str(free_port()), []
    for rank in range(ranks):
        child = os.fork()
        if child:
            children.append(child)
            continue
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(ranks))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, OMP_NUM_THREADS="1")
        code = 0
        try:
            sys.stdout = sys.stderr = open(f"{log}.{rank}", "w", buffering=1)  # noqa: SIM115
            os.dup2(sys.stdout.fileno(), 1)
            os.dup2(sys.stdout.fileno(), 2)
            work()
        except SystemExit as error:
            code = int(error.code or 0)
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            from ropewalk.errors import UserError

            code = 2 if isinstance(error, UserError) else 1
            print(f"ropewalk: {error}") if code == 2 else traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return children


def wait(children: list[int], seconds: float = 60) -> list[int]:
    """The exit codes, in order; a process that does not end is killed."""
    codes: dict[int, int] = {}
    end = time.monotonic() + seconds
    while len(codes) < len(children):
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def together(work: Callable[[], object], ranks: int, log: Path) -> tuple[list[int], list[str]]:
    """(exit codes, what each said) of ``ranks`` processes that do ``work`` together."""
    codes = wait(start(work, ranks, log))
    return codes, [Path(f"{log}.{rank}").read_text() for rank in range(ranks)]
