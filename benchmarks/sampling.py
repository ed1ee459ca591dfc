"""How near a sample of the windows comes to the perplexity of all of them.

    python benchmarks/sampling.py MODEL --data books.parquet --context 2048 --out docs/results/sampling

All windows of whole documents are read once, exactly, and the pass over side-by-side windows. Then
`ropewalk evaluate --sample` is played many times with other seeds on the losses that were read: each time
the same functions draw windows, correct and estimate. Reported: how often the estimate is within 0.5 % of
the exact perplexity, how often the 95 % interval holds it, with the correction and without.
"windows_read_for_95_in_half_percent" is a prediction by 1 / sqrt(windows), not a measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk.evals import control
from ropewalk.evals.perplexity import corrected, stratum
from ropewalk.evals.texts import read_texts, read_windows
from ropewalk.metrics.perplexity import choose_windows, sampled_interval
from ropewalk.metrics.windows import windows
from ropewalk.model.lm import TransformersLM
from ropewalk.model.source import resolve
from ropewalk.results.cells import Cells

WITHIN = 0.005


def exact(lm: Any, args: argparse.Namespace, cells: Cells) -> tuple[list[Any], list[Any], Any, list[float]]:
    """(windows, their losses, what the pass says of them, document by document; seconds of both passes).

    What the pass says is None where `evaluate` would not make it.
    """
    texts = read_texts(lm, args.data, at_least=args.context, cut=args.cut)
    texts = texts[:: args.every]
    if args.shortest:
        texts = sorted(texts, key=lambda text: len(text.ids))[: args.shortest]
    bos = lm.bos is not None
    every = [list(windows("sliding", len(t.ids), args.context, args.stride, bos)) for t in texts]
    jobs = [(i, w) for i, ws in enumerate(every) for w in ws]
    label, start = f"exact {args.context}", time.perf_counter()
    found = iter(read_windows(lm, texts, jobs, lambda x, _: float(x.sum()), cells, label, args.stride))
    losses = [[next(found) for _ in ws] for ws in every]
    if not (args.control or control.pays(args.share, args.context, args.stride)):
        return every, losses, None, [time.perf_counter() - start]
    middle = time.perf_counter()
    known = control.known(lm, texts, every, args.context, args.stride, "text", cells)
    return every, losses, known, [middle - start, time.perf_counter() - middle]


def played(every: Any, losses: Any, known: Any, share: float, seed: int, correct: bool) -> tuple[float, ...]:
    """(mean loss, low, high, windows read) of one sample."""
    drawn = choose_windows([len(ws) - 1 for ws in every], share, seed)
    chosen = [[0, *(j + 1 for j in d)] for d in drawn]
    read = [[x[j] for j in kept] for x, kept in zip(losses, chosen)]
    strata = [stratum(a, b, c) for a, b, c in zip(read, chosen, every)]
    sure, fitted = [a[0] for a in read], 0
    if correct:
        strata, more = corrected(strata, known, chosen)
        sure, fitted = [a + b for a, b in zip(sure, more)], known[0].shape[1]
    tokens = sum(w.scored for ws in every for w in ws)
    mean = (math.fsum(sure) + math.fsum(s.estimate for s in strata)) / tokens
    low, high = sampled_interval(math.fsum(sure), strata, tokens, fitted=fitted) or (math.nan, math.nan)
    return mean, low, high, sum(map(len, chosen))


def summary(every: Any, losses: Any, known: Any, args: argparse.Namespace, correct: bool) -> dict[str, Any]:
    """What many samples of one kind gave."""
    truth = math.fsum(x for ls in losses for x in ls) / sum(w.scored for ws in every for w in ws)
    found = [played(every, losses, known, args.share, seed, correct) for seed in range(args.seeds)]
    errors = np.array([math.expm1(mean - truth) for mean, *_ in found])
    spread = float(np.sqrt(np.mean(errors**2)))
    read = found[0][3]
    return {
        "corrected": correct,
        "seeds": args.seeds,
        "windows_read": read,
        "within_half_percent": float(np.mean(np.abs(errors) <= WITHIN)),
        "interval_holds": float(np.mean([low <= truth <= high for _, low, high, _ in found])),
        "relative_error_rms": spread,
        "relative_bias": float(errors.mean()),
        "windows_read_for_95_in_half_percent": round(read * (spread * 1.96 / WITHIN) ** 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--stride", type=int, default=256)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--every", type=int, default=1, help="only every n-th document")
    parser.add_argument("--shortest", type=int, help="of those only so many, the shortest")
    parser.add_argument(
        "--control", action="store_true", help="correct by the pass also where `evaluate` would not"
    )
    parser.add_argument("--cut", type=int, help="only the first tokens of each document")
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype")
    parser.add_argument("--cells", type=Path, help="keep what was read here, to go on after a stop")
    parser.add_argument(
        "--keep", type=Path, help="write each window's loss and what is known of it here, .npz"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results file")
    args = parser.parse_args()
    source = resolve(args.model)
    dtype = args.dtype or ("float32" if args.device == "cpu" else "bfloat16")
    lm = TransformersLM(source.path, args.device, dtype, name=source.name)
    inputs = {
        key: str(value) for key, value in vars(args).items() if key not in ("seeds", "cells", "out", "keep")
    }
    every, losses, known, seconds = exact(lm, args, Cells(args.cells, inputs))
    truth = math.fsum(x for ls in losses for x in ls) / sum(w.scored for ws in every for w in ws)
    ways = (False,) if known is None else (False, True)
    result = {
        "model": source.name,
        "data": [Path(name).name for name in args.data],
        "documents": len(every),
        "windows": sum(map(len, every)),
        "context": args.context,
        "stride": args.stride,
        "share": args.share,
        "control": known is not None,
        "seconds_exactly_and_control": seconds,
        "tokens_read_exactly": sum(w.stop - w.start for ws in every for w in ws),
        "tokens_of_the_documents": sum(ws[-1].stop for ws in every),
        "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
        "dtype": dtype,
        "torch": torch.__version__,
        "perplexity": math.exp(truth),
        "samples": [summary(every, losses, known, args, correct) for correct in ways],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    if args.keep:
        scored = [np.array([w.scored for w in ws]) for ws in every]
        parts = {"losses": losses, "scored": scored} | ({} if known is None else {"known": known})
        np.savez(args.keep, **{f"{name}{i}": x for name, xs in parts.items() for i, x in enumerate(xs)})
    path = args.out / f"{source.name}-{args.context}-{len(every)}-documents.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
