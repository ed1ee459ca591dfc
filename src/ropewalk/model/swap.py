"""Another RoPE for a model that is in memory: its rotary modules are replaced by new ones of another config.

transformers builds a rotary module from a config alone (`LlamaRotaryEmbedding(config)`), so the weights
stay where they are. A family whose config reaches further than those modules is refused by name.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import UserError
from .quiet import quiet

CURE = "extend and evaluate can measure it"


class Place(NamedTuple):
    """Where a rotary module stands in its model: its full name, and the module itself."""

    name: str
    module: Any


def has_frequencies(module: Any) -> bool:
    """Does this module hold inverse frequencies of its own?"""
    return any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))


def rotary_places(model: Any) -> list[Place]:
    """The rotary modules of the language model in ``model``; those of a picture encoder are not among them.

    Raises UserError where there is none, or one that cannot be built from a config alone.
    """
    text = model.config.get_text_config(decoder=True)
    found = []
    for name, module in model.named_modules():
        if not has_frequencies(module):
            continue
        if getattr(getattr(module, "config", text), "model_type", None) != text.model_type:
            continue
        if "config" not in inspect.signature(type(module).__init__).parameters:
            raise UserError(
                f"family {text.model_type}: its rotary module {type(module).__name__} is not built from a "
                f"config alone, so it cannot be exchanged in a loaded model; {CURE}"
            )
        found.append(Place(name, module))
    if not found:
        raise UserError(
            f"family {text.model_type} keeps its rotary tables elsewhere than in modules of their own, so "
            f"they cannot be exchanged in a loaded model; {CURE}"
        )
    return found


def text_config(config: dict[str, Any]) -> Any:
    """transformers' configuration of the language model in a parsed config.json."""
    from transformers import CONFIG_MAPPING

    with quiet():
        built = CONFIG_MAPPING[str(config["model_type"])].from_dict(copy.deepcopy(config))
        return built.get_text_config(decoder=True)


@contextlib.contextmanager
def swapped(model: Any, config: dict[str, Any]) -> Iterator[None]:
    """Inside, ``model`` has the rotary modules that a checkpoint with this config.json would have.

    The model's own config has the rope parameters of that checkpoint meanwhile: some attention modules read
    them at every call (Ministral 3).
    config: as `scaling.extended_config` returns it for the model's own. The modules are new at every call:
    those of dynamic scaling remember the longest call they have seen. Raises UserError as `rotary_places`.
    """
    import torch

    places = rotary_places(model)
    text, own = text_config(config), model.config.get_text_config(decoder=True)
    before = own.rope_parameters
    try:
        own.rope_parameters = text.rope_parameters
        for place in places:
            buffer = next(b for n, b in place.module.named_buffers(recurse=False) if n.endswith("inv_freq"))
            with torch.device("cpu"), quiet():
                new = type(place.module)(config=text)
            model.set_submodule(place.name, new.to(buffer.device).eval())
        yield
    finally:
        own.rope_parameters = before
        for place in places:
            model.set_submodule(place.name, place.module)


class Rotations:
    """The rotary modules of a model as they were built, to begin anew with before each call.

    transformers' dynamic scaling keeps the table of the longest call it has seen, so that what a model says
    of a text would depend on what it read before. model: None for one whose rotations stay the same.
    Modules that somebody else has put in their place (`swapped`) are left alone.
    """

    def __init__(self, model: Any | None) -> None:
        self._model: Any = model
        found = [] if model is None else model.named_modules(remove_duplicate=False)
        self._there = {name: module for name, module in found if has_frequencies(module)}
        new = {id(module): copy.deepcopy(module) for module in self._there.values()}
        self._built = {name: new[id(module)] for name, module in self._there.items()}

    def renew(self) -> None:
        """Put new copies of the modules in their places."""
        copies = {id(module): copy.deepcopy(module) for module in self._built.values()}
        for name, module in self._there.items():
            if self._model.get_submodule(name) is module:
                self._there[name] = copies[id(self._built[name])]
                self._model.set_submodule(name, self._there[name])


def require_only_rotary(config: dict[str, Any], other: dict[str, Any]) -> None:
    """Raise UserError when two configs build models that differ in more than their rotary modules.

    Both are laid out without weights, and every plain number that their modules hold is compared: some
    families also scale their attention by a number that follows from the rope parameters (DeepSeek).
    """
    numbers = [_numbers(one) for one in (config, other)]
    differing = sorted(key for key in numbers[0] | numbers[1] if numbers[0].get(key) != numbers[1].get(key))
    if differing:
        raise UserError(
            f"family {config['model_type']}: this scaling also changes {differing[0]}, so exchanging the "
            f"rotary modules is not enough; {CURE}"
        )


IGNORED = ("max_position_embeddings", "max_seq_len_cached", "original_max_seq_len")
"""Numbers that only repeat the window, and compute nothing."""


def _numbers(config: dict[str, Any]) -> dict[str, float]:
    """Name -> value of every number that a module, other than a rotary one, keeps in an attribute."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    with quiet(), torch.device("meta"):
        built = CONFIG_MAPPING[str(config["model_type"])].from_dict(copy.deepcopy(config))
        model: Any = AutoModelForCausalLM.from_config(built)
    return {
        f"{type(module).__name__}.{key}/{name}": value
        for name, module in model.named_modules()
        if not has_frequencies(module)
        for key, value in vars(module).items()
        if isinstance(value, int | float) and key not in IGNORED
    }
