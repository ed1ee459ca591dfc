"""How fast sliding-window perplexity is, against the ordinary way, on one GPU.

    python benchmarks/perplexity.py MODEL --data books.parquet --out benchmarks/perplexity

The ordinary way is the loop of transformers' own guide to perplexity: one window at a time through the
whole model, labels −100 where a token was scored before, so that full logits are made and turned to
float32. Ours is `ropewalk.model.lm` as `ropewalk evaluate` uses it. Both score the same windows of the same
text with the same bfloat16 weights; the perplexities must agree to 1e-3. Every variant is warmed up on one
batch first, and the GPU is synchronised around the clock; compiling is reported apart.

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
from pathlib import Path
from typing import Any

import torch

from ropewalk.data.text import documents
from ropewalk.evals.texts import Text, window_ids
from ropewalk.metrics.windows import windows
from ropewalk.model.lm import TransformersLM
from ropewalk.model.load import load_model

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


def measure(
    name: str, lm: TransformersLM, rows: torch.Tensor, warm: int
) -> tuple[dict[str, Any], list[float]]:
    """Time one variant of ours over all windows. ``warm`` windows go first, unmeasured but for their time."""
    start = time.perf_counter()
    lm.log_probs(rows[:warm], STRIDE)
    prepared = time.perf_counter() - start
    if lm.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds, found = timed(lambda: lm.log_probs(rows, STRIDE), lm.device)
    losses = (-found.double()).sum(dim=1).tolist()
    row = {"way": name, "seconds": seconds, "prepared": prepared, "kernel": kernel_name(lm, rows)}
    return row, losses


def kernel_name(lm: TransformersLM, rows: torch.Tensor) -> str:
    return lm.kernel_for(rows) if lm.on_gpu else "torch"


def at_window(path: Path, args: argparse.Namespace, length: int, rates: tuple[float, float]) -> list[dict]:
    """All variants at one window length."""
    lm = TransformersLM(path, args.device, args.dtype, compiled=False)
    count = max(8, args.tokens // length)
    text = read_text(lm, args.data, length - (lm.bos is not None) + count * STRIDE)
    jobs = windows("sliding", len(text.ids), length, STRIDE, lm.bos is not None)[1:]
    rows = torch.stack([window_ids(lm, text, job) for job in jobs])
    few = rows[: max(4, min(len(rows), args.ordinary // length))]
    first, least = ordinary_row(path, args, few, rates)
    found = [first]
    variants: list[tuple[str, dict[str, Any]]] = [("ours, torch's kernel", {"kernel": "torch"})]
    variants += [("ours, measured kernel", {"kernel": None}), ("ours, compiled", {"compiled": True})]
    if args.search:
        variants.append(("ours, searched", {"compiled": True, "search": True}))
    for name, more in variants:
        lm = TransformersLM(path, args.device, args.dtype, **{"compiled": False, **more})
        lm.ready()
        row, losses = measure(name, lm, rows, min(len(rows), max(1, (1 << 17) // length)))
        row["memory_gb"] = peak(args.device)
        row["perplexity"] = math.exp(sum(losses[: len(few)]) / len(few) / STRIDE)
        row["ms_a_window"] = 1e3 * row["seconds"] / len(rows)
        found.append(row)
        del lm
        if args.device != "cpu":
            torch.cuda.empty_cache()
    for row in found:
        row |= {"window": length, "windows": len(rows), "tokens_a_second": 1e3 * length / row["ms_a_window"]}
        row["times_as_fast"] = first["ms_a_window"] / row["ms_a_window"]
        row["difference"] = row["perplexity"] / first["perplexity"] - 1
        row["of_floor"] = row["ms_a_window"] / least["ms"]
        row |= {f"floor_{key}": value for key, value in least.items()}
    return found


def ordinary_row(
    path: Path, args: argparse.Namespace, few: torch.Tensor, rates: tuple[float, float]
) -> tuple[dict[str, Any], dict[str, float]]:
    """(the ordinary way's row, the floor of a window)."""
    model = load_model(path, dtype=args.dtype, device=args.device)
    ordinary(model, few[:2])
    if args.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    seconds, losses = timed(lambda: ordinary(model, few), args.device)
    row = {
        "way": "ordinary",
        "seconds": seconds,
        "ms_a_window": 1e3 * seconds / len(few),
        "kernel": "torch",
        "prepared": 0.0,
        "memory_gb": peak(args.device),
        "perplexity": math.exp(sum(losses) / len(few) / STRIDE),
    }
    return row, floor(model, few.shape[1], *rates)


def peak(device: str) -> float:
    """The most memory that was in use, GB."""
    return torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", help="checkpoint directory (default: random, 135M)")
    parser.add_argument("--data", nargs="*", default=[], help="text files (default: random tokens)")
    parser.add_argument("--windows", nargs="+", type=int, default=[8192, 32768])
    parser.add_argument("--tokens", type=int, default=1 << 21, help="tokens of windows to read, ours")
    parser.add_argument("--ordinary", type=int, default=1 << 20, help="tokens to read the ordinary way")
    parser.add_argument("--search", action="store_true", help="also compiled with a search of kernels")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/perplexity"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(args.model) if args.model else random_model(Path(scratch) / "random-135M")
        rates = peak_rates(args.device)
        rows = [row for length in args.windows for row in at_window(path, args, length, rates)]
    device = torch.cuda.get_device_name() if args.device != "cpu" else "cpu"
    conditions = {
        "device": device,
        "torch": torch.__version__,
        "transformers": __import__("transformers").__version__,
        "dtype": args.dtype,
        "model": args.model or "random, shape of SmolLM2-135M",
        "stride": STRIDE,
        "measured_tflops": rates[0] / 1e12,
        "measured_gigabytes_a_second": rates[1] / 1e9,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "perplexity.json").write_text(
        json.dumps({"conditions": conditions, "rows": rows}, indent=2) + "\n"
    )
    with open(args.out / "perplexity.csv", "w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=sorted({key for row in rows for key in row}))
        writer.writeheader()
        writer.writerows(rows)
    print(f"{device}, torch {torch.__version__}, {args.dtype}, stride {STRIDE}")
    print(
        f"{'window':>7} {'way':22} {'kernel':8} {'ms/window':>9} {'x':>5} {'/floor':>6} {'GB':>5} {'diff':>9}"
    )
    for r in rows:
        speed = f"{r['ms_a_window']:>9.1f} {r['times_as_fast']:>5.2f} {r['of_floor']:>6.2f}"
        rest = f"{r['memory_gb']:>5.1f} {r['difference']:>+9.1e}"
        print(f"{r['window']:>7} {r['way']:22} {r['kernel']:8} {speed} {rest}")
    wrong = [r for r in rows if abs(r["difference"]) > 1e-3]
    print("values equal to 1e-3" if not wrong else f"VALUES DIFFER: {[r['way'] for r in wrong]}")


if __name__ == "__main__":
    main()
