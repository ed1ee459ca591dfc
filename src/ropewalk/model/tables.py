"""The rotary tables that transformers builds from a config, beside those of rope/: no weight is read.

The model is laid out on the meta device, where it takes no memory; only its rotary modules are then built
for real.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .config import RopeState, main_layer
from .quiet import quiet
from .scaling import frequencies_of
from .shape import empty_model


@dataclass(frozen=True)
class Comparison:
    """One rotary table against its reference, at a first, a middle and the last position.

    layer: layer type, "" when all layers share one.   positions: tokens.
    error: largest difference of cos and sin, None where the table has a form that is not known here.
    bound: what float32 rounding of the angles allows.
    """

    layer: str
    positions: tuple[int, ...]
    error: float | None
    bound: float

    @property
    def right(self) -> bool:
        """Within rounding (or not comparable)."""
        return self.error is None or self.error <= self.bound


def compare_tables(config: dict[str, Any], state: RopeState) -> list[Comparison]:
    """Build what transformers builds from ``config`` and compare it with rope/, one row a layer type."""
    import torch

    positions = (0, state.window // 2, state.window - 1)
    index = torch.tensor([positions])
    found = []
    for module in rotary_modules(config):
        for layer in _layers_of(module, state):
            wanted = _reference(state, layer, index)
            with torch.no_grad(), _understood():
                built = _call(module, index, layer)
            error = _difference(built, wanted)
            found.append(Comparison(layer, positions, error, 1e-6 + 4 * 2.0**-24 * state.window))
        break
    return found


def rotary_modules(config: dict[str, Any]) -> list[Any]:
    """The rotary modules of the language model that ``config`` describes, built for real, one a class."""
    model = empty_model(config)
    text = model.config.get_text_config(decoder=True)
    modules: dict[type, Any] = {}
    with quiet(), _understood():
        for module in model.modules():
            if _has_frequencies(module) and type(module) not in modules:
                own = getattr(module, "config", text)
                if getattr(own, "model_type", None) != text.model_type:
                    continue  # the rotary module of a picture encoder
                if "config" in inspect.signature(type(module).__init__).parameters:
                    modules[type(module)] = type(module)(config=own)
    return list(modules.values())


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Inside, whatever transformers raises over a config is a UserError."""
    try:
        yield
    except Exception as error:  # modules raise whatever they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"transformers cannot build a rotary table from this config: {reason}") from None


def _has_frequencies(module: Any) -> bool:
    return any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))


def _layers_of(module: Any, state: RopeState) -> list[str]:
    if not state.per_layer_type:
        return [""]
    if "layer_type" not in inspect.signature(type(module).forward).parameters:
        return [main_layer(state.layers)]
    built = {name for name, _ in module.named_buffers(recurse=False)}
    return [layer for layer in state.layers if f"{layer}_inv_freq" in built]


def _call(module: Any, index: Any, layer: str) -> Any:
    import torch

    x = torch.zeros(1, index.shape[1], 1)
    return module(x, index, layer_type=layer) if layer else module(x, index)


def _reference(state: RopeState, layer: str, index: Any) -> tuple[Any, Any]:
    """(cos, sin) of rope/, each (1, T, d/2)."""
    from ..rope.rotate import rotary_table

    made = frequencies_of(state, state.layers[layer], length=state.window, layer=layer)
    cos, sin = rotary_table(index, made.inv_freq, made.attention_factor)
    half = cos.shape[-1] // 2
    return cos[..., :half], sin[..., :half]


def _difference(built: Any, wanted: tuple[Any, Any]) -> float | None:
    """Largest difference between a module's output, in either layout, and the reference; None if unknown."""
    import torch

    half = wanted[0].shape[-1]
    if isinstance(built, torch.Tensor) and built.is_complex():
        built = (built.real, built.imag)
    if not (isinstance(built, tuple) and len(built) == 2):
        return None
    worst = 0.0
    for got, want in zip(built, wanted, strict=True):
        if got.shape[-1] == 2 * half:
            split = torch.equal(got[..., :half], got[..., half:])
            got = got[..., :half] if split else got[..., ::2]
        if got.shape[-1] != half or got.reshape(-1, half).shape[0] != want.shape[1]:
            return None
        worst = max(worst, float((got.reshape(-1, half) - want[0]).abs().max()))
    return worst
