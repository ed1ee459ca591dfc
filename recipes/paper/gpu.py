"""The GPU recipes of this folder in pieces: as much as fits the time given, the rest at the next call.

    python recipes/paper/gpu.py 16k:original 16k:pi-16384 --data DIR --work runs/paper --out OUT

A piece is RECIPE:ARM, or sweep-32k (methods without training); without any, all are walked in order, with
--gpus N on N GPUs side by side (their words in WORK/PIECE.log). What is finished stays in WORK and is
skipped, a training and an evaluation that were stopped go on; the last line says whether anything is left.
OUT/results.tar.gz, written anew behind each piece, holds every result so far in the folders of docs/results.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

from ropewalk.errors import UserError

HERE = Path(__file__).resolve().parent
RECIPES = {"16k": "smollm2-135m-16k.yaml", "32k": "smollm2-135m-32k.yaml"}
ARMS = ("original", "pi-{to}", "direct-{to}", "pi-mixed", "pi-plain", "yarn-{to}", "ntk-{to}", "dynamic-{to}")
PIECES = [
    *(f"{recipe}:{arm.format(to=to)}" for recipe, to in (("16k", 16384), ("32k", 32768)) for arm in ARMS),
    "sweep-32k",
]
MARGIN = 45
"""Seconds kept for stopping gently and for packing the results."""


def command(piece: str, settings: argparse.Namespace) -> list[str]:
    """The ropewalk command of one piece."""
    ropewalk = [sys.executable, "-m", "ropewalk"]
    if piece == "sweep-32k":
        texts = str(settings.data / "books" / "test.parquet")
        out = str(settings.work / piece / "results")
        named = ["--out", out, "--name", "smollm2-135m"]
        return [*ropewalk, "sweep", settings.model, "--to", "32k", "--data", texts, *named]
    recipe, arm = piece.split(":")
    changes = [f"model={settings.model}", *settings.set]
    if importlib.util.find_spec("rouge_score") is None:
        print("rouge-score is not installed: no summaries (table 6)", flush=True)
        changes.append("evaluate.summarization=false")
        changes.append(
            "evaluate.set=[" + ", ".join(json.dumps(one) for one in _benchmark_settings(settings.data)) + "]"
        )
    return [
        *(*ropewalk, "run", str(HERE / RECIPES[recipe]), "--data", str(settings.data), "--no-report"),
        *("--arms", arm, "--out", str(settings.work / recipe / arm), "--set", *changes),
    ]


def _benchmark_settings(data: Path) -> list[str]:
    files = ", ".join(f"{name}={data}/bench/{name}.parquet" for name in ("boolq", "piqa", "winogrande"))
    return [f"benchmark.files=[{files}]"]


def walk(piece: str, settings: argparse.Namespace, until: float, gpu: int) -> str:
    """Run one piece until it ends or the time is over; "done", "stopped" or "failed"."""
    environment = dict(os.environ)
    with contextlib.ExitStack() as open_files:
        said = None
        if settings.gpus > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
            log = settings.work / f"{piece.replace(':', '-')}.log"
            said = open_files.enter_context(log.open("a"))
        child = subprocess.Popen(command(piece, settings), env=environment, stdout=said, stderr=said)
        try:
            code = child.wait(max(1.0, until - time.monotonic()))
            return "done" if code == 0 else "failed"
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGTERM)  # a training saves its step
            try:
                child.wait(MARGIN - 15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            return "stopped"


def walk_all(pieces: list[str], settings: argparse.Namespace, until: float) -> dict[str, str]:
    """All pieces, as many at once as there are GPUs; how each that was begun ended."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for piece in pieces:
        waiting.put(piece)
    ends: dict[str, str] = {}
    packing = threading.Lock()

    def one_after_another(gpu: int) -> None:
        while time.monotonic() < until:
            try:
                piece = waiting.get_nowait()
            except queue.Empty:
                return
            print(f"\n=== {piece}", flush=True)
            started = time.monotonic()
            end = walk(piece, settings, until, gpu)
            with packing:
                ends[piece] = f"{end} after {time.monotonic() - started:.0f} s"
                collect(settings.work, settings.out)

    threads = [threading.Thread(target=one_after_another, args=(gpu,)) for gpu in range(settings.gpus)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return ends


def original(settings: argparse.Namespace) -> str:
    """The model as a checkpoint directory, converted once for all pieces where it is a GGUF file."""
    from ropewalk.model.convert import to_checkpoint
    from ropewalk.model.source import resolve

    source = resolve(settings.model)
    if source.kind != "gguf":
        return settings.model
    place = settings.work / "original"
    return str(place if place.exists() else to_checkpoint(source, place))


def collect(work: Path, out: Path) -> list[Path]:
    """Every results file in the folders that docs/results has, packed; the files."""
    place = work / "collected"
    shutil.rmtree(place, ignore_errors=True)
    for recipe in RECIPES:
        folder = place / f"smollm2-135m-{recipe}"
        copies = [(path, folder / path.name) for path in work.glob(f"{recipe}/*/results/*.json")]
        copies += [
            (path, folder / "by-steps" / path.name) for path in work.glob(f"{recipe}/*/by-steps/*.json")
        ]
        copies += [
            (path, folder / f"{path.parent.name}.training.json")
            for path in work.glob(f"{recipe}/*/checkpoints/*/training.json")
        ]
        for source, target in copies:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    for path in work.glob("sweep-32k/results/*.json"):
        (place / "sweep-32k").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / "sweep-32k" / path.name)
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out / "results.tar.gz", "w:gz") as packed:
        if place.exists():
            packed.add(place, arcname="results")
    return sorted(place.rglob("*.json"))


def show(files: list[Path]) -> None:
    """One line a results file: its figures in short."""
    for path in files:
        result = json.loads(path.read_text())
        kind, rows, summary = result["evaluation"], result["rows"], result["summary"]
        if kind == "perplexity":
            text = "  ".join(f"{row['context']}: {row['perplexity']:.4g}" for row in rows)
        elif kind == "passkey":
            text = f"k_max {summary['k_max']}, {summary['right']} of {summary['n']}"
        elif kind == "benchmark":
            text = "  ".join(f"{row['task']} {100 * row['accuracy']:.1f}" for row in rows)
        elif kind == "summarization":
            text = "  ".join(f"{row['metric']}@{row['window']} {100 * row['score']:.1f}" for row in rows)
        elif kind == "sweep":
            text = "  ".join(f"{one['label']} {one['perplexity']:.4g}" for one in summary["ranking"])
        elif kind == "training":
            text = f"{rows[-1]['step']} steps, loss {summary['loss_last_tenth']:.4f}"
        else:
            continue
        print(f"{path.stem}: {text}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pieces", nargs="*", help=", ".join(PIECES))
    parser.add_argument("--model", default="smollm2", help="the GGUF file or checkpoint of SmolLM2-135M")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/paper"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--gpus", type=int, default=1, help="pieces at once, each on a GPU of its own")
    parser.add_argument("--seconds", type=float, default=560, help="of this call")
    parser.add_argument("--set", nargs="*", default=[], help="changes of the recipes, as of `ropewalk run`")
    settings = parser.parse_args()
    pieces = settings.pieces or PIECES
    if unknown := set(pieces) - set(PIECES):
        parser.error(f"no piece {', '.join(sorted(unknown))}; known: {', '.join(PIECES)}")
    if settings.gpus < 1:
        parser.error(f"--gpus is {settings.gpus}; at least 1")
    until = time.monotonic() + settings.seconds - MARGIN
    settings.work.mkdir(parents=True, exist_ok=True)
    try:
        settings.model = original(settings)
    except UserError as error:
        parser.error(str(error))
    ends = walk_all(pieces, settings, until)
    show(collect(settings.work, settings.out))
    left = [piece for piece in pieces if not ends.get(piece, "").startswith("done")]
    print("; ".join(f"{piece} {end}" for piece, end in ends.items()))
    print(f"left: {' '.join(left)}; call again" if left else "all done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
