"""One GPU against all of this machine: the same losses, the speed, and a window that one GPU cannot hold.

    python benchmarks/many_gpus.py --out benchmarks/many_gpus [--model CHECKPOINT] [--gpus N]
    python benchmarks/many_gpus.py --out OUT --toy      # the same on a CPU with two processes, in a minute

Every row is `ropewalk finetune` as a user calls it, in processes of its own, on a text of random words; the
time of a step is the median that it leaves in its training.json, tokenising included. Without --model, a
random model in the shape of SmolLM2-135M (30 layers, hidden 576, 9 heads of 64, 3 key-value heads,
vocabulary 49,152). The long window is tried on a random model of one very wide layer (hidden 16,384, 128
heads, 8 key-value heads): memory grows with window times width, attention's work with its square times width,
so that width fills a card in the least time. First on one GPU, which should say that its memory does not
suffice, then on all, who share the window. Where one GPU can hold it, the next longer window is tried.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORDS = 2_000
WAYS = ("data", "fsdp", "context", "long")


@dataclass(frozen=True)
class Size:
    """What is trained: windows in tokens, shapes as fields of a LlamaConfig."""

    window: int
    batch: int
    steps: int
    long: tuple[int, ...]
    shape: dict[str, int]
    wide: dict[str, int]


FULL = Size(
    window=32_768,
    batch=4,
    steps=10,
    long=(262_144, 393_216),
    shape={
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1_536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
    wide={
        "vocab_size": 2_048,
        "hidden_size": 16_384,
        "intermediate_size": 16_384,
        "num_hidden_layers": 1,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
    },
)
SMALL = {"vocab_size": 2_048, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 3, "num_key_value_heads": 1}
TOY = Size(window=256, batch=4, steps=4, long=(500,), shape=SMALL, wide=SMALL)


def write_model(place: Path, shape: dict[str, int], window: int) -> Path:
    """A random checkpoint whose tokenizer knows the words of `write_text`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        **shape, max_position_embeddings=window, tie_word_embeddings=True, rope_theta=100_000.0
    )
    LlamaForCausalLM(config).save_pretrained(place)
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=raw).save_pretrained(place)
    return place


def write_text(place: Path, tokens: int) -> Path:
    """Sixteen documents of random words, the common ones more often; ``tokens`` words in all."""
    rng = random.Random(0)
    weights = [1 / (i + 1) for i in range(WORDS)]
    names = [f"w{i}" for i in range(WORDS)]
    place.mkdir(parents=True, exist_ok=True)
    for number in range(16):
        chosen = rng.choices(names, weights, k=tokens // 16 + 1)
        (place / f"{number}.txt").write_text(" ".join(chosen))
    return place


class Bench:
    """Runs rows and keeps them in OUT/many_gpus.json as they come."""

    def __init__(self, out: Path, place: Path, toy: bool) -> None:
        self.out, self.place, self.toy = out, place, toy
        self.rows: list[dict[str, Any]] = []
        out.mkdir(parents=True, exist_ok=True)

    def row(self, name: str, model: Path, data: Path, gpus: int, steps: int, *words: str) -> dict[str, Any]:
        """One fine-tuning: its losses, speed and memory, or the line with which it was refused."""
        target = self.place / name.replace(" ", "-")
        command = [sys.executable, "-m", "ropewalk", "finetune", str(model), str(target)]
        command += ["--data", str(data), "--gpus", str(gpus), "--steps", str(steps), "--warmup", "2"]
        command += ["--micro-batch", "1", "--save-every", "1000", "--rate", "6e-4"]
        command += ["--short-share", "0", *words]
        command += ["--device", "cpu"] if self.toy else []
        start = time.monotonic()
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout, flush=True)
        found: dict[str, Any] = {"name": name, "gpus": gpus, "exit": done.returncode}
        found |= {"words": list(words), "seconds": time.monotonic() - start}
        if done.returncode:
            said = [line for line in done.stdout.splitlines() if line.startswith("ropewalk:")]
            found["said"] = said[-1] if said else done.stdout[-2000:]
        else:
            log = json.loads((target / "training.json").read_text())
            found["losses"] = [row["loss"] for row in log["rows"]]
            found |= {k: log["summary"][k] for k in ("tokens_per_second", "peak_bytes", "processes")}
            found["provenance"] = log["provenance"]
        self.rows.append(found)
        (self.out / "many_gpus.json").write_text(json.dumps({"rows": self.rows}, indent=2) + "\n")
        return found


def against(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Add to ``other`` how it compares with one GPU: speed, and the largest difference of a loss."""
    if "losses" in one and "losses" in other:
        if one["tokens_per_second"]:  # GPUs' alone
            other["times_as_fast"] = other["tokens_per_second"] / one["tokens_per_second"]
        pairs = list(zip(one["losses"], other["losses"]))
        other["loss_difference"] = max(abs(a - b) for a, b in pairs)


def long_window(bench: Bench, size: Size, gpus: int, lengths: list[int]) -> None:
    """Windows on one GPU until one does not fit, then that one on all GPUs."""
    for length in lengths:
        model = write_model(bench.place / f"wide-{length}", size.wide, length)
        data = write_text(bench.place / f"long-{length}", 17 * length)
        words = ("--batch", "1", "--recompute")
        alone = bench.row(f"{length:,} on one", model, data, 1, 2, *words)
        if alone["exit"] and "memory does not suffice" not in alone.get("said", ""):
            return
        if alone["exit"] or length == lengths[-1]:
            together = bench.row(f"{length:,} shared", model, data, gpus, 2, *words, "--parallel", "context")
            against(alone, together)
            return


def table(rows: list[dict[str, Any]]) -> None:
    """The rows in a few columns."""
    print(f"{'':24}{'GPUs':>5}{'tokens/s':>10}{'times':>7}{'GB':>7}{'last loss':>11}{'max |Δ|':>10}")
    for row in rows:
        if row["exit"]:
            print(f"{row['name']:24}{row['gpus']:5}  {row['said'][:100]}")
            continue
        peak = f"{row['peak_bytes'] / 1e9:.1f}" if row["peak_bytes"] else "-"
        times = f"{row['times_as_fast']:.2f}" if "times_as_fast" in row else ""
        apart = f"{row['loss_difference']:.1e}" if "loss_difference" in row else ""
        speed = row["tokens_per_second"] or 0
        last = row["losses"][-1]
        print(f"{row['name']:24}{row['gpus']:5}{speed:10,}{times:>7}{peak:>7}{last:11.4f}{apart:>10}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="a checkpoint in the place of the random one")
    parser.add_argument("--gpus", type=int, help="default all")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--long", type=int, nargs="+", help="windows that one GPU may not hold")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=WAYS, help="default all")
    parser.add_argument("--toy", action="store_true")
    args = parser.parse_args()
    import torch

    size = TOY if args.toy else FULL
    gpus = args.gpus or (2 if args.toy else torch.cuda.device_count())
    steps = args.steps or size.steps
    if args.toy:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="many-gpus-") as place:
        bench = Bench(args.out, Path(place), args.toy)
        model = args.model or write_model(Path(place) / "model", size.shape, size.window)
        data = write_text(Path(place) / "text", size.window * (size.batch * steps + 16))
        words = ("--batch", str(size.batch), "--window", str(size.window))
        ways = [way for way in args.ways if way != "long"]
        one = bench.row("one", model, data, 1, steps, *words) if ways else {}
        for way in ways:
            against(one, bench.row(way, model, data, gpus, steps, *words, "--parallel", way))
        if "long" in args.ways:
            long_window(bench, size, gpus, args.long or list(size.long))
    against_all = {"rows": bench.rows, "steps": steps, "window": size.window, "batch": size.batch}
    (args.out / "many_gpus.json").write_text(json.dumps(against_all, indent=2) + "\n")
    table(bench.rows)


if __name__ == "__main__":
    main()
