"""A model whose weights, gradients and optimizer state are spread over all ranks (FSDP2), and made whole.

torch's `fully_shard` is applied by ourselves and not through accelerate: accelerate's path refuses the CPU,
and what the tests run must be what GPUs run. Weights travel in float32 and are cast by autocast as on one
GPU, so that the arithmetic is the same. What is written to disk is whole, in the form of a training with
one process: a checkpoint belongs to no number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from .loss import LossModel, plain_model
from .ranks import world


def shard(model: LossModel, device: str) -> None:
    """Spread ``model`` over all ranks, in place: its blocks one by one, then the rest. device: cpu, cuda.

    Every rank must hold the same weights before. Afterwards the Trainer takes the model as it is.
    """
    mesh = init_device_mesh(device, (world()[1],))
    for block in blocks(plain_model(model.model)):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model._is_accelerate_prepared = True  # type: ignore[assignment]  # accelerate's own mark: no DDP around it


def is_sharded(model: nn.Module) -> bool:
    """Are these weights spread over ranks?"""
    return any(isinstance(p, DTensor) for p in model.parameters())


def blocks(base: Any) -> list[nn.Module]:
    """The repeated blocks of a transformers model: its longest list of modules.

    Raises AssertionError when it has none.
    """
    lists = [list(module) for module in base.modules() if isinstance(module, nn.ModuleList)]
    assert lists, f"{type(base).__name__} has no list of blocks"
    return max(lists, key=len)


def whole(value: Any) -> Any:
    """A spread tensor gathered and put on the CPU; everything else as it is. All ranks must call it."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Name -> whole tensor on the CPU of ``model.state_dict()``; tied ones are one tensor.

    All ranks must call it. keep: only those who say so get them, the others an empty dictionary.
    """
    owners = dict(model.named_parameters(remove_duplicate=False))
    gathered: dict[int, Tensor] = {}
    found = {}
    for name, value in model.state_dict().items():
        key = id(owners.get(name, value))
        if key not in gathered:
            full = whole(value)
            gathered[key] = full if keep else torch.empty(0)
        found[name] = gathered[key]
    return found if keep else {}


def whole_optimizer_state(optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Any]:
    """``optimizer.state_dict()`` with whole tensors on the CPU. As `whole_weights`."""
    state = optimizer.state_dict()
    table: dict[Any, dict[str, Any]] = {}
    for number, values in state["state"].items():
        full = {name: whole(value) for name, value in values.items()}
        if keep:
            table[number] = full
    return {"state": table, "param_groups": state["param_groups"]} if keep else {}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give a spread optimizer its parts of a whole state, which every rank holds (mapped, not read)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in state["param_groups"] for n in group["params"]]
    assert len(parameters) == len(numbers), (len(parameters), len(numbers))
    owner = dict(zip(numbers, parameters))
    table = {
        number: {name: _part(value, owner[number]) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimizer.load_state_dict({"state": table, "param_groups": state["param_groups"]})


def _part(value: Any, parameter: Tensor) -> Any:
    if not isinstance(parameter, DTensor) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
