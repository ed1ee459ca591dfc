"""A command in a forked child that is killed, limited or let alone: imports are paid once, by the parent.

The parent imports and never computes: what torch, Arrow or the drawing of figures start in threads would not
survive the fork. Campaigns therefore run in a process of their own (`python tests/faults/campaign_kills.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.chmod")
"""Audit events of Python that change a directory; `open` is one where it may write."""


@dataclass(frozen=True)
class Ended:
    """How a child ended. code: its exit code, minus the signal where one ended it.   events: file events."""

    code: int
    seconds: float
    output: str
    errors: str

    @property
    def killed(self) -> bool:
        """Was it SIGKILL?"""
        return self.code == -signal.SIGKILL


def forked(
    work: Callable[[], int],
    *,
    kill_after: float | None = None,
    kill_when: Callable[[Child], bool] | None = None,
    kill_at: int | None = None,
    prepare: Callable[[], None] = lambda: None,
    within: float = 600,
) -> Ended:
    """Run ``work`` in a forked child; its return value is the exit code, 1 where it raises.

    kill_after: seconds after which it gets SIGKILL.   kill_when: asked every 2 ms; where it is true it
    gets SIGKILL.   kill_at: it dies by SIGKILL before its so-many-th file event (from 1).
    prepare: called first in the child, such as to lower a limit.
    Raises TimeoutError when it takes longer than ``within`` seconds.
    """
    child = start(work, kill_at=kill_at, prepare=prepare)
    end = child.began + (within if kill_after is None else kill_after)
    while (ended := child.look()) is None:
        asked = kill_when is not None and kill_when(child)
        if time.monotonic() >= end or asked:
            os.kill(child.pid, signal.SIGKILL)
            ended = child.wait()
            if kill_after is None and not asked:
                raise TimeoutError(f"still going after {within:g} s: {ended.output[-500:]}")
            return ended
        time.sleep(0.002)
    return ended


@dataclass
class Child:
    """A child that is running. output, errors: the ends of its pipes.   heard: read of the first one."""

    pid: int
    output: int
    errors: int
    began: float
    heard: bytes = b""

    def used(self) -> float:
        """Seconds of processor time that it has used, which a busy machine does not shift."""
        return time.clock_gettime((~self.pid << 3) | 2)  # the kernel's number for that process's clock

    def said(self) -> str:
        """What it has written to its output so far."""
        os.set_blocking(self.output, False)
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.output, 1 << 16):
                self.heard += piece
        os.set_blocking(self.output, True)
        return self.heard.decode(errors="replace")

    def look(self) -> Ended | None:
        """How it ended, None while it runs."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        return self._ended(status) if done else None

    def wait(self) -> Ended:
        """Wait for its end."""
        return self._ended(os.waitpid(self.pid, 0)[1])

    def _ended(self, status: int) -> Ended:
        seconds = time.monotonic() - self.began
        with os.fdopen(self.output, "rb") as output, os.fdopen(self.errors, "rb") as errors:
            said = [self.heard + output.read(), errors.read()]
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, seconds, *(one.decode(errors="replace") for one in said))


def start(
    work: Callable[[], int], *, kill_at: int | None = None, prepare: Callable[[], None] = lambda: None
) -> Child:
    """Fork a child that runs ``work``; see `forked`. What it says goes to pipes, which no limit touches."""
    sys.stdout.flush()
    sys.stderr.flush()
    (output, output_end), (errors, errors_end) = os.pipe(), os.pipe()
    for handle in (output, errors):
        fcntl.fcntl(handle, fcntl.F_SETPIPE_SZ, 1 << 20)
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.close(output)
        os.close(errors)
        _child(work, output_end, errors_end, kill_at, prepare)
    os.close(output_end)
    os.close(errors_end)
    return Child(pid, output, errors, began)


def _child(
    work: Callable[[], int], output: int, errors: int, kill_at: int | None, prepare: Callable[[], None]
) -> None:
    """Everything a child does; never returns."""
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.close(output)
        os.close(errors)
        sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
        if kill_at is not None:
            sys.addaudithook(Deadly(kill_at))
        prepare()
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


class Deadly:
    """An audit hook that counts file events and ends the process (or stops it) before one of them."""

    def __init__(self, at: int, number: signal.Signals = signal.SIGKILL) -> None:
        self.at, self.number, self.count = at, number, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in CHANGES:
            return
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), self.number)


def import_as(work: Callable[[], int], **more: float) -> Ended:
    """Run ``work`` once in a child, then import here whatever modules it needed; the child's end."""
    with tempfile.NamedTemporaryFile("r") as names:

        def listing() -> int:
            code = work()
            with open(names.name, "w") as stream:
                stream.write("\n".join(sorted(sys.modules)))
            return code

        ended = forked(listing, **more)
        for name in names.read().split():
            if name not in sys.modules and "__main__" not in name:
                try:
                    importlib.import_module(name)
                except Exception:
                    continue  # a module that another made under a name of its own
        return ended
