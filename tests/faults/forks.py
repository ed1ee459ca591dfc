"""A command in a forked child that is killed, limited or let alone: imports are paid once, by the parent.

The parent imports and never computes: what torch, Arrow or the drawing of figures start in threads would not
survive the fork. Campaigns therefore run in a process of their own (`python tests/faults/campaign_kills.py`).
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

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
    kill_at: int | None = None,
    prepare: Callable[[], None] = lambda: None,
    within: float = 600,
) -> Ended:
    """Run ``work`` in a forked child; its return value is the exit code, 1 where it raises.

    kill_after: seconds after which it gets SIGKILL.   kill_at: it dies by SIGKILL before its so-many-th file
    event (from 1).   prepare: called first in the child, such as to lower a limit.
    Raises TimeoutError when it takes longer than ``within`` seconds.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        sys.stdout.flush()
        sys.stderr.flush()
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _child(work, output, errors, kill_at, prepare)
        end = began + (within if kill_after is None else kill_after)
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            if time.monotonic() >= end:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                if kill_after is None:
                    raise TimeoutError(f"still going after {within:g} s: {_text(output)[-500:]}")
                break
            time.sleep(0.002)
        seconds = time.monotonic() - began
        return Ended(os.waitstatus_to_exitcode(status), seconds, _text(output), _text(errors))


def _text(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read()


def _child(
    work: Callable[[], int],
    output: TextIO,
    errors: TextIO,
    kill_at: int | None,
    prepare: Callable[[], None],
) -> None:
    """Everything a child does; never returns."""
    code = 1
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
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
    """An audit hook that counts file events and ends the process before one of them."""

    def __init__(self, at: int) -> None:
        self.at, self.count = at, 0

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in CHANGES:
            return
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


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
