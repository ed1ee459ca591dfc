"""LoRA on a model of Llama-2-7B's shape at very long windows on one card: whole steps, memory by part.

Random bf16 weights made on the card. The parts that make it fit: ropewalk's adapters on q, k, v, o; layers
computed twice; logits in chunks; feed-forward parts and norms in tiles of the sequence (train/tiles.py); and,
if asked, the layers' inputs kept in the host's memory.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import torch
from training_ways import BETAS, forget, memory, micro_batches, now, text_tokens

from ropewalk.model.attention import kernel
from ropewalk.model.shape import shape_of
from ropewalk.train.lora import add_adapter, without_casts
from ropewalk.train.loss import LossModel
from ropewalk.train.operations import operations
from ropewalk.train.recompute import recompute_layers
from ropewalk.train.tiles import tile_layers

FEW_TOKENS = 524288
RANK = 8


def llama(layers: int, length: int, toy: bool, device: str) -> Any:
    """A random bf16 model with the widths of Llama-2-7B (or tiny ones), made on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
    sizes |= {"vocab_size": 32000}
    if toy:
        sizes = {"hidden_size": 64, "intermediate_size": 160, "num_attention_heads": 4, "vocab_size": 300}
    factor = max(1.0, length / 4096)
    config = LlamaConfig(
        **sizes,
        num_hidden_layers=2 if toy else layers,
        max_position_embeddings=length,
        rope_parameters={"rope_type": "linear", "factor": factor, "rope_theta": 10000.0},
        attn_implementation="sdpa",
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


def lora_step(args: argparse.Namespace, rates: tuple[float, float], layers: int = 32) -> dict[str, Any]:
    """Optimizer steps of one window of ``args.lora_tokens`` tokens; prints and returns the row."""
    return _steps(args, rates, layers, args.lora_tokens, args.lora_steps)


def few_layers(args: argparse.Namespace, rates: tuple[float, float]) -> dict[str, Any]:
    """The same at 524,288 tokens with few layers of the same widths."""
    return _steps(args, rates, args.lora_few, FEW_TOKENS if not args.toy else 384, 1)


def _steps(
    args: argparse.Namespace, rates: tuple[float, float], layers: int, length: int, steps: int
) -> dict[str, Any]:
    forget()
    device = args.device
    parts: dict[str, float] = {}
    model = llama(layers, length, args.toy, device)
    parts["weights"] = held(device)
    model = add_adapter(model, rank=RANK, embeddings=False).train()
    parts["adapters"] = held(device) - parts["weights"]
    base = model.get_base_model()
    recompute_layers(base, attention_kept=False)
    if args.lora_tile:
        tile_layers(base, args.lora_tile)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=BETAS, weight_decay=0.0, fused=device != "cpu")
    whole = LossModel(model, own_head=True)
    data = micro_batches(text_tokens(2 * length, 256), length, 1, device)
    rows, losses = [], []
    for turn in range(steps):
        ids, labels = next(data)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        start = now(device)
        with contextlib.ExitStack() as inside:
            inside.enter_context(attention(device))
            inside.enter_context(without_casts(model))
            inside.enter_context(torch.autocast(device.partition(":")[0], dtype=torch.bfloat16))
            if args.lora_offload:  # what the layers keep for the backward pass: their inputs
                inside.enter_context(torch.autograd.graph.save_on_cpu(pin_memory=device != "cpu"))
            loss = whole(ids, labels)["loss"]
        forward = now(device)
        parts["after forward"] = held(device)
        parts["peak of forward"] = memory(device)["peak_gb"]
        autocast = torch.autocast(device.partition(":")[0], dtype=torch.bfloat16)
        with attention(device), without_casts(model), autocast:
            loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        backward = now(device)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rows.append({"forward_s": forward - start, "backward_s": backward - forward})
        losses.append(float(loss.detach()))
        parts["peak"], parts["reserved"] = memory(device)["peak_gb"], memory(device)["reserved_gb"]
        parts["between steps"] = held(device)
        del loss
        print(f"step {turn + 1}: loss {losses[-1]:.3f}, {now(device) - start:.1f} s", flush=True)
    return _report(args, rates, base, length, rows, losses, parts, sum(p.numel() for p in trained))


def _report(
    args: argparse.Namespace,
    rates: tuple[float, float],
    base: Any,
    length: int,
    rows: list[dict[str, float]],
    losses: list[float],
    parts: dict[str, float],
    trained: int,
) -> dict[str, Any]:
    shape = shape_of(base.config.to_dict())
    count = operations(shape, length, frozen=True, recompute=True, head_twice=True)
    seconds = min(r["forward_s"] + r["backward_s"] for r in rows)
    row = {
        "way": f"LoRA, {shape.layers} layers of Llama-2-7B",
        "window": length,
        "layers": shape.layers,
        "hidden": shape.hidden,
        "trained": trained,
        "rank": RANK,
        "tile": args.lora_tile,
        "offload": args.lora_offload,
        "steps": len(rows),
        "step_s": seconds,
        "step_s_all": [r["forward_s"] + r["backward_s"] for r in rows],
        "tokens_a_second": length / seconds,
        "tflop": count.total * length / 1e12,
        "tflops": count.total * length / seconds / 1e12,
        "of_floor": seconds / (count.total * length / rates[0]),
        "peak_gb": parts["peak"],
        "parts_gb": parts,
        "losses": losses,
    }
    print(f"{row['way']} at {length:,} tokens, tiles of {args.lora_tile:,}, offload {args.lora_offload}:")
    print(f"  {seconds:.1f} s a step, {row['tokens_a_second']:,.0f} tokens/s, {row['tflops']:.0f} TFLOP/s,")
    print(f"  {row['of_floor']:.2f} times the floor of operations ({row['tflop']:,.0f} TFLOP)")
    print("  GB: " + ", ".join(f"{name} {size:.2f}" for name, size in parts.items()))
    print("  losses " + ", ".join(f"{one:.4f}" for one in losses), flush=True)
    return row


def attention(device: str) -> Any:
    """cuDNN's kernel on a GPU."""
    return kernel("cudnn") if device != "cpu" else contextlib.nullcontext()


def held(device: str) -> float:
    """GB that tensors take now."""
    return torch.cuda.memory_allocated() / 1e9 if device != "cpu" else 0.0
