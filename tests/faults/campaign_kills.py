"""100 SIGKILLs over a whole recipe and an export: the end is bitwise that of an uninterrupted run.

    python tests/faults/campaign_kills.py --kills 100 --events 50 --seed 0 --out kills.json

A run is started, killed at a random moment, looked at, started again, until it ends; then the next. For each
moment a kind of step is drawn, those killed less often being likelier because the report takes most of the
time, and then a moment uniform over the processor time that such a step uses. With --events the moment is a
file event (before a file is opened for writing, renamed or removed), uniform over all those of a run, which
finds the gaps that time does not.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conditions import conditions, one_thread, tell
from forks import Child, Deadly, forked, import_as
from tiny_recipe import LONGER, make_files
from trees import before_report, broken_checkpoints, contents, differences, half_written, unreadable


def command(root: Path) -> int:
    """The whole recipe and the export of what it made, as the command line runs them."""
    import torch

    from ropewalk.cli import main

    torch.set_num_threads(1)
    code = main(["run", str(root / "recipe.yaml"), "--out", str(root / "all" / "out"), "--device", "cpu"])
    tuned = root / "all" / "out" / "checkpoints" / f"tiny-pi-{LONGER}"
    return code or main(["export", str(tuned), str(root / "all" / "gguf"), "--gguf"])


def count_events(work: Callable[[], int], root: Path) -> int:
    """How many file events ``work`` has."""
    file = root / "events"

    def counting() -> int:
        hook = Deadly(-1)
        sys.addaudithook(hook)
        code = work()
        file.write_text(str(hook.count))
        return code

    assert forked(counting).code == 0
    return int(file.read_text())


def steps_of(output: str) -> list[str]:
    """The steps that had begun, in their order: "start", "perplexity of tiny", ..., "export"."""
    found = ["start"]
    for line in output.splitlines():
        seen = re.match(r"\[\d+/\d+\] ([a-z-]+)|([a-z-]+ of \S+) on cpu|(report of)", line)
        if seen:
            name = next(filter(None, seen.groups()))
            found.append({"fine-tune": "finetune", "report of": "export"}.get(name, name))
    return found


def kind(step: str) -> str:
    """perplexity, of "perplexity of tiny"."""
    return step.partition(" of ")[0]


def measured(work: Callable[[], int]) -> dict[str, float]:
    """Step -> seconds of processor time that it takes in an uninterrupted run."""
    taken: dict[str, float] = {}
    last = 0.0

    def look(child: Child) -> bool:
        nonlocal last
        now, step = child.used(), steps_of(child.said())[-1]
        taken[step] = taken.get(step, 0.0) + now - last
        last = now
        return False

    assert forked(work, kill_when=look).code == 0
    return taken


class Moment:
    """A time to kill: so many seconds of processor time after a step has begun."""

    def __init__(self, step: str, after: float) -> None:
        self.step, self.after, self.began = step, after, -1.0

    def __call__(self, child: Child) -> bool:
        if self.began < 0 and self.step in steps_of(child.said()):
            self.began = child.used()
        return self.began >= 0 and child.used() - self.began >= self.after


def moment(
    taken: dict[str, float], dice: random.Random, last: str | None, before: Counter[str]
) -> Moment | None:
    """A kind of step, one step of that kind, and a moment in it; kinds killed less often are likelier.

    last: where the kill before broke this run; None for a fresh one. Steps before it are done already; one of
    four broken runs is let end: None.   before: kills by kind so far.
    """
    if last is not None and dice.random() < 1 / 4:
        return None
    steps = list(taken)
    ahead = steps[steps.index(last) :] if last in taken else steps
    kinds = sorted({kind(step) for step in ahead})
    (chosen,) = dice.choices(kinds, [1 / (1 + before[one]) ** 2 for one in kinds])
    step = dice.choice([one for one in ahead if kind(one) == chosen])
    return Moment(step, dice.uniform(0, taken[step]))


def kill_until(
    number: int,
    draw: Callable[[str | None, Counter[str]], dict[str, Any]],
    root: Path,
    whole: dict[str, bytes],
    before: dict[str, bytes],
) -> dict[str, Any]:
    """Kill ``number`` times, restarting each time; what was seen."""
    place = root / "all"
    kills = completed = 0
    steps: Counter[str] = Counter()
    problems: list[str] = []
    while kills < number:
        shutil.rmtree(place, ignore_errors=True)
        last = None
        while True:
            fate = draw(last, steps) if kills < number else {}
            ended = forked(lambda: command(root), **fate)
            if not ended.killed:
                break
            kills += 1
            last = steps_of(ended.output)[-1]
            at = kind(last)
            print(f"kill {kills}/{number}: {at}", file=sys.stderr, flush=True)
            steps[at] += 1
            found = contents(place)
            seen = [*half_written(found, whole, before), *unreadable(place), *broken_checkpoints(place)]
            problems += [f"kill {kills} ({at}): {one}" for one in seen]
        if ended.code != 0:
            problems.append(f"after kill {kills}: exit code {ended.code}: {ended.errors[-2000:]}")
        problems += [f"after kill {kills}: {one} differs" for one in differences(contents(place), whole)]
        completed += 1
    return {"kills": kills, "runs_completed": completed, "kills_by_step": dict(steps), "problems": problems}


def campaign(kills: int, events: int, seed: int) -> dict[str, Any]:
    """The figures of a campaign; "problems" are empty when all is well."""
    one_thread()
    known = conditions()  # the commit is asked for once, here: a results file names it
    root = Path(tempfile.mkdtemp(prefix="kills-"))
    try:
        made = forked(lambda: make_files(root))
        assert made.code == 0, made.errors
        first = import_as(lambda: command(root))
        assert first.code == 0, first.errors
        first_tree = contents(root / "all")
        shutil.rmtree(root / "all")
        second = forked(lambda: command(root))
        whole = contents(root / "all")
        assert second.code == 0 and first_tree == whole, differences(first_tree, whole)
        shutil.rmtree(root / "all")
        before = before_report(lambda: command(root), root / "all", root / "before")
        shutil.rmtree(root / "all")
        dice = random.Random(seed)
        taken = measured(lambda: command(root))
        shutil.rmtree(root / "all")
        timed = kill_until(
            kills, lambda *seen: {"kill_when": moment(taken, dice, *seen)}, root, whole, before
        )
        shutil.rmtree(root / "all", ignore_errors=True)
        total = count_events(lambda: command(root), root) if events else 0
        placed = kill_until(events, lambda *_: {"kill_at": dice.randint(1, total)}, root, whole, before)
        return {
            "at_random_moments": timed,
            "at_random_file_events": {**placed, "file_events_of_a_run": total},
            "files_compared": len(whole),
            "seconds_of_an_uninterrupted_run": round(second.seconds, 1),
            "processor_seconds_of_an_uninterrupted_run": round(sum(taken.values()), 1),
            "seed": seed,
            "conditions": known,
        }
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--events", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    asked = parser.parse_args()
    found = campaign(asked.kills, asked.events, asked.seed)
    tell(found, asked.out)
    return int(any(found[part]["problems"] for part in ("at_random_moments", "at_random_file_events")))


if __name__ == "__main__":
    sys.exit(main())
