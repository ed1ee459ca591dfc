"""How fast fine-tuning at long windows is and how much memory it takes, against the ordinary way, on one GPU.

    python benchmarks/training.py [MODEL] --out benchmarks/training        about four minutes
    python benchmarks/training.py --lora-7b --lora-few 2 --out ...         about three minutes more
    python benchmarks/training.py --toy --out ...                          the whole script, small, on a CPU

The ordinary way: eager, the attention kernel that torch chooses, bf16 autocast over float32 weights,
cross-entropy in checkpointed chunks of 8,192 rows, AdamW; and the same held to the flash kernel. "ropewalk":
`ropewalk.train.engine.train`, the Trainer and all, as `ropewalk finetune` runs it, with its flags or none.
Every way starts from the same weights, reads the same tokens and steps over 131,072 of them; losses agree to
0.5 %. The first step is not timed; the others are, with the queue empty before and after; the median counts.
Memory is the most that tensors took (not what torch held).

Two floors of a step: operations (ropewalk.train.operations) at the rate of an 8,192 cube product measured
here, and bytes (weights, gradients and optimizer state once, each layer's input and output once each way)
at the rate of a large copy. The distance is the step's time over their larger one.

Without MODEL: random weights in the shape of SmolLM2-135M, whose speed is the same.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import training_ways as ways
from training_engine import engine_row, name_of, random_model
from training_lora import few_layers, lora_step

from ropewalk.model.load import load_model, read_config
from ropewalk.model.shape import Shape, shape_of
from ropewalk.train.operations import operations

FLAGS = ({}, {"compiled": True}, {"compiled": True, "again": True}, {"again": True})
"""Of ropewalk, best first: what time does not suffice for is left out from the end."""


def peak_rates(device: str) -> tuple[float, float]:
    """(operations a second of a large bfloat16 product, bytes a second of a large copy), measured here."""
    if device == "cpu":
        return 1e11, 1e10
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    big = torch.empty(1 << 30, dtype=torch.uint8, device=device)
    other = torch.empty_like(big)
    best = []
    for run, amount in ((lambda: a @ a, 2 * 8192**3), (lambda: other.copy_(big), 2 << 30)):
        run()
        spent = []
        for _ in range(10):
            start = ways.now(device)
            run()
            spent.append(ways.now(device) - start)
        best.append(amount / min(spent))
    return best[0], best[1]


def floor(shape: Shape, length: int, tokens: int, rates: tuple[float, float]) -> dict[str, float]:
    """Seconds that a step must take by operations and by bytes, nothing computed twice."""
    found = operations(shape, length, frozen=False, recompute=False, head_twice=False)
    layer = shape.attention_weights + shape.inner_weights
    parameters = shape.layers * layer + shape.head_weights * (1 if shape.tied else 2)
    states = 28 * parameters  # weight, gradient and two moments read; weight and two moments written
    activations = shape.layers * tokens * 2 * shape.hidden * 2 * 2 * 2
    return {
        "floor_tflop": found.total * tokens / 1e12,
        "floor_attention_share": found.attention / found.total,
        "floor_operations_s": found.total * tokens / rates[0],
        "floor_gb": (states + activations) / 1e9,
        "floor_bytes_s": (states + activations) / rates[1],
    }


def at_window(path: Path, args: argparse.Namespace, length: int, save: Any, deadline: float) -> None:
    """All ways at one window; ``save`` keeps each row as it comes. Ways past the deadline are named."""
    device, batch = args.device, max(1, args.tokens // length)
    shape = shape_of(read_config(path))
    tokens = ways.text_tokens(args.tokens * (args.steps + 2), min(shape.vocab, 256))
    make = functools.partial(fresh, path, device)
    more = {"length": length, "batch": batch, "timed": args.steps, "device": device}
    engine = functools.partial(engine_row, path, tokens, **more)
    runs = [
        ("ordinary", lambda: ways.ordinary(make, "torch", tokens, **more)),
        *((name_of(**flags), functools.partial(engine, **flags)) for flags in FLAGS),
        ("ordinary, flash kernel", lambda: ways.ordinary(make, "flash", tokens, **more)),
    ]
    for name, run in runs:
        if args.ways and name not in [*args.ways, "ordinary"]:
            continue
        if time.monotonic() > deadline:
            print(f"not run for lack of time: {name} at {length:,}", flush=True)
            continue
        try:
            save(run(), length)
        except (RuntimeError, torch.OutOfMemoryError) as error:
            print(f"{name} at {length:,} failed: {' '.join(str(error).split())[:300]}", flush=True)


def fresh(path: Path, device: str, dtype: str) -> Any:
    """The model anew, the same weights each time."""
    return load_model(path, dtype=dtype, device=device, attention="sdpa")


def complete(rows: list[dict[str, Any]], shape: Shape, tokens: int, rates: tuple[float, float]) -> None:
    """Add what follows from the times: tokens a second, ratios to the ordinary way, floors, losses."""
    for row in rows:
        first = next(r for r in rows if r["window"] == row["window"] and r["way"] == "ordinary")
        row |= floor(shape, row["window"], tokens, rates)
        row["tokens_a_second"] = tokens / row["step_s"]
        row["times_as_fast"] = first["step_s"] / row["step_s"]
        row["memory_ratio"] = row["peak_gb"] / first["peak_gb"] if first["peak_gb"] else 0.0
        row["of_floor"] = row["step_s"] / max(row["floor_operations_s"], row["floor_bytes_s"])
        row["loss_difference"] = row["losses"][-1] / first["losses"][-1] - 1


def write(out: Path, conditions: dict[str, Any], rows: list[dict[str, Any]], name: str) -> None:
    """NAME.json with everything, NAME.csv with the plain columns."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n")
    plain = [{k: v for k, v in row.items() if not isinstance(v, list | dict)} for row in rows]
    with open(out / f"{name}.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=sorted({key for row in plain for key in row}))
        writer.writeheader()
        writer.writerows(plain)


def show(rows: list[dict[str, Any]]) -> None:
    """The table, at most 100 columns."""
    print(f"{'window':>7} {'way':34} {'micro':>5} {'tok/s':>7} {'x':>5} {'GB':>5} {'ratio':>5} ", end="")
    print(f"{'/floor':>6} {'loss':>8} {'prep s':>6}")
    for r in rows:
        print(f"{r['window']:>7} {r['way']:34} {r['micro_batch']:>5} {r['tokens_a_second']:>7,.0f} ", end="")
        print(f"{r['times_as_fast']:>5.2f} {r['peak_gb']:>5.1f} {r['memory_ratio']:>5.2f} ", end="")
        print(f"{r['of_floor']:>6.2f} {r['loss_difference']:>+8.1e} {r['prepared_s']:>6.1f}")
    for r in rows:
        if r.get("ms"):
            parts = ", ".join(f"{name} {ms:.0f}" for name, ms in r["ms"].items())
            print(f"{r['window']:>7} {r['way']:34} ms: {parts}; {' '.join(k[:28] for k in r['kernels'][:3])}")


def conditions_of(args: argparse.Namespace, rates: tuple[float, float]) -> dict[str, Any]:
    """What a figure needs beside it."""
    return {
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
        "model": args.model or "random, shape of SmolLM2-135M",
        "tokens_a_step": args.tokens,
        "warm_up_steps": ways.WARMUP,
        "timed_steps": args.steps,
        "measured_tflops": rates[0] / 1e12,
        "measured_gigabytes_a_second": rates[1] / 1e9,
        "toy": args.toy,
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", help="checkpoint directory (default: random, 135M)")
    parser.add_argument("--windows", nargs="+", type=int, default=[32768, 16384])
    parser.add_argument("--tokens", type=int, default=131072, help="tokens in an optimizer step")
    parser.add_argument("--ways", nargs="*", default=[], help="of them only these (the ordinary one always)")
    parser.add_argument("--steps", type=int, default=5, help="timed optimizer steps")
    parser.add_argument("--budget", type=float, default=190, help="seconds after which no further way begins")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--toy", action="store_true", help="tiny sizes: is the script right?")
    parser.add_argument("--lora-7b", action="store_true", help="LoRA on a Llama-2-7B shape instead")
    parser.add_argument("--lora-tokens", type=int, default=131072)
    parser.add_argument("--lora-steps", type=int, default=2)
    parser.add_argument("--lora-few", type=int, default=0, metavar="N", help="also 524,288 with N layers")
    parser.add_argument("--lora-tile", type=int, default=8192, help="tokens of a feed-forward tile, 0: none")
    parser.add_argument("--lora-offload", action="store_true", help="layer inputs kept in the host's memory")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/training"))
    args = parser.parse_args()
    if args.toy:
        args.windows, args.tokens, args.steps = [256, 128], 512, 2
        args.lora_tokens, args.lora_tile = 192, 64
    return args


def main() -> None:
    args = parse()
    rates = peak_rates(args.device)
    conditions = conditions_of(args, rates)
    if args.lora_7b:
        rows = [lora_step(args, rates)]
        write(args.out, conditions, rows, "lora-7b")
        if args.lora_few:
            rows.append(few_layers(args, rates))
            write(args.out, conditions, rows, "lora-7b")
        return
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(args.model) if args.model else random_model(Path(scratch) / "random", args.toy)
        shape = shape_of(read_config(path))
        deadline = time.monotonic() + args.budget

        def save(row: dict[str, Any], length: int) -> None:
            rows.append({**row, "window": length})
            complete(rows, shape, args.tokens, rates)
            write(args.out, conditions, rows, "training")
            print(f"{length:,} {row['way']}: {row['step_s']:.3f} s, {row['peak_gb']:.1f} GB", flush=True)

        for length in args.windows:
            at_window(path, args, length, save, deadline)
    print(
        f"{conditions['device']}, torch {torch.__version__}, transformers {conditions['transformers']}, ",
        end="",
    )
    print(f"{args.tokens:,} tokens a step, {conditions['measured_tflops']:.0f} TFLOP/s measured")
    show(rows)
    wrong = [r["way"] for r in rows if abs(r["loss_difference"]) > 5e-3]
    print("losses equal to 0.5 %" if not wrong else f"LOSSES DIFFER: {wrong}")


if __name__ == "__main__":
    main()
