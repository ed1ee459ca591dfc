"""Every verb that writes, starved: one clear line, exit code 2, the last good state; fed again, it completes.

    unshare --user --map-root-user --mount python tests/faults/campaign_starvation.py --out starvation.json

Shortages: a full disk and a read-only one (a small file system of its own, which needs the new name space
above; without it they are skipped and said so), a limit on the size of files, on memory (address space) and
on open files, a clock that runs backwards with inputs from the future, and another process on the same
output. Each is tried at several strengths; where a strength is not felt the command ends well, which is
counted too.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from conditions import conditions, one_thread, tell
from forks import Deadly, Ended, forked, import_as, start
from tiny_recipe import LONGER, make_files
from trees import before_report, contents, differences, half_written

CURE = re.compile(r"\b(free|raise|name another|name an output|choose|wait)\b")
"""A word of what to do, in every line."""
DISK = 48 << 20
"""Bytes of the small file system."""


@dataclass
class Case:
    """One verb's command. out: below the output root, what it makes."""

    name: str
    words: str
    whole: dict[str, bytes] = field(default_factory=dict)
    before: dict[str, bytes] = field(default_factory=dict)


CPU = "--device cpu"
WORDS = {
    "extend": f"extend IN/model OUT/long --to {LONGER}",
    "finetune": "finetune IN/long OUT/tuned --data IN/texts/train.jsonl --steps 4 --batch 2 --save-every 1 "
    f"--rate 1e-2 --warmup 1 {CPU}",
    "evaluate": "evaluate IN/model --perplexity books=IN/texts/test.jsonl --contexts 128 --stride 64 "
    f"--out OUT/results {CPU}",
    "sweep": f"sweep IN/model --to {LONGER} --data IN/texts/test.jsonl --methods none linear --no-passkey "
    f"--out OUT/swept {CPU}",
    "report": "report IN/results --out OUT/report",
    "export": "export IN/long OUT/gguf --gguf",
    "export to a file": "export IN/long OUT/long.gguf",
    "run": f"run IN/recipe.yaml --out OUT/run {CPU} --set evaluate.passkey=false "
    "evaluate.passkey_grid=false evaluate.passkey_choice=false evaluate.ruler=false "
    "evaluate.summarization=false evaluate.benchmark=false evaluate.set=[] evaluate.attention=[]",
}
"""The verbs that write, with their inputs and their outputs."""


def cases() -> list[Case]:
    """A case for each of `WORDS`."""
    return [Case(name, words) for name, words in WORDS.items()]


class Campaign:
    """Inputs, a place for outputs, and what was seen."""

    def __init__(self, root: Path, disk: bool) -> None:
        self.inputs, self.outputs, self.disk = root / "inputs", root / "outputs", disk
        self.tried: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.lines: dict[str, set[str]] = {}

    def command(self, case: Case) -> int:
        """Run a case's command line."""
        import torch

        from ropewalk.cli import main

        torch.set_num_threads(1)
        words = case.words.replace("IN/", f"{self.inputs}/").replace("OUT/", f"{self.outputs}/")
        return main(words.split())

    def clear(self) -> None:
        """An empty place for outputs."""
        for path in self.outputs.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def prepare(self, every: list[Case]) -> None:
        """Inputs, and for each case the whole outputs of an uninterrupted run."""
        self.inputs.mkdir()
        self.outputs.mkdir(exist_ok=True)
        _well(forked(lambda: make_files(self.inputs)))
        both = [Case("", WORDS[name].replace("OUT/", "IN/")) for name in ("extend", "evaluate")]
        for case in both:
            _well(forked(partial(self.command, case)))
        for case in every:
            _well(import_as(partial(self.command, case)))
            case.whole = contents(self.outputs)
            self.clear()
            if case.name == "run":
                case.before = before_report(partial(self.command, case), self.outputs, self.inputs / "before")
                self.clear()

    def starve(
        self, case: Case, shortage: str, strength: Any, prepare: Callable[[], None], feed: Callable[[], None]
    ) -> None:
        """One command under one shortage, then fed and run again."""
        ended = forked(partial(self.command, case), prepare=prepare)
        feed()
        self.judge(case, shortage, strength, ended)

    def judge(self, case: Case, shortage: str, strength: Any, ended: Ended) -> None:
        """Look at what a starved command said and left; run it again and compare."""
        what = f"{case.name}, {shortage} {strength}"
        if ended.code not in (0, 2):
            self.problems.append(f"{what}: exit code {ended.code}: {ended.errors[-600:]}")
        if ended.code == 2:
            lines = ended.errors.strip().splitlines()
            if len(lines) != 1 or not lines[0].startswith("ropewalk: "):
                self.problems.append(f"{what}: not one line: {ended.errors[-600:]}")
            else:
                if not CURE.search(lines[0]):
                    self.problems.append(f"{what}: no cure in {lines[0]}")
                self.lines.setdefault(shortage, set()).add(self.without_names(lines[0])[:300])
        left = contents(self.outputs)
        self.problems += [f"{what}: {one}" for one in half_written(left, case.whole, case.before)]
        there = case.name == "export to a file" and any(self.outputs.iterdir())  # which it would refuse
        again = ended if there else forked(partial(self.command, case))
        if again.code != 0 and not there:
            self.problems.append(f"{what}: fed again, exit code {again.code}: {again.errors[-600:]}")
        changed = differences(contents(self.outputs), case.whole)
        if changed:
            self.problems.append(f"{what}: fed again, other files: {changed[:5]}")
        self.tried.append({"verb": case.name, "shortage": shortage, "felt": ended.code != 0})
        self.clear()

    def without_names(self, line: str) -> str:
        """A line without what differs from machine to machine and from run to run."""
        for place, name in ((self.inputs, "INPUTS"), (self.outputs, "OUTPUTS"), (sys.prefix, "PYTHON")):
            line = line.replace(str(place), name)
        return re.sub(r"\.[a-z0-9_]{8}\.partial", ".partial", line)

    def all_of(self, case: Case) -> None:
        """Every shortage for one verb."""
        for size in (0, 100, 3_000, 20_000, 100_000):
            self.starve(case, "file-size limit", size, partial(_limit, resource.RLIMIT_FSIZE, size), _no)
        for more in (0, 1, 2, 4, 8):
            self.starve(case, "open-files limit", more, partial(_few_files, more), _no)
        for more in (1, 8, 64, 256):
            self.starve(case, "memory limit", f"{more} MB more", partial(_little_memory, more << 20), _no)
        self.starve(case, "clock backwards", "", self.backwards, _no)
        if self.disk:
            for free in (0, 8_192, 40_960, 200_000):
                self.fill(free)
                self.starve(case, "full disk", free, _no, self.empty)
            _mount("remount,ro", self.outputs)
            self.starve(case, "read-only", "", _no, lambda: _mount("remount,rw", self.outputs))
        self.second(case)

    def fill(self, free: int) -> None:
        """Fill the small file system up to ``free`` bytes."""
        stat = os.statvfs(self.outputs)
        with open(self.outputs / ".filler", "wb") as stream:
            stream.write(b"\0" * max(0, stat.f_bavail * stat.f_frsize - free))

    def empty(self) -> None:
        """Free the small file system."""
        (self.outputs / ".filler").unlink()

    def backwards(self) -> None:
        """In a child: the time of day runs backwards, and the inputs are of next year."""
        now = time.time()
        past = iter(range(10**9))
        time.time = lambda: now - 10 * next(past)
        for path in self.inputs.rglob("*"):
            os.utime(path, (now + 3e7, now + 3e7))

    def second(self, case: Case) -> None:
        """Another process on the same output, stopped in the middle of its work."""

        def stopped() -> int:
            sys.addaudithook(Deadly(at, signal.SIGSTOP))
            return self.command(case)

        at = max(2, self.events(case) * 2 // 3)
        first = start(stopped)
        os.waitpid(first.pid, os.WUNTRACED)
        before = contents(self.outputs)
        ended = forked(partial(self.command, case))
        if ended.code != 2 or "another ropewalk process" not in ended.errors:
            self.problems.append(f"{case.name}, two processes: exit code {ended.code}: {ended.errors[-300:]}")
        if {k: v for k, v in contents(self.outputs).items() if not k.endswith(".lock")} != {
            k: v for k, v in before.items() if not k.endswith(".lock")
        }:
            self.problems.append(f"{case.name}, two processes: the second one changed files")
        os.kill(first.pid, signal.SIGCONT)
        end = first.wait()
        if end.code != 0:
            self.problems.append(f"{case.name}, two processes: the first ended with {end.code}")
        self.judge(case, "two processes", "", ended)

    def events(self, case: Case) -> int:
        """File events of a case's command."""
        note = self.inputs / "events"

        def counting() -> int:
            hook = Deadly(-1)
            sys.addaudithook(hook)
            code = self.command(case)
            note.write_text(str(hook.count))
            return code

        _well(forked(counting))
        self.clear()
        return int(note.read_text())


def _no() -> None:
    """Nothing."""


def _well(ended: Ended) -> None:
    assert ended.code == 0, ended.errors


def _limit(kind: int, value: int) -> None:
    resource.setrlimit(kind, (value, value))


def _few_files(more: int) -> None:
    _limit(resource.RLIMIT_NOFILE, len(os.listdir("/proc/self/fd")) - 1 + more)


def _little_memory(more: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + more)


def _mount(options: str, place: Path) -> None:
    subprocess.run(["mount", "-o", options, str(place)], check=True)


@contextmanager
def small_disk(place: Path) -> Iterator[str]:
    """A small file system at ``place``; why there is none, else ''."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)], capture_output=True, text=True
    )
    try:
        yield made.stderr.strip() if made.returncode else ""
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", str(place)], check=True)


def campaign(names: list[str]) -> dict[str, Any]:
    """The figures; "problems" is empty when all is well."""
    one_thread()
    known = conditions()
    root = Path(tempfile.mkdtemp(prefix="starved-"))
    (root / "outputs").mkdir()
    try:
        with small_disk(root / "outputs") as why_not:
            work = Campaign(root, not why_not)
            every = cases()
            work.prepare(every)
            for case in every:
                if not names or case.name in names:
                    work.all_of(case)
                    print(f"{case.name}: {len(work.problems)} problems so far", file=sys.stderr, flush=True)
        return {
            "tried": _counted(work.tried),
            "lines": {shortage: sorted(lines) for shortage, lines in work.lines.items()},
            "problems": work.problems,
            "skipped": {"full disk": why_not, "read-only": why_not} if why_not else {},
            "conditions": known,
        }
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _counted(tried: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By shortage and verb: commands run, and how many of them felt it."""
    found: dict[str, dict[str, Any]] = {}
    for one in tried:
        cell = found.setdefault(one["shortage"], {}).setdefault(one["verb"], {"commands": 0, "felt": 0})
        cell["commands"] += 1
        cell["felt"] += one["felt"]
    return found


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--verbs", nargs="*", default=[], help="only these")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    asked = parser.parse_args()
    found = campaign(asked.verbs)
    tell(found, asked.out)
    return int(bool(found["problems"]))


if __name__ == "__main__":
    sys.exit(main())
