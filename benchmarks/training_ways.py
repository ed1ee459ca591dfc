"""The ways of training that `training.py` compares: what each sets, and the loop that steps through them."""

from __future__ import annotations

import contextlib
import gc
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ropewalk.model.attention import kernel
from ropewalk.train.loss import IGNORED, LossModel, rows_per_chunk
from ropewalk.train.rates import schedule_factor

BETAS = (0.9, 0.95)
RATE = 1e-4
WARMUP = 1
"""Steps of warm-up, from a tenth of the rate; these are not timed."""


@dataclass(frozen=True)
class Way:
    """One way of training.

    kernel: attention kernel, "torch" for torch's own choice.   fused: AdamW in one kernel.
    compiled: each decoder layer through torch.compile.   loss_compiled: the loss's chunk too.
    recompute: activations computed twice.   weights: "float32" under bf16 autocast, or "bf16" with a
    float32 copy that the optimizer steps.   repeat: key and value heads repeated before attention, instead
    of enable_gqa.   rows: rows of logits at once, 0 for ropewalk's choice.   tokens: of a micro-batch.
    """

    name: str
    kernel: str = "torch"
    fused: bool = True
    compiled: bool = False
    loss_compiled: bool = False
    recompute: bool = False
    weights: str = "float32"
    repeat: bool = False
    rows: int = 0
    tokens: int = 32768


ORDINARY = Way("ordinary", fused=False, rows=8192)
WAYS = [
    Way("compiled layers and loss", kernel="cudnn", compiled=True, loss_compiled=True),
    Way(
        "compiled, bf16 weights + float32", kernel="cudnn", compiled=True, loss_compiled=True, weights="bf16"
    ),
    Way("micro-batch of one row", kernel="cudnn", tokens=1),
    Way("eager, cudnn", kernel="cudnn"),
    Way("eager, bf16 weights + float32", kernel="cudnn", weights="bf16"),
    Way("recomputed", kernel="cudnn", recompute=True),
    Way("compiled layers", kernel="cudnn", compiled=True),
    Way("compiled and recomputed", kernel="cudnn", compiled=True, loss_compiled=True, recompute=True),
    Way("eager, cudnn, heads repeated", kernel="cudnn", repeat=True),
    Way("eager, cudnn, AdamW not fused", kernel="cudnn", fused=False),
]
"""Best first: what time does not suffice for is left out from the end."""


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


class Loss(torch.nn.Module):
    """Sum of the next-token loss of a micro-batch, as ropewalk computes it or with a compiled chunk."""

    def __init__(self, model: Any, way: Way) -> None:
        super().__init__()
        vocabulary = model.config.vocab_size
        self.rows = way.rows or rows_per_chunk(vocabulary)
        self.whole = LossModel(model, own_head=True, chunk_bytes=4 * vocabulary * self.rows)
        self.model, self.piece = model, None
        if way.loss_compiled:
            self.piece = torch.compile(_piece, dynamic=False)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        if self.piece is None:
            one = torch.ones((), device=ids.device)
            return self.whole(ids, labels, num_items_in_batch=one)["loss"]
        hidden = self.model.get_decoder()(input_ids=ids, use_cache=False)[0].flatten(0, 1)
        weight, wanted = self.model.get_output_embeddings().weight, labels.flatten()
        rows = self.rows // 256 * 256 or self.rows  # equal chunks: one graph
        total = torch.zeros((), device=ids.device)
        for at in range(0, len(wanted), rows):
            part = (hidden[at : at + rows], wanted[at : at + rows], weight)
            total = total + checkpoint(self.piece, *part, use_reentrant=False)
        return total


def _piece(hidden: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), labels, ignore_index=IGNORED, reduction="sum")


class Master:
    """AdamW over float32 copies of bf16 weights; gradients are summed in float32 as they come."""

    def __init__(self, parameters: list[Tensor], fused: bool) -> None:
        self.low = parameters
        self.high = [p.detach().float().clone() for p in parameters]
        self.optimizer = torch.optim.AdamW(self.high, lr=RATE, betas=BETAS, weight_decay=0.0, fused=fused)
        for low, high in zip(self.low, self.high):
            high.grad = torch.zeros_like(high)
            low.register_post_accumulate_grad_hook(self._adder(high))  # type: ignore[attr-defined]

    @staticmethod
    def _adder(high: Tensor) -> Callable[[Tensor], None]:
        def add(low: Tensor) -> None:
            assert high.grad is not None and low.grad is not None
            high.grad.add_(low.grad)
            low.grad = None

        return add

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.high, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.low, self.high)
        torch._foreach_zero_([p.grad for p in self.high])


class Plain:
    """AdamW over the model's own weights."""

    def __init__(self, parameters: list[Tensor], fused: bool) -> None:
        self.parameters = parameters
        self.optimizer = torch.optim.AdamW(parameters, lr=RATE, betas=BETAS, weight_decay=0.0, fused=fused)

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def prepare(model: Any, way: Way) -> None:
    """Set a fresh model up for one way of training."""
    model.train()
    if way.repeat:
        model.set_attn_implementation(_repeated())
    if way.recompute:
        if hasattr(model, "activation_checkpointing_enable"):  # the later versions' name for it
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        else:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if way.compiled:
        for layer in model.get_decoder().layers:
            layer.compile(dynamic=False)


def _repeated() -> str:
    """The name of an attention that repeats the key and value heads, as older versions did."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **more: Any
    ) -> tuple[Tensor, None]:
        assert mask is None
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=more.get("scaling"))
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register("sdpa_repeated", attend)
    AttentionMaskInterface.register("sdpa_repeated", sdpa_mask)
    return "sdpa_repeated"


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


def measure(
    make: Callable[[str], Any],
    way: Way,
    tokens: Tensor,
    *,
    length: int,
    batch: int,
    timed: int,
    device: str,
) -> dict[str, Any]:
    """Time and peak memory of optimizer steps of ``batch`` windows of ``length`` tokens, one way.

    make: dtype -> a fresh model on the device with the same weights each time.
    The first step, at a tenth of the rate, is not timed: compiling and warming up fall into it.
    """
    forget()
    rows = max(1, min(batch, way.tokens // length))
    turns = batch // rows
    bf16 = way.weights == "bf16"
    model = make("bfloat16" if bf16 else "float32")
    prepare(model, way)
    loss_of = Loss(model, way)
    weights = [p for p in model.parameters() if p.requires_grad]
    fused = way.fused and device != "cpu"
    optimizer: Any = Master(weights, fused) if bf16 else Plain(weights, fused)
    data = micro_batches(tokens, length, rows, device)
    losses: list[Tensor] = []

    def step() -> None:
        for group in optimizer.optimizer.param_groups:
            group["lr"] = RATE * schedule_factor(len(losses), steps=timed, warmup=WARMUP, schedule="constant")
        total = torch.zeros((), device=device)
        for _ in range(turns):
            ids, labels = next(data)
            with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16, enabled=not bf16):
                loss = loss_of(ids, labels) / (turns * rows * (length - 1))
            loss.backward()
            total += loss.detach()
        optimizer.step()
        losses.append(total)

    named = kernel(way.kernel) if device != "cpu" else contextlib.nullcontext()
    with named, warnings.catch_warnings():
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
        where = where_time_goes(step) if device != "cpu" else {}
    graphs = int(torch._dynamo.utils.counters["stats"]["unique_graphs"]) if way.compiled else 0
    return {
        "way": way.name,
        "micro_batch": rows,
        "prepared_s": prepared,
        "steps": timed,
        "step_s": sorted(spent)[len(spent) // 2],
        "step_s_all": spent,
        **peak,
        "losses": kept,
        "recompute": way.recompute,
        "compiled": way.compiled,
        "weights": way.weights,
        "kernel": way.kernel,
        "rows_of_logits": loss_of.rows,
        "graphs": graphs,
        **where,
    }


def memory(device: str) -> dict[str, float]:
    """The most memory in use since the last reset, and the most that torch held, GB."""
    if device == "cpu":
        return {"peak_gb": 0.0, "reserved_gb": 0.0}
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"peak_gb": allocated / 1e9, "reserved_gb": reserved / 1e9}


def where_time_goes(run: Callable[[], None]) -> dict[str, Any]:
    """Milliseconds of the GPU in attention, matrix products and all else, and the attention kernels' names.

    From torch's profiler over one run: what really ran, not what was asked for.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        run()
        torch.cuda.synchronize()
    spent = {"attention": 0.0, "products": 0.0, "other": 0.0}
    names = set()
    for event in found.key_averages():
        time_ms, name = event.self_device_time_total / 1e3, event.key.lower()
        if any(word in name for word in ("flash", "fmha", "sdpa", "attention")):
            spent["attention"] += time_ms
            names.add(event.key[:80])
        elif any(word in name for word in ("gemm", "nvjet", "cutlass", "xmma", "splitk")):
            spent["products"] += time_ms
        else:
            spent["other"] += time_ms
    return {"ms": spent, "kernels": sorted(names)}
