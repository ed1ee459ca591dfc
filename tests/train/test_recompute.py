"""Layers that are computed again give what they give at once, and attention is not computed twice."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_llama import write_tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

import ropewalk
from ropewalk.model.compiling import compiling
from ropewalk.model.load import load_model
from ropewalk.train.recompute import ATTENTION, compile_layers, recompute_layers
from ropewalk.verbs.finetune import Finetune, _plan


class Count(TorchDispatchMode):
    """How often attention's forward kernels run inside."""

    times = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.times += function in ATTENTION
        return function(*args, **(kwargs or {}))


def gradients(model, ids, weighted: bool = False) -> torch.Tensor:
    """weighted: of a sum whose gradients do not cancel behind a norm."""
    hidden = model.get_decoder()(input_ids=ids, use_cache=False)[0]
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    (hidden * weights if weighted else hidden.square()).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.get_decoder().layers.parameters()])


@pytest.fixture
def ids():
    return torch.randint(0, 250, (2, 64), generator=torch.Generator().manual_seed(0))


def fresh(tmp_path):
    return load_model(write_tiny_model(tmp_path / "tiny", attention_dropout=0.0)).train()


@pytest.mark.parametrize("attention_kept", [False, True])
def test_gradients_are_bitwise_those_of_layers_computed_once(tmp_path, ids, attention_kept):
    expected = gradients(fresh(tmp_path / "once"), ids)
    model = fresh(tmp_path / "twice")
    recompute_layers(model, attention_kept=attention_kept)
    with Count() as count:
        found = gradients(model, ids)
    assert torch.equal(found, expected)
    layers = len(model.get_decoder().layers)
    assert count.times == (layers if attention_kept else 2 * layers)


@pytest.mark.slow
def test_compiled_layers_keep_what_they_are_told_to_and_give_the_same(tmp_path, ids):
    """One graph for all layers, about the same gradients; the less is kept the more is computed again."""
    expected = gradients(fresh(tmp_path / "eager"), ids)
    kept = []
    for number, (recompute, attention_kept) in enumerate([(False, False), (True, True), (True, False)]):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = fresh(tmp_path / str(number))
        compile_layers(model, recompute=recompute, attention_kept=attention_kept)
        sizes: dict[int, int] = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with compiling():
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                hidden = model.get_decoder()(input_ids=ids, use_cache=False)[0]
            hidden.square().sum().backward()
        found = torch.cat([p.grad.flatten() for p in model.get_decoder().layers.parameters()])
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept.append(sum(size for pointer, size in sizes.items() if pointer not in weights))
    assert kept[2] < kept[1] < kept[0] / 2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "gemma2", "qwen3", "qwen3_moe", "gpt_neox"])
def test_compiled_layers_of_other_families_have_the_gradients_of_eager_ones(family, ids):
    """Experts, soft caps, norms inside attention, biases: in bfloat16, whose rounding is the difference."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"vocab_size": 256, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4}
    sizes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "sliding_window": 32}
    torch.manual_seed(0)
    eager = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).train()
    model = copy.deepcopy(eager)
    torch._dynamo.reset()
    compile_layers(model, recompute=False, attention_kept=False)
    with compiling(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected, found = gradients(eager, ids, weighted=True), gradients(model, ids, weighted=True)
    assert (found - expected).norm() < 0.01 * expected.norm()


@pytest.mark.slow
def test_where_nothing_can_be_compiled_the_training_goes_on_and_says_so(tmp_path):
    """As on a machine without a C compiler."""
    model = str(write_tiny_model(tmp_path / "tiny"))
    command = [sys.executable, "-m", "ropewalk", "finetune", model, str(tmp_path / "out"), "--compile"]
    command += ["--data", "stdlib", "--steps", "2", "--batch", "1", "--window", "32", "--device", "cpu"]
    without = {**os.environ, "CXX": "/no/compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    done = subprocess.run(command, env=without, capture_output=True, text=True)
    assert done.returncode == 0 and "torch.compile failed here" in done.stdout, done.stderr
    settings = {"data": ("stdlib",), "steps": 2, "batch": 1, "window": 32, "device": "cpu"}
    ropewalk.finetune(model, tmp_path / "eager", **settings)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "eager"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("changes", "compiled"),
    [
        ({}, True),
        ({"steps": 3}, False),
        ({"steps": 3, "compile": True}, True),
        ({"compile": False}, False),
        ({"packing": "apart"}, False),
        ({"short_share": 0.2}, True),
        ({"skip_positions": 1024}, False),
        ({"lora": True}, False),
        ({"device": "cpu"}, False),
    ],
)
def test_long_plain_trainings_on_a_gpu_are_compiled_by_themselves(tmp_path, monkeypatch, changes, compiled):
    path = write_tiny_model(tmp_path / "tiny")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (80 << 30, 80 << 30))
    monkeypatch.setattr(ropewalk.model.weights, "count_parameters", lambda path: 135_000_000)
    asked = Finetune(model=str(path), out="out", data=("stdlib",), **{"steps": 131, "batch": 8, **changes})
    assert _plan(asked, path, 16_384, changes.get("device", "cuda")).compile == compiled


@pytest.mark.slow
def test_a_compiled_training_has_the_losses_of_an_eager_one(tmp_path):
    """Fifty steps of `finetune`, layers and loss compiled: sums in another order."""
    model = write_tiny_model(tmp_path / "tiny", attention_dropout=0.0)
    settings = {"data": ("stdlib",), "steps": 50, "batch": 2, "device": "cpu", "rate": 1e-3}
    losses = []
    for compiled in (False, True):
        out = tmp_path / str(compiled)
        ropewalk.finetune(model, out, compile=compiled, **settings)
        losses.append([row["loss"] for row in json.loads((out / "training.json").read_text())["rows"]])
    assert losses[0][-1] < losses[0][0] - 0.3
    assert max(abs(one - other) for one, other in zip(*losses, strict=True)) < 1e-5
