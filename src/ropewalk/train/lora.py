"""Low-rank adapters instead of all weights: which parts get one, how they are kept, how they are merged."""

from __future__ import annotations

import contextlib
import inspect
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UserError
from ..model.quiet import quiet

ATTENTION = re.compile(r"(^|[._])(self_attn|attn|attention|self_attention)[._]")
"""Part of the dotted name of every linear layer that belongs to an attention block."""

ALPHA = 2
"""lora_alpha / rank, as LongLoRA has it (rank 8, alpha 16; Chen et al. 2023, arXiv 2309.12307)."""

ADAPTER = "adapter"
"""The adapter's directory inside the tuned checkpoint."""


def add_adapter(model: Any, *, rank: int, embeddings: bool) -> Any:
    """The model with trainable adapters on its attention projections, all else frozen (a PeftModel).

    embeddings: train the input embeddings and all norms in full too: LongLoRA found that the adapters
    alone do not reach full fine-tuning on long windows, and with these they do. Tied embeddings stay
    tied. Trained weights are float32 whatever the model's are.
    Raises UserError: peft is not installed or too old, or the model's attention has other names.
    """
    try:
        import peft
    except ImportError:
        raise UserError("--lora needs peft: pip install 'ropewalk[lora]'") from None
    targets = attention_projections(model)
    more: dict[str, Any] = {}
    if embeddings:
        more["modules_to_save"] = embeddings_and_norms(model)
        if model.config.get_text_config().tie_word_embeddings:
            if "ensure_weight_tying" not in inspect.signature(peft.LoraConfig).parameters:
                raise UserError(
                    f"peft {peft.__version__} would untie this model's embeddings; "
                    "upgrade it, or leave out --lora-embeddings"
                )
            more["ensure_weight_tying"] = True
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=ALPHA * rank, target_modules=targets, **more
    )
    with quiet():
        adapted = peft.get_peft_model(model, config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted


def attention_projections(model: nn.Module) -> list[str]:
    """The last names of the linear layers inside attention blocks, such as q_proj, k_proj, v_proj, o_proj."""
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and ATTENTION.search(name)
    }
    if not names:
        raise UserError(f"--lora does not know the attention of a {type(model).__name__}; train without it")
    return sorted(names)


def embeddings_and_norms(model: Any) -> list[str]:
    """The last names of the input embeddings and of every norm."""
    table = model.get_input_embeddings()
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if module is table or "norm" in type(module).__name__.lower()
        }
    )


def without_casts(model: Any, dtype: str = "bf16") -> contextlib.AbstractContextManager[Any]:
    """Inside, adapters under autocast to 16 bits take their inputs as they are; of ``dtype`` float32 nothing.

    peft turns an adapter's input into the adapter's float32 first, and autocast turns it back into 16 bits:
    the same numbers, for four bytes a token and width once more in each of q, k, v and o, and three kept
    copies of one tensor. Not for use without autocast.
    """
    if not is_adapted(model) or dtype != "bf16":
        return contextlib.nullcontext()
    from peft.helpers import disable_input_dtype_casting

    return disable_input_dtype_casting(model)


def in_words(model: Any) -> str:
    """Rank, place and size of the adapter that is on a model."""
    config = model.peft_config[model.active_adapter]
    # peft names tied embeddings twice, the second time with their path
    whole = sorted({name.rpartition(".")[2] for name in config.modules_to_save or ()})
    also = f"; {', '.join(whole)} whole" if whole else ""
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    places = ", ".join(sorted(config.target_modules))
    return f"LoRA of rank {config.r} on {places}{also}: {trained:,} parameters are trained"


def is_adapted(model: Any) -> bool:
    """Has this model an adapter on it (is it a PeftModel)?"""
    return hasattr(model, "peft_config")


def save_adapter(model: Any, directory: Path | str, state_dict: dict[str, Any] | None = None) -> None:
    """Write adapter_model.safetensors and adapter_config.json. state_dict: in place of the model's own."""
    model.save_pretrained(str(directory), save_embedding_layers=False, state_dict=state_dict)


def load_adapter(model: Any, file: Path) -> None:
    """Load an adapter's weights onto the model that has it. Raises AssertionError when names differ."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    found: Any = set_peft_model_state_dict(model, load_file(file))
    assert not found.unexpected_keys, found.unexpected_keys
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not trained & set(found.missing_keys), trained & set(found.missing_keys)


def merge(model: Any, dtype: torch.dtype) -> Any:
    """The plain model with the adapter added to its weights: summed in float32, rounded once to ``dtype``."""
    return model.float().merge_and_unload().to(dtype)
