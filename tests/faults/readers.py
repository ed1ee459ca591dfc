"""The four readers that meet strangers' files, each as one function of bytes, for fuzzing.

`TARGETS` maps a reader's name to a function that writes the bytes' file, reads it, and lets through only
`UserError`. Bytes are either the file itself (first byte even) or a list of edits to a good file, so that
what lies behind the first check is reached too.
"""

from __future__ import annotations

import copy
import json
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ropewalk.errors import UserError

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 64, 255, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, 10**400),
    *(0.0, 0.5, 1.0, 1.5, -1.0, 1e-300, 1e300, -1e300, 5e-324),
    *("", "x", "linear", "yarn", "dynamic", "llama3", "longrope", "default", "0", "8k", "../x", "\x00", "é"),
    *("\ud800", "a" * 300, "NaN", "{data}", "full_attention", "mrope", "float16", "nope"),
    *([], [1], [[]], [None], ["x"], [1.0] * 4, [0.0] * 8, {}, {"x": 1}, {"": {}}, {"rope_type": "linear"}),
    *({"rope_type": "yarn", "factor": 4.0}, {"full_attention": {"rope_type": "linear", "factor": 2}}),
    *({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0], "factor": 2.0}, {"sha256": 1}),
)
"""Values that have broken readers of settings somewhere."""


class Chooser:
    """Decisions from bytes: the same bytes, the same decisions; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, below: int) -> int:
        """0 <= n < below, from one or two bytes."""
        size = 1 if below <= 256 else 2
        piece = self.data[self.at : self.at + size].ljust(size, b"\0")
        self.at += size
        return int.from_bytes(piece, "little") % below

    def pick(self, values: Any) -> Any:
        return values[self.number(len(values))]

    @property
    def left(self) -> bool:
        return self.at < len(self.data)

    def value(self) -> Any:
        """A value to be put in the place of another."""
        kind = self.number(4)
        if kind < 2:
            return copy.deepcopy(self.pick(ODD_VALUES))
        if kind == 2:
            return self.number(65536) - 100
        return self.number(65536) / (1 + self.number(256))


def edited(good: Any, chooser: Chooser) -> Any:
    """A copy of a JSON value with up to eight edits: replaced, removed, added, moved, wrapped."""
    root = [copy.deepcopy(good)]
    for _ in range(1 + chooser.number(8)):
        places = list(_places(root))
        place, key = chooser.pick(places[:4096])
        what = chooser.number(6)
        if what == 0 and isinstance(place, dict):
            del place[key]
        elif what == 1 and isinstance(place, dict):
            place[str(chooser.pick(ODD_VALUES))] = chooser.value()
        elif what == 2:
            other, name = chooser.pick(places[:4096])
            place[key] = copy.deepcopy(other[name]) if name in other or isinstance(other, list) else None
        elif what == 3:
            place[key] = [place[key]] * (1 + chooser.number(3))
        else:
            place[key] = chooser.value()
        if not chooser.left:
            break
    return root[0]


def _places(value: Any, depth: int = 0) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list) and depth < 12:
            yield from _places(item, depth + 1)


def _file(name: str, content: bytes) -> Path:
    place = _scratch() / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return place


@cache
def _scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="ropewalk-fuzz-"))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")


# config.json


@cache
def configs() -> list[dict[str, Any]]:
    """Good config.json contents: plain, scaled in each way, by layer type, multimodal, of other families."""
    llama = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 258,
        "max_position_embeddings": 64,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-5,
        "torch_dtype": "float32",
    }
    linear = {**llama, "rope_scaling": {"type": "linear", "factor": 4.0}, "max_position_embeddings": 256}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 1e4}
    llama3 = {
        **{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        **{"original_max_position_embeddings": 64, "rope_theta": 5e5},
    }
    longrope = {
        **{"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "factor": 4.0},
        **{"original_max_position_embeddings": 64, "rope_theta": 1e4},
    }
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    layered = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    found = [llama, linear]
    found += [{**llama, "rope_parameters": p} for p in (yarn, llama3, longrope, dynamic)]
    found.append({**llama, "model_type": "gemma3_text", "rope_parameters": layered, "head_dim": 16})
    found.append({"model_type": "gemma3", "text_config": {**llama, "model_type": "gemma3_text"}})
    for family in ("qwen2", "mistral", "phi3", "gpt_neox", "deepseek_v3", "falcon", "qwen3_moe", "gemma2"):
        found.append({**llama, "model_type": family})
    return found


COMPANIONS: dict[str, dict[str, Any]] = {
    "ropewalk.json": {
        "verb": "extend",
        "model": {"name": "m", "window": 256, "factor": 4.0, "base": 1e4, "method": "linear"},
    },
    "tokenizer_config.json": {
        **{"model_max_length": 128, "bos_token": {"content": "<s>"}, "add_bos_token": True},
        **{"chat_template": "{{ bos_token }}"},
    },
    "tokenizer.json": {
        "truncation": {"max_length": 128},
        "added_tokens": [{"id": 1, "content": "<s>"}],
        "post_processor": {
            "type": "Sequence",
            "processors": [
                {"type": "ByteLevel"},
                {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>"}}]},
            ],
        },
    },
}
"""What other files of a checkpoint say about its positions; `doctor` holds it against config.json."""


def read_config(data: bytes) -> None:
    """config.json and what stands beside it: read, looked at and mended as `doctor` does, and lengthened."""
    from ropewalk.model import load
    from ropewalk.model.checkpoint import set_window
    from ropewalk.model.config import read_state
    from ropewalk.model.engines import views
    from ropewalk.model.inspect import config_findings, gather
    from ropewalk.model.notes import notes_about
    from ropewalk.model.repair import repaired_config
    from ropewalk.model.scaling import extended_config
    from ropewalk.model.tables import compare_tables

    chooser = Chooser(data)
    if chooser.number(8) == 0:
        file = _file("config/config.json", data[1:])
    else:
        file = _file("config/config.json", _json(edited(chooser.pick(configs()), chooser)))
    place = file.parent
    config = load.read_config(place)
    state = read_state(config)
    for name, content in COMPANIONS.items():
        (place / name).unlink(missing_ok=True)
        if (kind := chooser.number(4)) > 1:
            _file(f"config/{name}", _json(edited(content, chooser) if kind == 3 else content))
    evidence = gather(place)
    findings = config_findings(config, state, evidence)
    notes_about(place, config, state)
    views(config)
    if chooser.number(16) == 15:  # lays the model out, which takes fifty times longer
        compare_tables(config, state)
    method = chooser.pick(("linear", "ntk", "yarn", "dynamic", "none", "llama3"))
    if findings and chooser.number(2):
        read_state(repaired_config(config, evidence, findings))
        set_window(place, state.stated, state.window)
    read_state(extended_config(config, 2 * state.window, method))


# GGUF


SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
Field = tuple[str, int, Any]


@cache
def fields() -> list[Field]:
    """(key, type, value) of a good GGUF header; arrays are (item type, items)."""
    found: list[Field] = [("general.architecture", 8, "llama"), ("general.name", 8, "tiny")]
    numbers = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64}
    numbers |= {"attention.head_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 8}
    found += [(f"llama.{name}", 4, value) for name, value in numbers.items()]
    found += [("llama.attention.layer_norm_rms_epsilon", 6, 1e-5), ("llama.rope.freq_base", 6, 10000.0)]
    found += [("llama.rope.scaling.type", 8, "linear"), ("llama.rope.scaling.factor", 6, 4.0)]
    found += [("llama.rope.scaling.original_context_length", 4, 16), ("tokenizer.ggml.model", 8, "gpt2")]
    found += [("tokenizer.ggml.tokens", 9, (8, ["<s>", "</s>", "a", "b"]))]
    found += [("tokenizer.ggml.token_type", 9, (5, [3, 3, 1, 1])), ("tokenizer.ggml.merges", 9, (8, ["a b"]))]
    found += [("tokenizer.ggml.bos_token_id", 4, 0), ("tokenizer.ggml.eos_token_id", 4, 1)]
    return found


def gguf_bytes(keys: list[Field], tensors: list[tuple[str, list[int], int, int]], data: bytes) -> bytes:
    """A GGUF file of version 3. tensors: (name, dimensions, type, offset)."""

    def text(value: str) -> bytes:
        raw = value.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(raw)) + raw

    def value_of(kind: int, value: Any) -> bytes:
        if kind == 8:
            return text(str(value))
        if kind == 9:
            inner, items = value if isinstance(value, tuple) else (5, [])
            body = b"".join(value_of(inner, item) for item in items)
            return struct.pack("<IQ", inner, len(items)) + body
        try:
            return struct.pack(SCALARS[kind], value)
        except (struct.error, OverflowError, TypeError, KeyError):
            return b"\xff" * struct.calcsize(SCALARS.get(kind, "<Q"))

    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    for key, kind, value in keys:
        parts += [text(key), struct.pack("<I", kind), value_of(kind, value)]
    for name, dims, kind, offset in tensors:
        parts += [text(name), struct.pack("<I", len(dims)), *(struct.pack("<Q", n % 2**64) for n in dims)]
        parts.append(struct.pack("<IQ", kind, offset % 2**64))
    head = b"".join(parts)
    return head + b"\0" * (-len(head) % 32) + data


def good_gguf() -> bytes:
    """A header with a tensor of divisors behind it."""
    tensors = [("token_embd.weight", [8, 4], 0, 0), ("rope_freqs.weight", [4], 0, 128)]
    return gguf_bytes(fields(), tensors, b"\0" * 128 + struct.pack("<4f", 1, 1, 2, 4))


def _edited_gguf(chooser: Chooser) -> bytes:
    keys = list(fields())
    tensors: list[tuple[str, list[int], int, int]] = [("token_embd.weight", [8, 4], 0, 0)]
    for _ in range(1 + chooser.number(6)):
        at = chooser.number(len(keys))
        name, kind, _ = keys[at]
        what = chooser.number(6)
        if what == 0:
            keys.append(keys.pop(at))
        elif what == 1 and len(keys) > 1:
            keys.pop(at)
        elif what == 2:
            keys[at] = (name, 9, (chooser.pick((0, 4, 5, 6, 8, 9, 12)), []))
        elif what == 3:
            other = chooser.pick(
                ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
            )
            dims = [chooser.pick((4, 0, 1, 8, 2**32, 2**63, 2**64 - 1)) for _ in range(chooser.number(6))]
            offset = chooser.pick((0, 32, 2**63, 2**64 - 32))
            tensors.append((other, dims, chooser.pick((0, 0, 1, 2, 8, 12, 99)), offset))
        else:
            kind = chooser.pick((*SCALARS, 8, 8, kind))
            new = chooser.value()
            keys[at] = (name, kind, new if kind != 8 else str(new).encode("utf-8", "replace").decode())
    return gguf_bytes(keys, tensors, b"\0" * chooser.pick((0, 64, 128, 512)))


def read_gguf(data: bytes) -> None:
    """A GGUF file's header: is it whole, its keys, the scaling it asks for; seldom its whole config."""
    from ropewalk.model import gguf_in

    chooser = Chooser(data)
    raw = chooser.number(2) == 0
    path = _file("gguf/model.gguf", data[1:] if raw else _edited_gguf(chooser))
    gguf_in._read.cache_clear()  # inputs follow each other faster than a file's time changes
    file = gguf_in.read_gguf(path)
    gguf_in.rope_scaling(file)
    if chooser.number(64) == 63:
        gguf_in.gguf_config(file)


# recipes


RECIPE = {
    "name": "tiny",
    "about": "a line",
    "model": "embedded",
    "to": "2k",
    "data": "texts",
    "method": "linear",
    "direct": False,
    "finetune": {"data": ["{data}/a.txt", "stdlib"], "steps": 3, "rate": 1e-4, "packing": "joined"},
    "evaluate": {"perplexity": ["books={data}/b.txt"], "passkey": True, "contexts": [512, "2k"]},
    "report": {"title": "a title"},
}


def read_recipe(data: bytes) -> None:
    """A recipe: YAML to checked settings."""
    import yaml

    from ropewalk.verbs.run import Run
    from ropewalk.verbs.run import read_recipe as read

    chooser = Chooser(data)
    if chooser.number(2) == 0:
        path = _file("recipe/recipe.yaml", data[1:])
    else:
        text = yaml.safe_dump(edited(RECIPE, chooser), allow_unicode=True)
        path = _file("recipe/recipe.yaml", text.encode("utf-8", "replace"))
    read(Run(recipe=path, data="texts"))


# results files


@cache
def results() -> list[dict[str, Any]]:
    """Good results of every kind that the report knows."""
    block = {
        "name": "tiny", "hash": "0123456789abcdef", "window": 2048, "original_window": 512, "factor": 4.0,
        "method": "linear", "base": 1e4, "parameters": 3_440_000, "trained": {"steps": 9, "tokens": 900},
    }  # fmt: skip
    before = {**block, "name": "old", "window": 512, "factor": 1.0, "method": "none", "trained": None}
    scores = {"perplexity": 9.1, "low": 8.0, "high": 10.0, "loss": 2.2, "n": 512, "documents": 8}
    kinds: dict[str, list[dict[str, Any]]] = {
        "perplexity": [{"data": "books", "context": c, "stride": 256, **scores} for c in (512, 2048)],
        "passkey": [
            {"distance": d, "right": 9, "n": 10, "rate": 0.9, "low": 0.6, "high": 1.0} for d in (512, 2048)
        ],
        "position-loss": [{"data": "books", "from": 0, "to": 256, "loss": 2.0, "n": 100}],
        "training": [{"step": 1, "loss": 3.0, "tokens": 100, "learning_rate": 1e-3}],
        "benchmark": [{"task": "boolq", "accuracy": 0.5, "n": 20, "low": 0.3, "high": 0.7}],
        "ruler": [{"task": "niah", "length": 512, "score": 0.5, "n": 20}],
        "summarization": [{"task": "x", "metric": "rouge1", "score": 0.2, "n": 5}],
    }
    summaries = {
        "passkey": {"k_max": 512, "target": 2048, "right": 18, "n": 20},
        "perplexity": {"documents": ["a"], "tokens": 9},
    }
    made = {"ropewalk": "0.1.0", "commit": None, "torch": "2", "device": "cpu", "dtype": "float32", "seed": 0}
    found = []
    for model in (before, block):
        for kind, rows in kinds.items():
            found.append(
                {
                    "schema": 1,
                    "evaluation": kind,
                    "model": model,
                    "protocol": {"name": kind, "stride": 256},
                    "data": [{"name": "books", "sha256": "ab" * 32, "documents": 8}],
                    "rows": rows,
                    "summary": summaries.get(kind, {}),
                    "provenance": made,
                }
            )
    kept = Path(__file__).parents[2] / "docs" / "results"
    for file in sorted(kept.glob("*/*.attention.json"))[:1] + sorted(kept.glob("*/*.sweep.*.json"))[:1]:
        real = json.loads(file.read_text())
        found.append({**real, "rows": real["rows"][:4]})
    return found


def read_results(data: bytes) -> None:
    """Results files as the report reads them: found, checked, ordered, judged, put into tables."""
    from ropewalk.results.collection import collect
    from ropewalk.results.commands import commands
    from ropewalk.results.conditions import conditions
    from ropewalk.results.record import find_results, read_result
    from ropewalk.results.sections import sections
    from ropewalk.results.style import choose
    from ropewalk.results.tables import to_csv, to_latex
    from ropewalk.results.verdict import verdict

    chooser = Chooser(data)
    known = [copy.deepcopy(one) for one in results()]
    if chooser.number(8) == 0:
        contents = [data[1:], _json(known[0])]
    else:
        chosen = [chooser.number(len(known)) for _ in range(1 + chooser.number(3))]
        contents = [_json(edited(known[i], chooser)) for i in chosen]
        contents += [_json(known[chooser.number(len(known))])]
    folder = _scratch() / "results"
    for old in folder.glob("*"):
        old.unlink()
    for number, content in enumerate(contents):
        _file(f"results/{number}.json", content)
    found = collect((path, read_result(path)) for path in find_results([folder]))
    verdict(found)
    facts = conditions(found)
    commands(found)
    if chooser.number(32) == 31:  # figures take a hundred times longer
        shown, _ = sections(found, choose(found))
        facts += [t for s in shown for t in s.tables]
    for table in facts:
        to_csv(table)
        to_latex(table)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "config": read_config,
    "gguf": read_gguf,
    "recipe": read_recipe,
    "results": read_results,
}
"""Reader -> what one input does with it; any exception but UserError is a finding."""


def survives(name: str, data: bytes) -> bool:
    """Read ``data`` with a reader: True when accepted, False when refused; anything else is a finding."""
    try:
        TARGETS[name](data)
    except UserError as error:
        assert 0 < len(str(error)) < 4000, f"a line of {len(str(error))} characters"
        return False
    return True


def warm(name: str) -> None:
    """Import all that a reader may need, so that no input is charged for it."""
    from ropewalk.model.gguf_in import gguf_config, read_gguf

    for seed in seeds(name):
        survives(name, seed)
    if name == "gguf":
        path = _file("gguf/model.gguf", good_gguf())
        gguf_config(read_gguf(path))
    if name == "results":
        survives(name, bytes([1, 2, 3, 5, 31] * 12))


def seeds(name: str) -> list[bytes]:
    """Bytes to start from: the good files themselves, and a few lists of edits."""
    import yaml

    raw = {
        "config": [_json(one) for one in configs()],
        "gguf": [good_gguf(), gguf_bytes(fields(), [], b"")],
        "recipe": [yaml.safe_dump(RECIPE).encode(), b"a: &a [1]\nb: [*a, *a]\n", b"name: !!python/none x\n"],
        "results": [_json(one) for one in results()],
    }[name]
    edits = [bytes([1 + 2 * n, *range(n, n + 24)]) for n in range(12)]
    return [b"\0" + one for one in raw] + edits
