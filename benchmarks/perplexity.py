"""How fast sliding-window perplexity is, against the ordinary way, on one GPU.

    python benchmarks/perplexity.py MODEL --data books.parquet --out benchmarks/perplexity

The ordinary way is the loop of transformers' own guide to perplexity: one window at a time through the
whole model, labels −100 where a token was scored before, so that full logits are made and turned to
float32. Ours is `ropewalk.model.lm` as `ropewalk evaluate` uses it. Both score the same windows of the same
text with the same bfloat16 weights; the perplexities must agree to 1e-3. Every variant is warmed up on one
batch first, and the GPU is synchronised around the clock; compiling is reported apart ("prepared"). The
results are written after each variant.

Without MODEL, a random model in the shape of SmolLM2-135M is used (30 layers, hidden 576, 9 heads of 64, 3
key-value heads, vocabulary 49,152), whose speed is the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk.data.text import documents
from ropewalk.evals.texts import Text, window_ids
from ropewalk.files import write_atomic
from ropewalk.metrics.windows import windows
from ropewalk.model.lm import GPU_BATCH, TransformersLM

STRIDE = 256


def random_model(place: Path) -> Path:
    """A random checkpoint in the shape of SmolLM2-135M, with a tokenizer of one word."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        rope_theta=100000.0,
    )
    LlamaForCausalLM(config).save_pretrained(place)
    vocabulary = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=vocabulary).save_pretrained(place)
    return place


def read_text(lm: TransformersLM, data: list[str], tokens: int) -> Text:
    """The first ``tokens`` tokens of the first document that is long enough; random ones without data."""
    if not data:
        draw = torch.Generator().manual_seed(0)
        return Text("random", torch.randint(0, lm.vocab, (tokens,), generator=draw))
    for document in documents(data):
        ids = lm.encode(document.text)
        if len(ids) >= tokens:
            return Text(document.name, torch.tensor(ids[:tokens]))
    raise SystemExit(f"no document of {' '.join(data)} has {tokens:,} tokens")


def timed(run: Any, device: str) -> tuple[float, Any]:
    """(seconds, result) with the GPU's queue empty before and after."""
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


@torch.no_grad()
def ordinary(model: Any, rows: torch.Tensor) -> list[float]:
    """The guide's loop: each window's loss over its last STRIDE tokens, from full float32 logits."""
    losses = []
    for row in rows:
        ids = row[None].to(model.device)
        labels = ids.clone()
        labels[:, :-STRIDE] = -100
        losses.append(float(model(ids, labels=labels).loss) * STRIDE)
    return losses


def floor(model: Any, length: int, flops_per_second: float, bytes_per_second: float) -> dict[str, float]:
    """What one window must cost: operations of the matrix products and of causal attention, and bytes.

    Operations: 2 × (weights of the layers) × T, the head's for STRIDE rows, and for each layer and head
    4 × T²/2 × head size. Bytes: the weights once a batch (not counted), and each layer's hidden states
    written and read once for attention and once for the feed-forward part.
    """
    c = model.config
    layer_weights = sum(p.numel() for p in model.model.layers.parameters())
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    attention = c.num_hidden_layers * c.num_attention_heads * 4 * head * length * length / 2
    products = 2 * layer_weights * length + 2 * c.vocab_size * c.hidden_size * STRIDE
    traffic = c.num_hidden_layers * 2 * 2 * 2 * c.hidden_size * length
    return {
        "tflop": (attention + products) / 1e12,
        "attention_share": attention / (attention + products),
        "gigabyte": traffic / 1e9,
        "ms": 1e3 * max((attention + products) / flops_per_second, traffic / bytes_per_second),
    }


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
        best.append(amount / min(timed(run, device)[0] for _ in range(10)))
    return best[0], best[1]


@dataclass(frozen=True)
class Way:
    """One way of ours to score the windows.

    layers: "eager" transformers' own; "compiled" each of them; "parts" `ropewalk.model.plain`.
    trim: of the last layer only the scored rows.   fused: gate and product in one kernel (model/gated.py).
    """

    layers: str
    trim: bool = True
    fused: bool = True

    def __str__(self) -> str:
        without = ", whole last layer" * (not self.trim) + ", gate by itself" * (not self.fused)
        return self.layers + without


TOP = (Way("parts"),)
LAST = (Way("parts", fused=False), Way("parts", trim=False), Way("eager"), Way("compiled"))


def plan(lengths: list[int], chosen: list[str]) -> list[tuple[int, Way]]:
    """What is measured, in this order: what `evaluate` does at every length, then less of it."""
    jobs = [(length, way) for way in TOP for length in lengths]
    jobs += [(length, way) for way in LAST for length in lengths]
    return [(length, way) for length, way in jobs if not chosen or way.layers in chosen]


class Bench:
    """The model in memory, the windows of each length, and the ordinary way's row for each."""

    def __init__(self, path: Path, args: argparse.Namespace) -> None:
        self.args = args
        self.lm = TransformersLM(path, args.device, args.dtype, compiled=False, kernel=args.kernel)
        self.rows, self.first, self.least, self.losses = {}, {}, {}, {}
        self.fused: Any = None
        rates = self.rates = peak_rates(args.device)
        for length in args.windows:
            count = max(8, args.tokens // length)
            text = read_text(self.lm, args.data, length - (self.lm.bos is not None) + count * STRIDE)
            jobs = windows("sliding", len(text.ids), length, STRIDE, self.lm.bos is not None)[1:]
            self.rows[length] = torch.stack([window_ids(self.lm, text, job) for job in jobs])
            few = self.rows[length][: max(4, min(count, args.ordinary // length))]
            self.first[length], self.losses[length] = ordinary_row(self.lm.model, args, few)
            self.least[length] = floor(self.lm.model, length, *rates)
            self.first[length] |= compared(self, length, self.first[length], self.losses[length])
            print(line(self.first[length]), flush=True)

    def set(self, way: Way) -> None:
        """Let the model compute this way."""
        lm = self.lm
        lm.compiled = way.layers != "eager"
        lm._limits.clear()
        if way.layers == "compiled":
            lm.__dict__["_decoder"] = None
        elif way.layers == "parts":
            assert lm._decoder is not None, "this model's layers are not plain"
            lm._decoder.trim = way.trim
            self.fused = self.fused or lm._decoder._fused
            lm._decoder._fused = self.fused if way.fused else None

    def measure(self, length: int, way: Way) -> dict[str, Any]:
        """Time one way over all windows; a first batch goes before, unmeasured but for its time."""
        lm, rows = self.lm, self.rows[length]
        self.set(way)
        start = time.perf_counter()
        lm.log_probs(rows[: max(1, GPU_BATCH // length)], STRIDE)
        row: dict[str, Any] = {"way": str(way), "prepared": time.perf_counter() - start}
        if lm.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds, found = timed(lambda: lm.log_probs(rows, STRIDE), lm.device)
        row |= {"seconds": seconds, "ms_a_window": 1e3 * seconds / len(rows), "memory_gb": peak(lm.device)}
        row |= {"kernel": kernel_name(lm, rows), "windows": len(rows)}
        if lm.on_gpu:
            torch.cuda.empty_cache()
        return row | compared(self, length, row, (-found.double()).sum(dim=1).tolist())


def compared(bench: Bench, length: int, row: dict[str, Any], losses: list[float]) -> dict[str, Any]:
    """What a row says beside the ordinary way's: speed, and how far the values differ.

    window_difference: root mean square difference of the windows' losses, as a share of their spread over
    windows; a random model's perplexity alone would hide a fault.
    """
    first, least, expected = bench.first[length], bench.least[length], np.array(bench.losses[length])
    few = np.array(losses[: len(expected)])
    value = math.exp(few.mean() / STRIDE)
    return {
        "window": length,
        "tokens_a_second": 1e3 * length / row["ms_a_window"],
        "times_as_fast": first["ms_a_window"] / row["ms_a_window"],
        "perplexity": value,
        "difference": value / math.exp(expected.mean() / STRIDE) - 1,
        "window_difference": float(np.sqrt(np.mean((few - expected) ** 2)) / expected.std()),
        "of_floor": row["ms_a_window"] / least["ms"],
        **{f"floor_{key}": x for key, x in least.items()},
    }


def kernels(lm: TransformersLM, rows: torch.Tensor) -> dict[str, float]:
    """Milliseconds a window in each GPU kernel over one batch, the longest first."""
    both = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=both) as profile:
        lm.log_probs(rows, STRIDE)
    times: dict[str, float] = {}
    for event in profile.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith("#"):
            name = event.name[:100]
            times[name] = times.get(name, 0.0) + event.time_range.elapsed_us() / 1e3 / len(rows)
    return dict(sorted(times.items(), key=lambda item: -item[1])[:20])


def kernel_name(lm: TransformersLM, rows: torch.Tensor) -> str:
    return lm.kernel_for(rows) if lm.on_gpu else "torch"


def ordinary_row(
    model: Any, args: argparse.Namespace, few: torch.Tensor
) -> tuple[dict[str, Any], list[float]]:
    """(the ordinary way's row, the windows' losses)."""
    ordinary(model, few[:2])
    if args.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds, losses = timed(lambda: ordinary(model, few), args.device)
    row = {"way": "ordinary", "seconds": seconds, "ms_a_window": 1e3 * seconds / len(few), "kernel": "torch"}
    return row | {"prepared": 0.0, "memory_gb": peak(args.device), "windows": len(few)}, losses


def peak(device: str) -> float:
    """The most memory that was in use, GB."""
    return torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else 0.0


def line(r: dict[str, Any]) -> str:
    speed = f"{r['ms_a_window']:>9.2f} {r['times_as_fast']:>5.2f} {r['of_floor']:>6.2f}"
    equal = f"{r['difference']:>+9.1e} {r['window_difference']:>8.1e}"
    return f"{r['window']:>7} {r['way']:40} {speed} {r['memory_gb']:>5.1f} {equal} {r['prepared']:>5.1f}"


def write(place: Path, conditions: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The rows so far, as JSON and, but for the kernels, as CSV."""
    place.mkdir(parents=True, exist_ok=True)
    write_atomic(
        place / "perplexity.json", json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n"
    )
    names = sorted({key for row in rows for key in row} - {"kernels_ms_a_window"})
    with open(place / "perplexity.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def conditions(args: argparse.Namespace, rates: tuple[float, float]) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
        "dtype": args.dtype,
        "model": Path(args.model).name if args.model else "random, shape of SmolLM2-135M",
        "data": [Path(name).name for name in args.data] or "random tokens",
        "stride": STRIDE,
        "measured_tflops": rates[0] / 1e12,
        "measured_gigabytes_a_second": rates[1] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", help="checkpoint directory (default: random, 135M)")
    parser.add_argument("--data", nargs="*", default=[], help="text files (default: random tokens)")
    parser.add_argument("--windows", nargs="+", type=int, default=[8192, 32768])
    parser.add_argument("--tokens", type=int, default=1 << 21, help="tokens of windows to read, ours")
    parser.add_argument("--ordinary", type=int, default=1 << 20, help="tokens to read the ordinary way")
    parser.add_argument("--ways", nargs="*", default=[], help="only these: parts, eager, compiled")
    parser.add_argument("--kernel", help="attention kernel (default: measured)")
    parser.add_argument("--profile", action="store_true", help="also the milliseconds of each GPU kernel")
    parser.add_argument("--seconds", type=float, default=math.inf, help="start nothing after so many")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/perplexity"))
    args = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        print(
            f"{'window':>7} {'way':40} {'ms/window':>9} {'x':>5} {'/floor':>6} {'GB':>5} differences prepared"
        )
        bench = Bench(Path(args.model) if args.model else random_model(Path(scratch) / "random-135M"), args)
        about, rows = conditions(args, bench.rates), list(bench.first.values())
        write(args.out, about, rows)
        for length, way in plan(args.windows, args.ways):
            if time.perf_counter() - start > args.seconds:
                print(f"{length:>7} {way}: not measured, the time is over")
                continue
            try:
                rows.append(bench.measure(length, way))
            except Exception as error:  # one way that fails must not cost the others
                reason = f"{type(error).__name__}: {str(error)[:300]}"
                rows.append({"way": str(way), "window": length, "failed": reason})
                print(f"{length:>7} {way}: {rows[-1]['failed']}", flush=True)
            else:
                print(line(rows[-1]), flush=True)
            write(args.out, about, rows)
            if args.profile and way in TOP and bench.lm.on_gpu:
                batch = bench.rows[length][: max(1, GPU_BATCH // length)]
                rows[-1]["kernels_ms_a_window"] = kernels(bench.lm, batch)
    write(args.out, about, rows)
    wrong = [r["way"] for r in rows if abs(r.get("difference", math.nan)) > 1e-3]
    print("values equal to 1e-3" if not wrong else f"VALUES DIFFER: {wrong}")


if __name__ == "__main__":
    main()
