"""`ropewalk finetune`'s own engine under the clock: the Trainer, its checks, its kernel choice."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from training_ways import RATE, WARMUP, forget, memory, now, profiler, where_time_goes

from ropewalk.data.windows import Window
from ropewalk.model.load import read_config
from ropewalk.model.shape import shape_from, shape_of
from ropewalk.model.weights import count_parameters
from ropewalk.train.engine import Plan, train
from ropewalk.train.feeding import Feeder, Layout
from ropewalk.train.keeping import Keeper
from ropewalk.train.loss import rows_per_chunk
from ropewalk.train.memory import Load, choose, saved


class Windows:
    """The same tokens over and over, as the mixture that a Feeder reads."""

    passes = 0

    def __init__(self, tokens: Tensor, length: int) -> None:
        self.rows = tokens[: len(tokens) // length * length].view(-1, length).numpy().astype(np.int64)
        self.at = 0

    def __next__(self) -> Window:
        self.at += 1
        return Window(ids=self.rows[(self.at - 1) % len(self.rows)], starts=())

    def state(self) -> dict[str, Any]:
        return {"at": self.at}


class Clock(Feeder):
    """A Feeder that notes the time at the end of each optimizer step, when the engine asks it for passes.

    Behind step ``timed + 1`` one more is watched by the profiler.
    """

    device, timed = "cpu", 0

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.times: dict[int, float] = {}
        self.peaks: dict[int, dict[str, float]] = {}
        self.watching = profiler()

    def passes(self, step: int) -> int:
        self.times.setdefault(step, now(self.device))
        self.peaks.setdefault(step, memory(self.device))
        if step == 1 and self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()  # the kernel's trial is behind us
        if step == self.timed + 1 and not self.watching.profiler:
            self.watching.start()
        elif step == self.timed + 2 and len(self.times) == step:
            self.watching.stop()
            self.times[step + 1] = 0.0  # asked for once more at the end
        return 0


def name_of(*, compiled: bool = False, again: bool = False) -> str:
    """What a user types."""
    return "ropewalk" + " --compile" * compiled + " --recompute" * again


def engine_row(
    path: Path,
    tokens: Tensor,
    *,
    length: int,
    batch: int,
    timed: int,
    device: str,
    compiled: bool = False,
    again: bool = False,
) -> dict[str, Any]:
    """Steps of the engine as `finetune` would set it up by itself on this device.

    compiled, again: with its --compile, its --recompute.
    """
    forget()
    parameters = count_parameters(path)
    micro, recompute = choose(
        read_config(path),
        parameters=parameters,
        trained=parameters,
        length=length,
        rows=batch,
        memory=torch.cuda.mem_get_info()[0] if device != "cpu" else None,
        recompute=again or None,
    )
    load = Load(parameters, parameters, length, rows=micro, recompute=recompute)
    if recompute:
        free = torch.cuda.mem_get_info()[0] if device != "cpu" else None
        load = saved(shape_from(read_config(path)), load, free)
    plan = Plan(
        steps=timed + 2,
        rate=RATE,
        warmup=WARMUP,
        schedule="constant",
        length=length,
        batch=batch,
        micro=micro,
        seed=0,
        device=device,
        dtype="bf16",
        save_every=timed + 2,
        recompute=recompute,
        attention_kept=load.attention_kept,
        compile=compiled,
    )
    mixture: Any = Windows(tokens, length)
    feeder = Clock(mixture, Layout(), micro=micro, accumulate=batch // micro)
    feeder.device, feeder.timed = device, timed
    with tempfile.TemporaryDirectory() as scratch:
        start = now(device)
        outcome = train(path, plan, feeder, Keeper(Path(scratch) / "work"))
    times = [feeder.times[step] for step in range(1, timed + 2)]
    spent = [after - before for before, after in itertools.pairwise(times)]
    return {
        "way": name_of(compiled=compiled, again=again),
        "micro_batch": micro,
        "prepared_s": times[0] - start,
        "steps": timed,
        "step_s": sorted(spent)[len(spent) // 2],
        "step_s_all": spent,
        **feeder.peaks[timed],
        "losses": [entry["loss"] for entry in outcome.log][: timed + 1],
        "graphs": int(torch._dynamo.utils.counters["stats"]["unique_graphs"]),
        "kernel": outcome.attention,
        "recompute": recompute,
        "attention_kept": load.attention_kept,
        "compiled": compiled,
        "rows_of_logits": rows_per_chunk(shape_of(read_config(path)).vocab),
        **where_time_goes(feeder.watching),
    }


def random_model(place: Path, toy: bool) -> Path:
    """A random checkpoint in the shape of SmolLM2-135M, window 32,768 (or a tiny one)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    }
    if toy:
        sizes |= {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 3, "num_key_value_heads": 1}
    config = LlamaConfig(
        **sizes,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 100000.0},
    )
    LlamaForCausalLM(config).save_pretrained(place)
    return place
