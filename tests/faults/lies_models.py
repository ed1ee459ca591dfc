"""Lies about models: config.json, safetensors, tokenizers."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from typing import Any

from lying import (
    ASK,
    DOCTOR,
    DROP,
    EVALUATE,
    EXPORT,
    EXTEND,
    FINETUNE,
    MODEL_COMMANDS,
    SWEEP,
    Lie,
    World,
)

# config.json


def config_lies() -> list[Lie]:
    """Each is met by one of the verbs that read a model, in turn."""
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    yarn = {**linear, "rope_type": "yarn", "original_max_position_embeddings": 16}
    longrope = {**yarn, "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    llama3 = {**yarn, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    raw: list[tuple[str, str | bytes, str]] = [
        ("config empty", "", "cannot be read as JSON"),
        ("config cut off", '{"model_type": "llama"', "cannot be read as JSON"),
        ("config is a list", "[1, 2]", "is not a mapping"),
        ("config is a number", "3", "is not a mapping"),
        ("config is null", "null", "is not a mapping"),
        ("config not UTF-8", b'{"model_type": "\xff\xfe"}', "cannot be read as JSON"),
        ("config in UTF-16", '{"model_type": "llama"}'.encode("utf-16"), "cannot be read as JSON"),
        ("config nested 100,000 deep", "[" * 100_000, "cannot be read as JSON|is not a mapping"),
        ("config with a number of 5,000 digits", '{"a": ' + "9" * 5000 + "}", "cannot be read as JSON"),
        ("config is binary", bytes(range(256)), "cannot be read as JSON"),
        ("config without anything", "{}", "names no model_type"),
    ]
    keys: list[tuple[str, dict[str, Any], str]] = [
        ("model_type missing", {"model_type": DROP}, "names no model_type"),
        ("model_type a number", {"model_type": 7}, "names no model_type"),
        ("model_type unknown", {"model_type": "lama"}, "family 'lama' is not known to transformers"),
        ("code in auto_map", {"model_type": "mine", "auto_map": {"AutoModel": "x.Y"}}, "is never run"),
        ("family without RoPE", {"model_type": "gpt2", "rope_parameters": DROP}, "has no rotary positions"),
        ("family refused", {"model_type": "gptj"}, "it is not supported|no rotary|states no window"),
        ("ALiBi", {"model_type": "falcon", "alibi": True, "head_dim": DROP}, "has ALiBi"),
        (
            "window null",
            {"max_position_embeddings": None},
            "max_position_embeddings.*got NoneType|states no window",
        ),
        ("window a text", {"max_position_embeddings": "many"}, "max_position_embeddings"),
        ("window negative", {"max_position_embeddings": -5}, "states no window"),
        ("window zero", {"max_position_embeddings": 0}, "states no window"),
        ("window of 2^60", {"max_position_embeddings": 1 << 60}, "no model has more than"),
        ("a billion layers", {"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000, and no model"),
        ("twelve thousand layers", {"num_hidden_layers": 12_000}, "num_hidden_layers 12000, and no model"),
        ("nested 300 deep", {"more": json.loads("[" * 300 + "]" * 300)}, "nests deeper than 40"),
        ("a billion heads", {"num_attention_heads": 10**9}, "no model|refuses has more than"),
        ("heads of 2^32 dimensions", {"head_dim": 1 << 32}, "heads of 4,294,967,296 dimensions"),
        ("labels without end", {"num_labels": 10**12}, "no model has more than"),
        ("no heads", {"num_attention_heads": 0}, "refuses this config.json|how large a head"),
        ("heads negative", {"num_attention_heads": -4, "head_dim": None}, "refuses|how large a head"),
        ("hidden size a text", {"hidden_size": "wide"}, "hidden_size"),
        ("hidden size null", {"hidden_size": None, "head_dim": None}, "how large a head|refuses"),
        ("rope type unknown", {"rope_parameters": {**linear, "rope_type": "magic"}}, "rope type 'magic'"),
        ("rope type a number", {"rope_parameters": {**linear, "rope_type": 3}}, "rope type 3"),
        ("rope type a list", {"rope_parameters": {**linear, "rope_type": []}}, r"rope type \[\]"),
        ("rope_scaling a text", {"rope_scaling": "linear"}, "rope_scaling 'linear'; it must be a mapping"),
        ("rope_scaling a list", {"rope_scaling": [4]}, r"rope_scaling \[4\]; it must be a mapping"),
        ("factor a text", {"rope_parameters": {**linear, "factor": "4"}}, "factor is '4'|refuses"),
        ("factor zero", {"rope_parameters": {**linear, "factor": 0.0}}, "factor is 0; it must be"),
        ("factor below one", {"rope_parameters": {**linear, "factor": 0.5}}, "factor is 0.5; it must be"),
        ("factor negative", {"rope_parameters": {**linear, "factor": -4.0}}, "factor is -4; it must be"),
        ("factor true", {"rope_parameters": {**linear, "factor": True}}, "factor"),
        ("factor a list", {"rope_parameters": {**linear, "factor": [4]}}, "factor"),
        ("factor infinite", {"rope_parameters": {**linear, "factor": float("inf")}}, "factor"),
        ("factor without a window", {"rope_parameters": {**linear, "factor": 1e6}}, "less than two tokens"),
        ("infinity in a scaling", {"rope_parameters": {**linear, "more": [1e999]}}, "a finite number"),
        ("factor not a number", {"rope_parameters": {**linear, "factor": float("nan")}}, "factor"),
        ("base null", {"rope_parameters": {**linear, "rope_theta": None}}, "rope_theta is null"),
        ("base zero", {"rope_parameters": {**linear, "rope_theta": 0}}, "rope_theta is 0; it must be"),
        ("base negative", {"rope_parameters": {**linear, "rope_theta": -1.0}}, "rope_theta is -1; it must"),
        ("base a list", {"rope_parameters": {**linear, "rope_theta": [1]}}, "rope_theta"),
        ("base a text", {"rope_parameters": {**linear, "rope_theta": "1e4"}}, "rope_theta"),
        ("share above one", {"rope_parameters": {**linear, "partial_rotary_factor": 2}}, "from 1e-06 to 1"),
        ("yarn with a text", {"rope_parameters": {**yarn, "beta_fast": "x"}}, "beta_fast"),
        ("yarn attention zero", {"rope_parameters": {**yarn, "attention_factor": 0}}, "attention_factor"),
        ("longrope without lists", {"rope_parameters": {**yarn, "rope_type": "longrope"}}, "short_factor"),
        ("longrope with zeros", {"rope_parameters": {**longrope, "long_factor": [0.0] * 4}}, "long_factor"),
        ("longrope with texts", {"rope_parameters": {**longrope, "long_factor": ["x"] * 4}}, "long_factor"),
        ("longrope too short", {"rope_parameters": {**longrope, "long_factor": [1.0]}}, "long_factor"),
        ("llama3 bands a text", {"rope_parameters": {**llama3, "low_freq_factor": "x"}}, "low_freq_factor"),
        (
            "original window a list",
            {"rope_parameters": {**yarn, "original_max_position_embeddings": [1]}},
            "original_max_position_embeddings",
        ),
        (
            "original window negative",
            {"rope_parameters": {**yarn, "original_max_position_embeddings": -2}},
            "original_max_position_embeddings",
        ),
    ]
    found = []
    for number, (name, text, says) in enumerate(raw):
        command = MODEL_COMMANDS[number % len(MODEL_COMMANDS)]
        found.append(Lie(name, command, says, lambda w, t=text: w.text("m/config.json", t)))
    for number, (name, changes, says) in enumerate(keys):
        command = MODEL_COMMANDS[number % len(MODEL_COMMANDS)]
        found.append(Lie(name, command, says, lambda w, c=changes: w.edit("m/config.json", **c)))
    return [
        *found,
        Lie("no config", EXTEND, "no config.json", lambda w: (w.place / "m/config.json").unlink()),
        Lie("config a directory", DOCTOR, "config.json", _directory("m/config.json")),
        Lie("model a text file", EXTEND.replace(" m ", " t.txt "), "is a file but not GGUF"),
        Lie("model missing", FINETUNE.replace(" m ", " nowhere "), "no such model: nowhere"),
        Lie("model an empty directory", ASK.replace(" m ", " e "), "config.json", _folder("e")),
        Lie(
            "model not on the Hub", EVALUATE.replace(" m ", " no-such/model "), "no such model: no-such/model"
        ),
        Lie("only an adapter", EXTEND, "adapter", _only_adapter),
        Lie("stale window", DOCTOR, "FINDING", lambda w: _stale(w), 1),
    ]


def _directory(name: str) -> Callable[[World], None]:
    def make(world: World) -> None:
        (world.place / name).unlink()
        (world.place / name).mkdir()

    return make


def _folder(name: str) -> Callable[[World], None]:
    return lambda world: (world.place / name).mkdir(parents=True)


def _only_adapter(world: World) -> None:
    for file in ("config.json", "model.safetensors"):
        (world.place / "m" / file).unlink()
    world.json("m/adapter_config.json", {"base_model_name_or_path": "x"})


def _stale(world: World) -> None:
    world.edit("m/config.json", rope_scaling={"type": "linear", "factor": 4}, rope_theta=DROP)
    world.edit("m/tokenizer_config.json", model_max_length=8)


# safetensors


def weight_lies() -> list[Lie]:
    """Files of weights that are not whole, not safetensors, or another model's."""

    def header(value: Any, data: bytes = b"") -> bytes:
        raw = json.dumps(value).encode() if not isinstance(value, bytes) else value
        return struct.pack("<Q", len(raw)) + raw + data

    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    contents: list[tuple[str, Callable[[bytes], bytes], str]] = [
        ("weights empty", lambda b: b"", "is cut off or is not safetensors"),
        ("weights of seven bytes", lambda b: b[:7], "is cut off or is not safetensors"),
        ("weights cut in the header", lambda b: b[:100], "is cut off or is not safetensors"),
        ("weights cut in the data", lambda b: b[:-1000], "is corrupt: its header describes"),
        ("weights without their last byte", lambda b: b[:-1], "is corrupt: its header describes"),
        ("weights too long", lambda b: b + b"x", "is corrupt: its header describes"),
        ("weights are zeros", lambda b: bytes(len(b)), "is cut off or is not safetensors"),
        ("weights are text", lambda b: b"weights" * 99, "is cut off or is not safetensors"),
        ("weights are a pickle", lambda b: b"\x80\x04\x95" + b[3:], "is cut off or is not safetensors"),
        ("header length of 2^63", lambda b: struct.pack("<Q", 1 << 63) + b[8:], "is cut off or is not"),
        ("header not JSON", lambda b: header(b"{x" * 9), "broken header"),
        ("header a list", lambda b: header([1, 2]), "broken header"),
        ("header entry a number", lambda b: header({"a": 1}), "broken header"),
        ("header without offsets", lambda b: header({"a": {"dtype": "F32", "shape": [1]}}), "broken header"),
        ("header offsets of text", lambda b: header({"a": {**one, "data_offsets": ["x", "y"]}}), "broken"),
        ("header shape of text", lambda b: header({"a": {**one, "shape": ["x"]}}, bytes(8)), "broken header"),
        ("header shape infinite", lambda b: header({"a": {**one, "shape": [float("inf")]}}), "broken header"),
        ("header shape without end", lambda b: header({"a": {**one, "shape": [10**300] * 9999}}), "broken"),
        ("header offsets infinite", lambda b: header({"a": {**one, "data_offsets": [0, 1e999]}}), "broken"),
        ("header nested too deep", lambda b: header(b"[" * 50_000), "broken header"),
        ("header without tensors", lambda b: header({}), "without a single tensor"),
        ("header size and shape disagree", lambda b: header({"a": {**one, "shape": [3]}}, bytes(8)), "shape"),
        ("header negative shape", lambda b: header({"a": {**one, "shape": [-2]}}, bytes(8)), "shape|broken"),
        (
            "header negative offset",
            lambda b: header({"a": {**one, "data_offsets": [-8, 8]}}, bytes(8)),
            "does not fit its bytes",
        ),
        ("header dtype unknown", lambda b: header({"a": {**one, "dtype": "Q7"}}, bytes(8)), "dtype 'Q7'|Q7"),
    ]
    found = []
    for number, (name, change, says) in enumerate(contents):
        command = (EXTEND, FINETUNE, EVALUATE, EXPORT, SWEEP, ASK)[number % 6]

        def make(world: World, change: Callable[[bytes], bytes] = change) -> None:
            world.text("m/model.safetensors", change(world.bytes("m/model.safetensors")))

        found.append(Lie(name, command, says, make))

    def index(value: Any) -> Callable[[World], None]:
        def make(world: World) -> None:
            (world.place / "m/model.safetensors").rename(world.place / "m/model-00001-of-00002.safetensors")
            text = value if isinstance(value, str) else json.dumps(value)
            world.text("m/model.safetensors.index.json", text)

        return make

    def only(name: str) -> Callable[[World], None]:
        return lambda world: (world.place / "m/model.safetensors").rename(world.place / "m" / name)

    shard = "model-00001-of-00002.safetensors"
    return [
        *found,
        Lie("no weights", EXTEND, "has no weights", lambda w: (w.place / "m/model.safetensors").unlink()),
        Lie("only pytorch_model.bin", EXTEND, "no pickle is ever loaded", only("pytorch_model.bin")),
        Lie("only a .pt", EVALUATE, "no pickle is ever loaded", only("model.pt")),
        Lie("only a .pth", FINETUNE, "no pickle is ever loaded", only("consolidated.00.pth")),
        Lie("index not JSON", EXTEND, "index.json is broken", index("{")),
        Lie("index without map", FINETUNE, "index.json is broken", index({"metadata": {}})),
        Lie("index a list", EVALUATE, "index.json is broken", index([1])),
        Lie("index of a list", EXPORT, "index.json is broken", index({"weight_map": ["a"]})),
        Lie("index of lists", ASK, "index.json is broken", index({"weight_map": {"a": ["b"]}})),
        Lie("index empty", EXPORT, "index.json is broken", index({"weight_map": {}})),
        Lie(
            "index outside", SWEEP, "outside its directory", index({"weight_map": {"a": "../x.safetensors"}})
        ),
        Lie(
            "index absolute", ASK, "outside its directory", index({"weight_map": {"a": "/etc/x.safetensors"}})
        ),
        Lie("index of a pickle", EXTEND, "not a safetensors file", index({"weight_map": {"a": "x.bin"}})),
        Lie(
            "shard missing",
            EXTEND,
            "is missing",
            index({"weight_map": {"a": shard, "b": "model-2.safetensors"}}),
        ),
        Lie("two files, no index", EVALUATE, "2 safetensors files but no", _two_files),
    ]


def _two_files(world: World) -> None:
    file = world.place / "m/model.safetensors"
    shutil.copyfile(file, world.place / "m/a.safetensors")
    file.rename(world.place / "m/b.safetensors")


# tokenizers


def tokenizer_lies() -> list[Lie]:
    """tokenizer.json and what stands beside it."""
    verbs = (EXTEND, FINETUNE, EVALUATE, EXPORT, SWEEP, ASK)
    texts: list[tuple[str, str | bytes, str]] = [
        ("tokenizer empty", "", "tokenizer in m cannot be loaded"),
        ("tokenizer not JSON", "{", "tokenizer in m cannot be loaded"),
        ("tokenizer a list", "[]", "tokenizer in m cannot be loaded"),
        ("tokenizer without model", "{}", "tokenizer in m cannot be loaded"),
        ("tokenizer binary", bytes(range(256)), "tokenizer in m cannot be loaded"),
        ("tokenizer model unknown", '{"model": {"type": "Magic"}}', "tokenizer in m cannot be loaded"),
        ("tokenizer nested", "[" * 50_000, "tokenizer in m cannot be loaded"),
    ]
    found = []
    for number, (name, text, says) in enumerate(texts):
        found.append(Lie(name, verbs[number % 6], says, lambda w, t=text: w.text("m/tokenizer.json", t)))

    def gone(world: World) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (world.place / "m" / file).unlink()

    def larger(world: World) -> None:
        tokenizer = json.loads(world.bytes("m/tokenizer.json"))
        tokenizer["model"]["vocab"]["xyz"] = 9000
        world.json("m/tokenizer.json", tokenizer)

    def code(world: World) -> None:
        world.edit(
            "m/tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["x.Y", None]}
        )
        (world.place / "m/tokenizer.json").unlink()
        world.text("m/x.py", "raise SystemExit('code of a checkpoint ran')")

    setting = "m/tokenizer_config.json"
    return [
        *found,
        Lie("no tokenizer", EXTEND, "has no tokenizer", gone),
        Lie("no tokenizer to train with", FINETUNE, "has no tokenizer", gone),
        Lie("tokenizer of another model", EXTEND, "does not match the model: its largest token id", larger),
        Lie("tokenizer of another, evaluated", EVALUATE, "does not match the model", larger),
        Lie("tokenizer with code", ASK, "tokenizer in m cannot be loaded", code),
        Lie("tokenizer settings cut", EXTEND, "tokenizer", lambda w: w.text(setting, "{")),
        Lie("tokenizer settings a list", FINETUNE, "tokenizer", lambda w: w.text(setting, "[1]")),
        Lie("bos token a number", EVALUATE, "tokenizer", lambda w: w.edit(setting, bos_token=5)),
        Lie("bos token a list", EXTEND, "tokenizer", lambda w: w.edit(setting, bos_token=[1])),
    ]
