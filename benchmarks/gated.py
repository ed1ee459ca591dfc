"""Is gate and product in one kernel (ropewalk.model.gated) faster than in two, and right? On one Hopper GPU.

    python benchmarks/gated.py --out benchmarks/gated

Two kernels: cuBLAS's product and the gate as torch.compile writes it, as scoring does without ours. Ours in
several tilings. Inputs drawn anew; the error is that against float64 arithmetic on the same inputs, as a
share of the norm. Times are medians of 30 runs between CUDA events, behind 5 unmeasured ones. And the
attention of a window's last 256 rows, under a dense mask and under a causal one (plain.PlainDecoder).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import linear, scaled_dot_product_attention, silu
from triton.errors import TritonError

from ropewalk.model.gated import STAGES, TILE, WARPS, gated

TILINGS = (
    (TILE, STAGES, WARPS),
    ((128, 128, 64), 3, 8),
    ((128, 128, 64), 4, 8),
    ((128, 128, 32), 4, 8),
    ((128, 64, 64), 4, 4),
    ((128, 64, 64), 3, 8),
    ((64, 128, 64), 3, 4),
    ((256, 64, 64), 3, 8),
)


def median_ms(run: Callable[[], object]) -> float:
    """Of 30 runs."""
    for _ in range(5):
        run()
    times = []
    for _ in range(30):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[len(times) // 2]


def gate_rows(rows: int, width: int, inner: int) -> list[dict]:
    """One row a way: milliseconds, TFLOP/s, error."""
    h = torch.randn(rows, width, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(2 * inner, width, device="cuda", dtype=torch.bfloat16) / width**0.5

    @torch.compile(dynamic=False)
    def gate(both: Tensor) -> Tensor:
        first, second = both.chunk(2, dim=-1)
        return silu(first) * second

    some = torch.randint(rows, (2048,), device="cuda")
    a, b = (h[some].double() @ weight.double().t()).chunk(2, dim=-1)
    expected = silu(a) * b
    ways: dict[str, Callable[[], Tensor]] = {"two kernels": lambda: gate(linear(h, weight))}
    for tile, stages, warps in TILINGS:
        name = f"one, {'x'.join(map(str, tile))}, {stages} stages, {warps} warps"
        ways[name] = lambda tile=tile, stages=stages, warps=warps: gated(h, weight, tile, stages, warps)
    found = []
    for name, run in ways.items():
        try:
            error = float((run()[some].double() - expected).norm() / expected.norm())
            ms = median_ms(run)
        except (RuntimeError, TritonError) as reason:  # a tiling that the card has no room for
            print(f"{name}: {type(reason).__name__}: {str(reason)[:200]}", flush=True)
            continue
        tflops = 4 * rows * width * inner / ms / 1e9
        found.append({"way": name, "rows": rows, "ms": ms, "tflops": tflops, "error": error})
        print(f"{name:40} {ms:8.3f} ms {tflops:6.0f} TFLOP/s, off by {error:.1e}", flush=True)
    return found


def last_rows(batch: int, length: int, scored: int = 256) -> list[dict]:
    """The attention of the last rows by itself: 9 heads of 64, 3 key-value heads."""
    q = torch.randn(batch, 9, scored, 64, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, 3, length, 64, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    places = torch.arange(length, device="cuda")

    def dense() -> Tensor:
        mask = (places <= places[length - scored :, None]).repeat(3, 1)
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            out = scaled_dot_product_attention(
                q.unflatten(1, (3, 3)).flatten(2, 3), k, v, attn_mask=mask, scale=0.125
            )
        return out.unflatten(2, (3, scored)).flatten(1, 2)

    def causal() -> Tensor:
        mask = causal_lower_right(scored, length)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.125, enable_gqa=True)

    found, expected = [], dense().double()
    for name, run in (("dense mask", dense), ("causal", causal)):
        error = float((run().double() - expected).norm() / expected.norm())
        found.append({"way": name, "windows": batch, "length": length, "ms": median_ms(run), "error": error})
        print(f"last rows of {batch} x {length}, {name}: {found[-1]['ms']:.3f} ms, apart {error:.1e}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=131_072, help="tokens of a batch")
    args = parser.parse_args()
    torch.manual_seed(0)
    rows = gate_rows(args.rows, 576, 1536) + last_rows(16, 8191) + last_rows(4, 32767)
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "gated.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
