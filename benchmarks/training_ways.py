"""The ordinary way of training that `training.py` compares with, and what the clocks of all ways share."""

from __future__ import annotations

import contextlib
import gc
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ropewalk.model.attention import kernel
from ropewalk.train.loss import IGNORED, LossModel
from ropewalk.train.rates import schedule_factor

BETAS = (0.9, 0.95)
RATE = 1e-4
WARMUP = 1
"""Steps of warm-up, from a tenth of the rate; these are not timed."""
ROWS_OF_LOGITS = 8192
"""Of the ordinary way's checkpointed cross-entropy."""
MICRO_TOKENS = 32768


def text_tokens(count: int, vocabulary: int) -> Tensor:
    """(count,) int64: the bytes of Python's own standard library, which every machine has, as token ids."""
    found = bytearray()
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        found += file.read_bytes()
        if len(found) >= count:
            break
    found = found * (count // len(found) + 1)
    return torch.frombuffer(found[:count], dtype=torch.uint8).long() % vocabulary


def micro_batches(tokens: Tensor, length: int, rows: int, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """(input_ids, labels) of ``rows`` windows each, over and over, from the beginning."""
    size = rows * length
    while True:
        for start in range(0, len(tokens) - size + 1, size):
            ids = tokens[start : start + size].view(rows, length)
            labels = torch.full_like(ids, IGNORED)
            labels[:, :-1] = ids[:, 1:]
            yield ids.to(device), labels.to(device)


def forget() -> None:
    """Give memory and compiled code back: nothing of one way reaches the next."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def now(device: str) -> float:
    """Seconds, with the GPU's queue empty."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def ordinary(
    make: Callable[[str], Any],
    named: str,
    tokens: Tensor,
    *,
    length: int,
    batch: int,
    timed: int,
    device: str,
) -> dict[str, Any]:
    """Time and peak memory of optimizer steps of ``batch`` windows of ``length`` tokens, by a plain loop.

    make: dtype -> a fresh model on the device with the same weights each time.
    named: the attention kernel, "torch" for torch's own choice.
    The first step, at a tenth of the rate, is not timed: warming up falls into it.
    """
    forget()
    rows = max(1, min(batch, MICRO_TOKENS // length))
    turns = batch // rows
    model = make("float32").train()
    loss_of = LossModel(model, chunk_bytes=4 * model.config.vocab_size * ROWS_OF_LOGITS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=BETAS, weight_decay=0.0, fused=False)
    data = micro_batches(tokens, length, rows, device)
    losses: list[Tensor] = []

    def step() -> None:
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule_factor(len(losses), steps=timed, warmup=WARMUP, schedule="constant")
        total = torch.zeros((), device=device)
        for _ in range(turns):
            ids, labels = next(data)
            with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
                loss = loss_of(ids, labels, num_items_in_batch=turns * rows * (length - 1))["loss"]
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)

    with kernel(named) if device != "cpu" else contextlib.nullcontext(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = now(device)
        for _ in range(WARMUP):
            step()
        prepared = now(device) - start
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        spent = []
        for _ in range(timed):
            begin = now(device)
            step()
            spent.append(now(device) - begin)
        peak = memory(device)
        kept = [float(one) for one in losses]
        watching = profiler()
        with watching:
            step()
            now(device)
    return {
        "way": "ordinary" if named == "torch" else f"ordinary, {named} kernel",
        "micro_batch": rows,
        "prepared_s": prepared,
        "steps": timed,
        "step_s": sorted(spent)[len(spent) // 2],
        "step_s_all": spent,
        **peak,
        "losses": kept,
        "kernel": named,
        "rows_of_logits": ROWS_OF_LOGITS,
        **where_time_goes(watching),
    }


def memory(device: str) -> dict[str, float]:
    """The most memory in use since the last reset, and the most that torch held, GB."""
    if device == "cpu":
        return {"peak_gb": 0.0, "reserved_gb": 0.0}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_gb": allocated / 1e9, "reserved_gb": reserved / 1e9}


def profiler() -> Any:
    """torch's profiler of the GPU's kernels."""
    from torch.profiler import ProfilerActivity, profile

    where = ProfilerActivity.CUDA if torch.cuda.is_available() else ProfilerActivity.CPU
    return profile(activities=[where])


def where_time_goes(found: Any) -> dict[str, Any]:
    """Milliseconds of the GPU in attention, matrix products and all else, and the attention kernels' names:
    what really ran, not what was asked for. Of a finished profile."""
    spent = {"attention": 0.0, "products": 0.0, "other": 0.0}
    if not torch.cuda.is_available():
        return {"ms": spent, "kernels": []}
    names, rest = set(), []
    for event in found.key_averages():
        time_ms, name = event.self_device_time_total / 1e3, event.key.lower()
        if any(word in name for word in ("flash", "fmha", "sdpa", "attention")):
            spent["attention"] += time_ms
            names.add(event.key[:80])
        elif any(word in name for word in ("gemm", "nvjet", "cutlass", "xmma", "splitk")):
            spent["products"] += time_ms
        else:
            spent["other"] += time_ms
            rest.append((time_ms, event.key[:80]))
    return {"ms": spent, "kernels": sorted(names), "others_ms": sorted(rest, reverse=True)[:12]}
