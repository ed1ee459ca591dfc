"""What is wrong with a checkpoint's positions, without loading a weight: findings, each with its cure.

`ropewalk doctor` prints them; `extend` and `finetune` ask for them about what they have written.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import read_record
from .config import RopeState, read_state, split_layers, text_part
from .engines import in_words
from .gguf_in import gguf_config, read_gguf, rope_scaling
from .load import read_config
from .sane import MOST_TOKENS, usable
from .scaling import METHODS, frequencies_of
from .tables import Comparison, compare_tables


@dataclass(frozen=True)
class Finding:
    """code: what kind.   text: what is wrong, with its numbers.   cure: what to do about it."""

    code: str
    text: str
    cure: str

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Evidence:
    """What a checkpoint's other files say about its positions, to hold against its config.json.

    window, factor, base: of ropewalk's own record, None where there is none.
    tokenizer: ``model_max_length``.   truncation: of tokenizer.json.   adds_bos: does tokenizer.json put BOS
    in front?   says_bos: ``add_bos_token``.
    """

    window: int | None = None
    factor: float | None = None
    base: float | None = None
    method: str | None = None
    tokenizer: int | None = None
    truncation: int | None = None
    adds_bos: bool | None = None
    says_bos: bool | None = None


def inspect_directory(path: Path | str, *, tables: bool = True) -> list[Finding]:
    """All findings about a checkpoint directory. Raises UserError when it cannot be read at all.

    tables: also build transformers' rotary tables and compare them with rope/ (about a second).
    """
    directory = Path(path)
    if (directory / "adapter_config.json").is_file() and not (directory / "model.safetensors").is_file():
        return adapter_findings(directory)
    config = read_config(directory)
    state = read_state(config)
    found = config_findings(config, state, gather(directory))
    if tables and not found:
        found += table_findings(compare_tables(config, state))
    return found


def gather(directory: Path) -> Evidence:
    """Read the files beside config.json that say something about positions."""
    block = (read_record(directory) or {}).get("model")
    block = block if isinstance(block, dict) else {}
    config = json_or_nothing(directory / "tokenizer_config.json")
    tokenizer = json_or_nothing(directory / "tokenizer.json")
    cut = tokenizer.get("truncation")
    says = config.get("add_bos_token")
    method = block.get("method")
    return Evidence(
        window=_whole(block.get("window"), MOST_TOKENS),
        factor=usable("factor", block.get("factor")),
        base=usable("rope_theta", block.get("base")),
        method=method if method in METHODS else None,
        tokenizer=_whole(config.get("model_max_length"), 10**15),
        truncation=_whole(cut.get("max_length"), MOST_TOKENS) if isinstance(cut, dict) else None,
        adds_bos=_adds_bos(tokenizer, config) if tokenizer else None,
        says_bos=says if isinstance(says, bool) else None,
    )


def config_findings(config: dict[str, Any], state: RopeState, evidence: Evidence) -> list[Finding]:
    """Findings that the files alone prove."""
    part = text_part(config)
    return [
        *_two_scalings(config, part),
        *_lost_base(part, state, evidence),
        *_whole_factor(part),
        *_record(state, evidence),
        *_window(part, state, evidence),
        *_tokenizer(state, evidence),
    ]


def table_findings(rows: list[Comparison]) -> list[Finding]:
    """A finding for every table that transformers builds otherwise than rope/ says."""
    return [
        Finding(
            "tables-differ",
            f"the rotary table that transformers builds{' for ' + row.layer if row.layer else ''} differs by "
            f"{row.error:.2g} from the method it names (at positions {', '.join(map(str, row.positions))})",
            "update transformers, or report this family",
        )
        for row in rows
        if not row.right
    ]


def adapter_findings(directory: Path) -> list[Finding]:
    """Does an adapter bring the scaling that it was trained under? Its own file has no room for it."""
    adapter = json_or_nothing(directory / "adapter_config.json")
    base = adapter.get("base_model_name_or_path")
    merge = "merge it into a base with this scaling and ship that, or keep that base's config.json beside it"
    if not (directory / "config.json").is_file():
        text = f"the adapter does not say under which scaling it was trained; on {base} it takes that one's"
        return [Finding("adapter-without-scaling", text, merge)]
    mine = read_state(read_config(directory))
    if isinstance(base, str) and (Path(base) / "config.json").is_file():
        theirs = read_state(read_config(base))
        if theirs.layers != mine.layers:
            text = (
                f"the adapter was trained under {in_words(mine.parameters)}, base {mine.base:g}, and its "
                f"base model {base} applies {in_words(theirs.parameters)}, base {theirs.base:g}: "
                "peft loads it there without a word"
            )
            return [Finding("adapter-without-scaling", text, merge)]
    return []


def gguf_findings(path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """(the config.json that this GGUF file amounts to, findings about the file)."""
    file = read_gguf(path)
    config, scaling = gguf_config(file), rope_scaling(file)
    if scaling is None:
        return config, []
    text = (
        f"the file asks for {in_words(scaling)}, and transformers ignores that when it loads the GGUF itself"
    )
    cure = "load the checkpoint that `ropewalk extend` or doctor --fix OUT writes, whose config has it"
    return config, [Finding("not-scaled", text, cure)]


def same_positions(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Do two config.json files give the same rotary tables and window?"""
    import torch

    a, b = read_state(one), read_state(other)
    if (a.window, a.layers.keys()) != (b.window, b.layers.keys()):
        return False
    for name, own in a.layers.items():
        x = frequencies_of(a, own, length=a.window, layer=name)
        y = frequencies_of(b, b.layers[name], length=b.window, layer=name)
        if x.attention_factor != y.attention_factor or not torch.equal(x.inv_freq, y.inv_freq):
            return False
    return True


def _two_scalings(config: dict[str, Any], part: dict[str, Any]) -> list[Finding]:
    """rope_parameters and rope_scaling both present, and not meaning the same."""
    if not (part.get("rope_parameters") and part.get("rope_scaling")):
        return []
    only = []
    for drop in ("rope_scaling", "rope_parameters"):
        reduced = copy.deepcopy(config)
        text_part(reduced).pop(drop)
        only.append(reduced)
    try:
        if same_positions(only[0], only[1]) and same_positions(only[0], config):
            return []
    except UserError:
        pass  # one of the two alone is not even valid: they differ
    new, old = split_layers(part["rope_parameters"]), split_layers(part["rope_scaling"])
    words = [in_words(_standard(next(iter(d.values()), {}))) for d in (new, old)]
    return [
        Finding(
            "two-scalings",
            f"config.json has rope_parameters ({words[0]}) and rope_scaling ({words[1]}) with different "
            "content, and transformers takes rope_scaling",
            "keep one, or the same with rope_theta in both: doctor --fix OUT keeps rope_parameters",
        )
    ]


def _lost_base(part: dict[str, Any], state: RopeState, evidence: Evidence) -> list[Finding]:
    """A scaling without rope_theta anywhere that transformers looks: it takes the family's default."""
    if evidence.base is not None and evidence.base != state.base:
        return [
            Finding(
                "theta-lost",
                f"the base is {state.base:,.10g}, and the checkpoint was made with {evidence.base:,.10g}",
                f"set rope_theta to {evidence.base:,.10g}: doctor --fix OUT",
            )
        ]
    used = part.get("rope_scaling") or part.get("rope_parameters")
    if not used or "rope_theta" in part or "rotary_emb_base" in part:
        return []
    flat = split_layers(used)
    lost = [name for name, own in flat.items() if "rope_theta" not in own and _standard(own) != "default"]
    scaled = [name for name in lost if _standard(flat[name])["rope_type"] != "default"]
    old_style = "rope_parameters" not in part and state.base == 10_000.0 and _before_theta(part)
    if not scaled or old_style:
        return []
    return [
        Finding(
            "theta-lost",
            "the scaling stands in config.json without rope_theta, so the base falls back to "
            f"{state.base:,.10g}",
            "write the model's own rope_theta beside it: doctor --fix OUT --base B",
        )
    ]


def _whole_factor(part: dict[str, Any]) -> list[Finding]:
    """A factor written as a whole number: vLLM's linear scaling fails on it."""
    for key in ("rope_parameters", "rope_scaling"):
        for own in split_layers(part.get(key) or {}).values():
            factor = own.get("factor")
            if isinstance(factor, int) and not isinstance(factor, bool):
                text = (
                    f"{key} has the factor as the whole number {factor}, on which vLLM's linear scaling fails"
                )
                return [Finding("integer-factor", text, f"write {factor}.0: doctor --fix OUT")]
    return []


def _record(state: RopeState, evidence: Evidence) -> list[Finding]:
    """The factor in the config against the one that ropewalk's record of this directory states."""
    made, factor = evidence.factor, state.factor
    if made is None or evidence.method in (None, "none", "ntk") or abs(factor - made) <= 1e-6 * made:
        return []
    cure = f"the record says ×{made:g}: doctor --fix OUT writes that"
    if factor <= 1.0:
        text = f"config.json has no scaling, and this checkpoint was made with {evidence.method} ×{made:g}"
        return [Finding("not-scaled", f"{text}: it is not applied at all", cure)]
    text = f"config.json has factor {factor:g}, and this checkpoint was made with {made:g}"
    if factor > made:
        return [Finding("scaled-twice", f"{text}: the scaling is applied twice", cure)]
    return [Finding("not-scaled", f"{text}: part of the scaling is not applied", cure)]


def _window(part: dict[str, Any], state: RopeState, evidence: Evidence) -> list[Finding]:
    """A stated window that the scaling, the record or another file contradicts."""
    right, why = true_window(part, state, evidence)
    if right != state.stated and state.method != "dynamic":
        text = f"the window stated is {state.stated:,}, and {why}"
        return [Finding("stale-window", text, f"set max_position_embeddings to {right:,}: doctor --fix OUT")]
    return _stretch(part, state, evidence)


def true_window(part: dict[str, Any], state: RopeState, evidence: Evidence) -> tuple[int, str]:
    """(L', how it is known): the record first, then the method's own arithmetic, then other files."""
    if evidence.window is not None:
        return evidence.window, f"the checkpoint was made for {evidence.window:,}"
    original = state.parameters.get("original_max_position_embeddings")
    if state.method == "yarn" and original and state.stated < state.window:
        return state.window, f"yarn ×{state.factor:g} of {int(original):,} reads {state.window:,}"
    scaled = round(state.stated * state.factor)
    others = (part.get("max_sequence_length"), part.get("model_max_length"), evidence.tokenizer)
    if state.method == "linear" and scaled in others and scaled != state.stated:
        return scaled, f"that is before the scaling: linear ×{state.factor:g} makes it {scaled:,}"
    return state.stated, "nothing contradicts it"


def true_factor(part: dict[str, Any], state: RopeState, evidence: Evidence) -> float | None:
    """k as the record or the two windows in config.json have it; None where nothing else states it."""
    if evidence.factor is not None and evidence.method not in (None, "none", "ntk"):
        return evidence.factor
    original = part.get("original_max_position_embeddings")
    known = isinstance(original, int) and 0 < original < state.stated and "phi" not in state.family
    if known and state.method in ("none", "linear") and evidence.method is None:
        return state.stated / int(original)  # type: ignore[arg-type]
    return None


def _stretch(part: dict[str, Any], state: RopeState, evidence: Evidence) -> list[Finding]:
    """A factor that does not lead from the original window stated beside it to the window."""
    factor = true_factor(part, state, evidence)
    if factor is None or evidence.factor is not None or abs(factor - state.factor) < 1e-3:
        return []
    original = part["original_max_position_embeddings"]
    text = f"the window went from {original:,} to {state.stated:,} with factor {state.factor:g}"
    cure = f"scale by {factor:g}: doctor --fix OUT"
    if state.factor > factor:
        return [Finding("scaled-twice", f"{text}: the scaling is applied twice", cure)]
    return [Finding("not-scaled", f"{text}: the scaling is not applied, or not all of it", cure)]


def _tokenizer(state: RopeState, evidence: Evidence) -> list[Finding]:
    """A tokenizer that cuts texts before the window ends, or is of two minds about BOS."""
    found = []
    length, cut = evidence.tokenizer, evidence.truncation
    if length is not None and length < state.window:
        text = f"the tokenizer's model_max_length is {length:,}, and the window is {state.window:,}"
        cure = "set model_max_length: doctor --fix OUT"
        found.append(Finding("tokenizer-length", f"{text}: texts are cut there", cure))
    elif cut is not None and cut < state.window:
        text = f"tokenizer.json cuts every text at {cut:,} tokens, and the window is {state.window:,}"
        found.append(Finding("tokenizer-length", text, "remove its truncation: doctor --fix OUT"))
    says, does = evidence.says_bos, evidence.adds_bos
    if says is not None and does is not None and says != does:
        text = f"tokenizer.json puts {'a' if does else 'no'} BOS in front of every text"
        text += f", and tokenizer_config.json says add_bos_token: {json.dumps(says)}: engines will disagree"
        cure = "let both say what the model was trained with: doctor --fix OUT follows add_bos_token"
        found.append(Finding("bos", text, cure))
    return found


def _standard(own: dict[str, Any]) -> dict[str, Any]:
    """Rope parameters with their type under its present name."""
    return {**own, "rope_type": own.get("rope_type", own.get("type", "default"))}


def _before_theta(part: dict[str, Any]) -> bool:
    """An old-style LLaMA config from the time when the base was always 10,000 and was not written."""
    return part.get("model_type") == "llama" and "rope_parameters" not in part


def _adds_bos(tokenizer: dict[str, Any], config: dict[str, Any]) -> bool | None:
    """Does tokenizer.json's post-processor put the BOS token in front? None when it cannot be told."""
    bos = config.get("bos_token")
    bos = bos.get("content") if isinstance(bos, dict) else bos
    if not isinstance(bos, str):
        return None
    post = tokenizer.get("post_processor")
    steps = (post.get("processors") or [post]) if isinstance(post, dict) else []
    for step in steps if isinstance(steps, list) else []:
        if not isinstance(step, dict):
            return None
        if step.get("type") == "TemplateProcessing":
            single = step.get("single")
            first = single[0] if isinstance(single, list) and single else {}
            special = first.get("SpecialToken", {}) if isinstance(first, dict) else None
            return bool(special.get("id") == bos) if isinstance(special, dict) else None
        if step.get("type") not in ("ByteLevel", None):
            return None
    return False


def _whole(value: Any, most: int) -> int | None:
    """A number of tokens from a file, None where it is none (some write 1e30 for "no limit")."""
    ok = isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < most
    return int(value) if ok else None


def json_or_nothing(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file that may be missing or broken: then empty."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
