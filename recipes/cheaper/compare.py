"""Cheaper than full length? Ways of training for the same GPU time, one small model, 8,192 -> 32,768.

    python recipes/cheaper/compare.py full skip --budget 180 --data DIR --work runs/cheaper --out OUT

Every way interpolates; they differ in what a training step reads (`WAYS`). A way gets as many steps as fit
BUDGET seconds of training at its own measured speed (start-up, data reading before the first step and
evaluation not counted), with the learning rate's schedule over exactly those. Each is judged by loss by
position on held-out books and by the paper's passkey test up to 32,768 tokens.

What is finished in WORK is skipped, a training or evaluation that was stopped goes on: call again until the
last line says that all is done. OUT/results.tar.gz then holds, for docs/results/cheaper, the results files
and WAY-BUDGETs.cost.json: steps, tokens, seconds, speed, settings.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

TARGET = 32768
TOKENS = 65536
QKN = {"only": ["q_proj", "k_proj", "norm"], "rate": 2.0e-3}
LAST = {"to": TARGET, "share": 1.0}
BACK = {"repeats": 1.0}
MORE_BACK = {"repeats": 0.0, "repeats_end": 2.0}
RISING = {"short_share": 1.0, "short_share_end": 0.0}
MEAN = {"average": 0.5, "schedule": "constant"}
COURSE = {**MEAN, "repeats": 0.5, "repeats_end": 3.0}
WAYS: dict[str, list[dict[str, Any]]] = {
    "full": [LAST],
    "skip": [{**LAST, "skip_positions": 8192}],
    "skip-4": [{**LAST, "skip_positions": 8192, "segments": 4}],
    "repeats": [{**LAST, **BACK}],
    "skip-repeats": [{**LAST, **BACK, "skip_positions": 8192}],
    "staged": [
        {"to": TARGET // 2, "share": 0.5, "schedule": "constant"},
        {"to": TARGET, "share": 0.5},
    ],
    "rising": [{**LAST, **RISING}],
    "rising-repeats": [{**LAST, **RISING, **BACK}],
    "repeats-rise": [{**LAST, **MORE_BACK}],
    "both-rise": [{**LAST, **RISING, **MORE_BACK}],
    "course": [{**LAST, **COURSE, **RISING}],
    "skip-mean": [{**LAST, **MEAN, "skip_positions": 8192}],
    "skip-course": [{**LAST, **COURSE, "skip_positions": 8192}],
    "skip-then-full": [
        {"to": TARGET, "share": 0.5, "skip_positions": 8192, "schedule": "constant"},
        {"to": TARGET, "share": 0.5},
    ],
    "staged-repeats": [
        {"to": TARGET // 2, "share": 0.5, "schedule": "constant", **BACK},
        {"to": TARGET, "share": 0.5, **BACK},
    ],
    "qkn": [{**LAST, **QKN}],
    "qkn-skip": [{**LAST, **QKN, "skip_positions": 8192}],
    "qkn-repeats": [{**LAST, **QKN, **BACK}],
}
"""Stages of each way: the window, its share of the budget, and settings of `ropewalk finetune`."""
PROBE = (8, 20)
"""The speed is measured between these steps of a training that is then thrown away, behind compiling."""
MARGIN = 40


class OverError(Exception):
    """The time of this call is over; what was begun is saved."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ways", nargs="*", help="; ".join(("original", *WAYS)))
    parser.add_argument("--budget", type=int, default=180, help="seconds of training a way")
    parser.add_argument("--model", default="smollm2", help="checkpoint, GGUF file or name, window 8,192")
    parser.add_argument("--data", type=Path, default=Path("data"), help="books/ and math/, as Parquet")
    parser.add_argument("--train", nargs="+", help="other text to train on, FILE:SHARE")
    parser.add_argument("--test", help="other text to judge by, NAME=FILE")
    parser.add_argument("--work", type=Path, default=Path("runs/cheaper"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=560, help="of this call")
    parser.add_argument(
        "--tokens", type=int, default=TOKENS, help="in an optimizer step, whatever the window"
    )
    parser.add_argument("--shared-keys", action="store_true", help="the same ten at every distance")
    parser.add_argument("--to", type=int, default=TARGET, help="another target, for a trial elsewhere")
    parser.add_argument("--set", nargs="*", default=[], help="settings of finetune for all ways, NAME=JSON")
    settings = parser.parse_args()
    known = ("original", *WAYS)
    if unknown := set(settings.ways) - set(known):
        parser.error(f"no way {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    settings.until = time.monotonic() + settings.seconds - MARGIN
    settings.work.mkdir(parents=True, exist_ok=True)
    left = list(settings.ways or known)
    try:
        for way in list(left):
            print(f"\n=== {way}, {settings.budget} s", flush=True)
            if way == "original":
                judge(base(settings), "original", settings)
            else:
                walk(way, settings)
            left.remove(way)
    except OverError:
        pass
    show(collect(settings))
    print(f"left: {' '.join(left)}; call again" if left else "all done")
    return 0


def walk(way: str, settings: argparse.Namespace) -> None:
    """Every stage of one way, then its evaluation and its cost."""
    name, model, stages = f"{way}-{settings.budget}s", base(settings), []
    for number, stage in enumerate(WAYS[way], 1):
        place = settings.work / "checkpoints" / f"{name}-{number}"
        wanted = training_settings(stage, settings)
        to = wanted.pop("to")
        longer = place.with_name(f"{place.name}-untrained")
        if not longer.exists() and window_of(model) < to:
            ropewalk(["extend", str(model), str(longer), "--to", str(to)], settings)
        source = longer if longer.exists() else model
        pace = probe(source, wanted, settings)
        steps = max(2, round(stage["share"] * settings.budget / pace["seconds_a_step"]))
        spent = place.with_name(f"{place.name}.seconds.json")
        if not (place / "ropewalk.json").exists():
            train(source, place, {**wanted, "steps": steps}, settings, spent)
        stages.append({**wanted, "to": to, "steps": steps, "seconds": sum(read(spent, [])), "probe": pace})
        model = place
    judge(model, name, settings)
    cost = {
        "way": way,
        "budget_seconds": settings.budget,
        "steps": sum(stage["steps"] for stage in stages),
        "tokens": sum(stage["steps"] for stage in stages) * settings.tokens,
        "seconds": sum(stage["seconds"] for stage in stages),
        "stages": stages,
    }
    write(settings.work / "results" / f"{name}.cost.json", cost)


def training_settings(stage: dict[str, Any], settings: argparse.Namespace) -> dict[str, Any]:
    """What `ropewalk finetune` is told for one stage, without steps; ``to`` beside it."""
    shrink = TARGET // settings.to
    books, latex = settings.data / "books" / "train-00.parquet", settings.data / "math" / "train.parquet"
    wanted: dict[str, Any] = {
        "data": settings.train or [f"{books}:0.75", f"{latex}:0.25"],
        "rate": 6.0e-4,
        "schedule": "linear",
        "short_share": 0.0,  # whole windows of plain text but for what a way says
        "warmup": 10,
        "save_every": 1000,
    }
    wanted |= {key: value for key, value in stage.items() if key != "share"}
    wanted["to"] //= shrink
    if "skip_positions" in wanted:
        wanted["skip_positions"] //= shrink
    wanted["batch"] = settings.tokens // wanted.get("skip_positions", wanted["to"])
    return wanted | {name: json.loads(value) for name, value in (one.split("=", 1) for one in settings.set)}


def probe(source: Path, wanted: dict[str, Any], settings: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of these settings on this machine, measured once: a short training, thrown away.

    Where the share of short windows changes, at the share between its ends.
    """
    if "short_share_end" in wanted:
        between = (wanted["short_share"] + wanted["short_share_end"]) / 2
        wanted = {**wanted, "short_share": between, "short_share_end": between}
    store = settings.work / "probes.json"
    known = read(store, {})
    key = json.dumps({**wanted, "window": window_of(source)}, sort_keys=True)
    if key not in known:
        print(f"measuring the speed over steps {PROBE[0]} to {PROBE[1]}", flush=True)
        place = settings.work / "checkpoints" / "probe"
        times: dict[int, float] = {}
        command = finetune_command(source, place, {**wanted, "steps": 500})
        watch(command, settings, lambda step, at: times.setdefault(step, at), stop_at=PROBE[1])
        for rest in (place, place.with_name(".probe.training")):
            shutil.rmtree(rest, ignore_errors=True)
        seen = sorted(step for step in times if step >= PROBE[0])
        pace = (times[seen[-1]] - times[seen[0]]) / (seen[-1] - seen[0])
        known[key] = {"seconds_a_step": pace, "between_steps": [seen[0], seen[-1]], "device": device_name()}
        write(store, known)
    return known[key]


def train(
    source: Path, place: Path, wanted: dict[str, Any], settings: argparse.Namespace, spent: Path
) -> None:
    """One training to its end, or to the end of this call's time; its seconds are added to ``spent``."""
    seen: list[float] = []
    code = None
    try:
        code = watch(finetune_command(source, place, wanted), settings, lambda _, at: seen.append(at))
    finally:
        if len(seen) > 1:  # the first step's own time is that of an average one
            whole = (seen[-1] - seen[0]) * len(seen) / (len(seen) - 1)
            write(spent, [*read(spent, []), whole])
    if code != 0:
        raise SystemExit(f"finetune ended with exit code {code}")


def finetune_command(source: Path, place: Path, wanted: dict[str, Any]) -> list[str]:
    words = ["finetune", str(source), str(place)]
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, values)]
    return words


def judge(model: Path, name: str, settings: argparse.Namespace) -> None:
    """Loss by position and passkeys up to the target."""
    texts = settings.test or f"books={settings.data / 'books' / 'test.parquet'}"
    more = ["--target", str(settings.to), "--windows", "120", "--passkey", "--position-loss", texts]
    more += ["--shared-keys"] if settings.shared_keys else []
    out = ["--out", str(settings.work / "results"), "--name", name]
    ropewalk(["evaluate", str(model), *more, *out], settings)


def base(settings: argparse.Namespace) -> Path:
    """The original as a checkpoint directory."""
    from ropewalk.model.convert import to_checkpoint
    from ropewalk.model.source import resolve

    place = settings.work / "checkpoints" / "original"
    source = resolve(settings.model)
    return place if place.exists() else to_checkpoint(source, place)


def window_of(model: Path) -> int:
    return json.loads((model / "config.json").read_text())["max_position_embeddings"]


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def ropewalk(words: list[str], settings: argparse.Namespace) -> None:
    """A ropewalk command, to its end. Raises OverError when this call's time is over first."""
    child = subprocess.Popen([sys.executable, "-m", "ropewalk", *words])
    try:
        code = child.wait(max(1.0, settings.until - time.monotonic()))
    except subprocess.TimeoutExpired:
        child.terminate()
        child.wait()
        raise OverError from None
    if code:
        raise SystemExit(f"ropewalk {words[0]} ended with exit code {code}")


def watch(words: list[str], settings: argparse.Namespace, saw: Any, stop_at: int | None = None) -> int:
    """Run a training on a terminal of our own and call ``saw(step, time)`` as its progress names a step.

    stop_at: end it, unsaved, behind that step. Raises OverError when this call's time is over (it is saved).
    """
    here, there = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "ropewalk", *words], stdout=there, stderr=subprocess.STDOUT
    )
    os.close(there)
    over, last, text = False, 0, ""
    while True:
        if not over and time.monotonic() >= settings.until:
            over = True
            child.send_signal(signal.SIGTERM)
        if not select.select([here], [], [], 1.0)[0]:
            continue
        try:
            text += os.read(here, 65536).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        *lines, text = re.split(r"[\r\n]+", text)
        for line in [*lines, text]:
            found = re.search(r"step ([\d,]+)/[\d,]+, loss [\d.]+", line)
            if found and (step := int(found[1].replace(",", ""))) > last:
                last = step
                saw(step, time.monotonic())
            elif line in lines and line.strip() and "\x1b" not in line:
                print(line, flush=True)
        if stop_at is not None and last >= stop_at:
            child.kill()
    code = child.wait()
    os.close(here)
    print(f"  ended behind step {last:,}", flush=True)
    if over and code != 0:
        raise OverError
    return code


def collect(settings: argparse.Namespace) -> list[Path]:
    """The results, training logs beside them, packed."""
    results = settings.work / "results"
    results.mkdir(exist_ok=True)
    for path in (settings.work / "checkpoints").glob("*/training.json"):
        shutil.copyfile(path, results / f"{path.parent.name}.training.json")
    files = sorted(results.glob("*.json"))
    settings.out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(settings.out / "results.tar.gz", "w:gz") as packed:
        for path in [*files, *settings.work.glob("probes.json")]:
            packed.add(path, arcname=f"results/cheaper/{path.name}")
    return files


def show(files: list[Path]) -> None:
    """A table: one way a row."""
    import math

    found = {path.name: json.loads(path.read_text()) for path in files}
    print(f"\n{'way':<22}{'steps':>7}{'seconds':>9}{'k_max':>8}{'found':>9}  perplexity by position")
    for name in sorted(name.removesuffix(".passkey.json") for name in found if name.endswith("passkey.json")):
        keys = found[f"{name}.passkey.json"]["summary"]
        cost = found.get(f"{name}.cost.json", {"steps": 0, "seconds": 0})
        curves = [one for file, one in found.items() if file.startswith(f"{name}.position-loss")]
        rows = curves[0]["rows"] if curves else []
        curve = " ".join(f"{math.exp(row['loss']):.4g}" for row in rows[1::2])
        line = f"{name:<22}{cost['steps']:>7}{cost['seconds']:>9.0f}{keys['k_max']:>8}"
        print(f"{line}{keys['right']:>5}/{keys['n']}  {curve}")


def read(path: Path, other: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else other


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
