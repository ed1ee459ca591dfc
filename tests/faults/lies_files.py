"""Lies about files: GGUF, recipes, data, results."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import readers
from lying import FINETUNE, RECIPE, REPORT, RUN, Lie, World
from readers import Field

# GGUF


def gguf_lies() -> list[Lie]:
    """Headers that lie about lengths, types and scaling; files cut anywhere."""
    commands = ("extend g.gguf o --to 128", "doctor g.gguf", "evaluate g.gguf --passkey --out r")
    commands += ("sweep g.gguf --to 128 --data t.txt --out r", "ask g.gguf --question who")

    def header(tensors: int = 0, keys: int = 0, rest: bytes = b"", version: int = 3) -> bytes:
        return b"GGUF" + struct.pack("<IQQ", version, tensors, keys) + rest + bytes(64)

    def text(value: bytes, length: int | None = None) -> bytes:
        return struct.pack("<Q", len(value) if length is None else length) + value

    array = text(b"a") + struct.pack("<I", 9)
    tensor = text(b"t")
    contents: list[tuple[str, Callable[[bytes], bytes], str]] = [
        ("gguf empty", lambda b: b"", "not GGUF|is cut off"),
        ("gguf of four bytes", lambda b: b[:4], "is cut off"),
        ("gguf cut after the counts", lambda b: b[:24], "is cut off"),
        ("gguf cut in the keys", lambda b: b[:300], "is cut off"),
        ("gguf cut in the data", lambda b: b[:-500], "is cut off"),
        ("gguf version 1", lambda b: header(version=1), "its version is 1"),
        ("gguf version 99", lambda b: header(version=99), "its version is 99"),
        ("gguf of 2^60 keys", lambda b: header(keys=1 << 60), "claims 1,152,921,504,606,846,976 keys"),
        ("gguf of 2^60 tensors", lambda b: header(tensors=1 << 60), "tensors"),
        (
            "gguf key of 2^60 bytes",
            lambda b: header(0, 1, text(b"a", 1 << 60)),
            "is cut off within its header",
        ),
        (
            "gguf value of unknown type",
            lambda b: header(0, 1, text(b"a") + struct.pack("<I", 77)),
            "unknown type 77",
        ),
        (
            "gguf array of 2^60 items",
            lambda b: header(0, 1, array + struct.pack("<IQ", 0, 1 << 60)),
            "claim more than",
        ),
        (
            "gguf array of empty texts",
            lambda b: header(0, 1, array + struct.pack("<IQ", 8, 7_000_000)),
            "is cut off within",
        ),
        (
            "gguf array of arrays",
            lambda b: header(0, 1, array + struct.pack("<IQ", 9, 1)),
            "array of unknown type 9",
        ),
        (
            "gguf tensor of 9 dimensions",
            lambda b: header(1, 0, tensor + struct.pack("<I", 9)),
            "tensor of 9 dimensions",
        ),
        (
            "gguf tensor without end",
            lambda b: header(1, 0, tensor + struct.pack("<I2Q", 2, 1 << 40, 1 << 40)),
            "of shape",
        ),
        ("gguf tensor of no size", lambda b: header(1, 0, tensor + struct.pack("<IQ", 1, 0)), "of shape 0"),
        (
            "gguf tensor past the end",
            lambda b: header(1, 0, tensor + struct.pack("<IQIQ", 1, 4, 0, 1 << 62)),
            "past its end",
        ),
        (
            "gguf tensor of unknown type",
            lambda b: header(1, 0, tensor + struct.pack("<IQIQ", 1, 4, 99, 0)),
            "not a GGUF file",
        ),
        ("gguf without tensors", lambda b: header(), "holds no weights"),
        (
            "gguf key twice",
            lambda b: header(0, 2, 2 * (text(b"a") + struct.pack("<IB", 0, 1))),
            "not a GGUF file",
        ),
        (
            "gguf key not UTF-8",
            lambda b: header(0, 1, text(b"\xff\xfe") + struct.pack("<IB", 0, 1)),
            "not a GGUF file",
        ),
        ("gguf value not UTF-8", lambda b: _with(text_of=b"\xff\xfe"), "bytes that are not text"),
        ("gguf alignment zero", lambda b: _with(("general.alignment", 4, 0)), "not a GGUF file"),
        (
            "gguf architecture unknown",
            lambda b: _with(("general.architecture", 8, "lama")),
            "'lama' cannot be read",
        ),
        ("gguf architecture a number", lambda b: _with(("general.architecture", 4, 5)), "'5' cannot be read"),
        (
            "gguf scaling unknown",
            lambda b: _with(("llama.rope.scaling.type", 8, "magic")),
            "'magic' is not known",
        ),
        ("gguf factor a text", lambda b: _with(("llama.rope.scaling.factor", 8, "x")), "must be a number"),
        ("gguf factor negative", lambda b: _with(("llama.rope.scaling.factor", 6, -4.0)), "must be a number"),
        (
            "gguf factor not a number",
            lambda b: _with(("llama.rope.scaling.factor", 6, float("nan"))),
            "must be a number",
        ),
        (
            "gguf window a text",
            lambda b: _with(("llama.context_length", 8, "many")),
            "must be a number|got str",
        ),
        (
            "gguf a million million layers",
            lambda b: _with(("llama.block_count", 10, 10**12)),
            "no model has more than|cannot be read",
        ),
    ]
    found = []
    for number, (name, change, says) in enumerate(contents):

        def make(world: World, change: Callable[[bytes], bytes] = change) -> None:
            world.text("g.gguf", change(world.bytes("g.gguf")))

        found.append(Lie(name, commands[number % len(commands)], says, make))
    return [
        *found,
        Lie("gguf to train", "finetune g.gguf o --data t.txt", "make it a checkpoint first"),
        Lie("gguf to export", "export g.gguf o --gguf", "is GGUF already"),
        Lie("gguf missing", "doctor no.gguf", "no such model: no.gguf"),
    ]


def _with(*changes: Field, text_of: bytes | None = None) -> bytes:
    """A good small GGUF file with some keys changed."""
    new = {key: (key, kind, value) for key, kind, value in changes}
    keys = [new.pop(key, (key, kind, value)) for key, kind, value in readers.fields()]
    content = readers.gguf_bytes([*keys, *new.values()], [("token_embd.weight", [8, 4], 0, 0)], bytes(128))
    return content if text_of is None else content.replace(b"tiny", text_of + b"ny")


# recipes


def recipe_lies() -> list[Lie]:
    """YAML that is not a recipe, would run code, would fill the memory, or asks for what no verb has."""
    laugh = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    laugh += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    texts: list[tuple[str, str | bytes, str]] = [
        ("recipe empty", "", "is not a mapping of settings"),
        ("recipe a list", "- a\n- b\n", "is not a mapping of settings"),
        ("recipe a text", "train it, please", "is not a mapping of settings"),
        ("recipe not YAML", "name: [tiny\n", "cannot be read"),
        ("recipe with tabs", "name:\n\t- x\n", "cannot be read"),
        ("recipe not UTF-8", b"name: \xff\n", "cannot be read"),
        ("recipe binary", bytes(range(256)), "cannot be read"),
        ("recipe of two documents", RECIPE + "---\n" + RECIPE, "cannot be read"),
        ("recipe that calls", "name: !!python/object/apply:os.system ['touch ran']\n", "cannot be read"),
        ("recipe that makes", "name: !!python/object/new:os.mkdir ['ran']\n", "cannot be read"),
        ("recipe that imports", "name: !!python/module:antigravity\n", "cannot be read"),
        ("recipe with a tag of its own", "name: !mine x\n", "cannot be read"),
        ("recipe laughs a billion times", laugh, "holds more than"),
        ("recipe within itself", "a: &a [*a]\n", "holds more than 20 levels"),
        ("recipe 100,000 deep", "a: " + "[" * 100_000, "nests deeper|cannot be read"),
        ("recipe of 2 MB", "a: " + "x" * 2_000_000, "has 2,000,003 characters"),
        ("recipe with an impossible date", "name: 2026-13-99\n", "cannot be read"),
        ("recipe with a date", "name: 2026-01-02\n", "name is datetime.date.*, not a text"),
    ]
    changes: list[tuple[str, str, str, str]] = [
        ("name missing", "name: tiny\n", "", "setting 'name' is missing"),
        ("name a number", "name: tiny", "name: 7", "name is 7, not a text"),
        ("name upwards", "name: tiny", "name: ../tiny", "becomes a directory"),
        ("name absolute", "name: tiny", "name: /tiny", "becomes a directory"),
        ("name hidden", "name: tiny", "name: .tiny", "becomes a directory"),
        ("name with NUL", "name: tiny", 'name: "a\\0b"', "NUL character"),
        ("name of 300 letters", "name: tiny", "name: " + "a" * 300, "becomes a directory"),
        ("name empty", "name: tiny", "name: ''", "becomes a directory"),
        ("model missing", "model: m\n", "", "setting 'model' is missing"),
        ("model a list", "model: m", "model: [m]", "model is .*, not a text"),
        ("model not there", "model: m", "model: nowhere", "no such model: nowhere"),
        ("target missing", "to: 128\n", "", "setting 'to' is missing"),
        ("target a word", "to: 128", "to: far", "to is 'far', not a whole number"),
        ("target null", "to: 128", "to:", "to has no value"),
        ("target not a number", "to: 128", "to: .nan", "not a whole number"),
        ("target infinite", "to: 128", "to: .inf", "not a whole number"),
        ("target too short", "to: 128", "to: 32", "is not longer than the window"),
        ("target negative", "to: 128", "to: -128", "to is -128|is not longer"),
        ("method unknown", "to: 128", "to: 128\nmethod: magic", "method"),
        ("setting unknown", "to: 128", "to: 128\nstepps: 3", "no setting 'stepps'"),
        (
            "section a list",
            "finetune: {data: [t.txt], steps: 1, batch: 1}",
            "finetune: [1]",
            "finetune is .*, not a mapping",
        ),
        (
            "section a text",
            "evaluate: {perplexity: [t.txt], contexts: [32], stride: 8}",
            "evaluate: yes",
            "not a mapping",
        ),
        ("training setting unknown", "steps: 1", "stebs: 1", "did you mean 'steps'"),
        ("steps a text", "steps: 1", "steps: many", "not a whole number"),
        ("steps zero", "steps: 1", "steps: 0", "steps is 0; at least 1"),
        ("data needed", "data: [t.txt]", "data: ['{data}/t.txt']", "give --data DIR"),
        ("data not there", "data: [t.txt]", "data: [u.txt]", "no data file u.txt"),
        ("texts not there", "perplexity: [t.txt]", "perplexity: [u.txt]", "no data file u.txt"),
        ("training model given", "steps: 1", "steps: 1, model: x", "finetune.*model"),
        ("evaluation unknown", "stride: 8", "strides: 8", "did you mean 'stride'"),
        ("stride too long", "stride: 8", "stride: 64", "must be longer than the stride"),
    ]
    found = []
    for name, text, says in texts:
        found.append(Lie(name, RUN, says, lambda w, t=text: w.text("recipe.yaml", t)))
    for name, old, new, says in changes:
        assert old in RECIPE, old
        text = RECIPE.replace(old, new)
        found.append(Lie(f"recipe: {name}", RUN, says, lambda w, t=text: w.text("recipe.yaml", t)))
    return [
        *found,
        Lie("recipe missing", "run no.yaml --out o", "no recipe no.yaml"),
        Lie("recipe a directory", "run m --out o", "cannot be read"),
        Lie("recipe changed without a value", RUN + " --set finetune.steps", "is not SECTION.SETTING=VALUE"),
        Lie("recipe changed by no YAML", RUN + " --set finetune.steps=[", "the value is not YAML"),
        Lie("recipe changed where nothing is", RUN + " --set name.x=1", "has no settings"),
    ]


# data


def data_lies() -> list[Lie]:
    """Files of text that hold none, are broken, or are of another kind."""
    files: list[tuple[str, str, str | bytes, str]] = [
        ("data empty", "u.txt", "", "data file u.txt is empty"),
        ("data binary", "u.txt", bytes(9000), "is binary, not text"),
        ("data of unknown kind", "u.docx", "x", "is of unknown kind .docx"),
        ("data without a kind", "u", "x", "is of unknown kind"),
        ("data too short", "u.txt", "A rope.", "is shorter than one window"),
        ("lines not JSON", "u.jsonl", "a rope\n", "is not a JSON object"),
        ("lines of lists", "u.jsonl", "[1]\n", "is not a JSON object"),
        ("lines cut off", "u.jsonl", '{"text": "a"}\n{"text": "b', "is not a JSON object"),
        ("lines without text", "u.jsonl", '{"a": 1, "b": 2}\n', "no column of text"),
        ("lines with two texts", "u.jsonl", '{"a": "x", "b": "y"}\n', "name one with --column"),
        ("lines with a number", "u.jsonl", '{"text": 5}\n', "no text column|is int, not text"),
        ("lines nested too deep", "u.jsonl", '{"text": ' + "[" * 50_000 + "\n", "is not a JSON object"),
        ("lines with a huge number", "u.jsonl", '{"text": ' + "9" * 5000 + "}\n", "is not a JSON object"),
        ("lines of NUL", "u.jsonl", bytes(500), "is not a JSON object"),
        ("an array for lines", "u.json", '[\n{"text": "a"}\n]', "is not a JSON object"),
        ("Parquet empty", "u.parquet", "", "u.parquet is empty|size is 0 bytes"),
        ("Parquet of text", "u.parquet", "a rope", "is not a readable Parquet file"),
        ("Parquet of two marks", "u.parquet", b"PAR1" + bytes(40) + b"PAR1", "is not a readable Parquet"),
        (
            "Parquet with a footer of 2^31",
            "u.parquet",
            b"PAR1" + b"\xff\xff\xff\x7fPAR1",
            "is not a readable",
        ),
    ]
    found = []
    for number, (name, file, content, says) in enumerate(files):
        command = (FINETUNE, f"evaluate m --perplexity {file} --contexts 32 --stride 8 --out r")[number % 2]
        if "too short" in name:
            command = FINETUNE
        command = command.replace("t.txt", file)
        found.append(Lie(name, command, says, lambda w, f=file, c=content: w.text(f, c)))

    def parquet(columns: dict[str, list[Any]], cut: int = 0) -> Callable[[World], None]:
        def make(world: World) -> None:
            import pyarrow as pa
            import pyarrow.parquet as pq

            typed = {k: pa.array(v, None if v else pa.string()) for k, v in columns.items()}
            pq.write_table(pa.table(typed), world.place / "u.parquet")
            content = world.bytes("u.parquet")
            world.text("u.parquet", content[: len(content) - cut])

        return make

    train = FINETUNE.replace("t.txt", "u.parquet")
    return [
        *found,
        Lie("data missing", FINETUNE.replace("t.txt", "u.txt"), "no data file u.txt"),
        Lie("directory without text", FINETUNE.replace("t.txt", "e"), "no text in directory e", _pictures),
        Lie("Parquet cut off", train, "is not a readable Parquet file", parquet({"text": ["a"] * 9}, 30)),
        Lie("Parquet without text", train, "no text column", parquet({"a": [1, 2]})),
        Lie("Parquet without rows", train, "is empty", parquet({"text": []})),
        Lie("Parquet of two texts", train, "name one with --column", parquet({"a": ["x"], "b": ["y"]})),
        Lie("column not there", train + " --column body", "no text column 'body'", parquet({"text": ["x"]})),
        Lie(
            "column of numbers",
            train + " --column a",
            "no text column 'a'",
            parquet({"a": [1], "text": ["x"]}),
        ),
        Lie(
            "shares for some", "finetune m o --data t.txt:0.5 recipe.yaml", "has no weight while others have"
        ),
        Lie("share zero", "finetune m o --data t.txt:0 t.txt:1", "a weight is above zero"),
        Lie("Hub set without a name", "finetune m o --data hub:/", "names no Hub data set"),
        Lie("Hub set not there", "finetune m o --data hub:no-such/set", "cannot be opened|cannot be read"),
        Lie("document missing", "ask m --file u.txt --question who", "file u.txt cannot be read"),
        Lie(
            "document empty",
            "ask m --file u.txt --question who",
            "is empty",
            lambda w: w.text("u.txt", " \n"),
        ),
        Lie("document a directory", "ask m --file m --question who", "cannot be read"),
        Lie(
            "document not UTF-8",
            "ask m --file u.txt --question who",
            "it is not UTF-8 text",
            lambda w: w.text("u.txt", b"\xff\xfe\x00"),
        ),
        Lie(
            "attention texts missing",
            "evaluate m --attention u.txt --target 256 --out r",
            "no data file u.txt",
        ),
        Lie(
            "texts shorter than the window",
            "evaluate m --perplexity u.txt --contexts 32 --stride 8 --out r",
            "no document|shorter",
            lambda w: w.text("u.txt", "A rope."),
        ),
        Lie(
            "own questions missing", "evaluate m --benchmark --set benchmark.data=u.jsonl --out r", "u.jsonl"
        ),
    ]


def _pictures(world: World) -> None:
    world.text("e/a.png", b"\x89PNG")
    world.text("e/.hidden.txt", "text")
    world.text("e/empty.txt", "")


# results


def result_lies() -> list[Lie]:
    """Results files that are cut, of another schema, or hold what is no figure."""
    texts: list[tuple[str, str | bytes, str]] = [
        ("results empty", "", "cannot be read|no results"),
        ("results cut off", '{"schema": 1, "evaluation": "x", "rows": [', "cannot be read"),
        ("results a list", "[]", "is not a ropewalk results file"),
        ("results not UTF-8", b'{"evaluation": "\xff"}', "cannot be read"),
        ("results with NaN", '{"schema": 1, "evaluation": "x", "rows": [NaN]}', "NaN is not a number"),
        ("results with Infinity", '{"schema": 1, "a": Infinity}', "Infinity is not a number"),
        ("results nested too deep", "[" * 100_000, "cannot be read"),
        ("results with a huge number", '{"schema": ' + "9" * 5000 + "}", "cannot be read"),
    ]
    one = "report results/one.json --out o"
    found = [
        Lie(name, one, says, lambda w, t=text: w.text("results/one.json", t)) for name, text, says in texts
    ]
    keys: list[tuple[str, dict[str, Any], str]] = [
        ("schema missing", {"schema": None}, "has schema None"),
        ("schema of tomorrow", {"schema": 99}, "has schema 99; this version reads 1"),
        ("schema a text", {"schema": "1"}, "has schema 1; this version|no ropewalk results"),
        ("rows a mapping", {"rows": {}}, "no usable 'rows'"),
        ("rows null", {"rows": None}, "no usable 'rows'"),
        ("rows of numbers", {"rows": [1]}, "a row that is not a mapping"),
        ("model a text", {"model": "m"}, "no usable 'model'"),
        ("protocol a list", {"protocol": []}, "no usable 'protocol'"),
        ("data a mapping", {"data": {}}, "no usable 'data'"),
        ("summary null", {"summary": None}, "no usable 'summary'"),
        ("provenance a text", {"provenance": "here"}, "no usable 'provenance'"),
        ("evaluation a number", {"evaluation": 3}, "no usable 'evaluation'"),
        ("number beyond all", {"model": {"window": 10**30}}, "beyond 2\\^64"),
        (
            "number of infinity",
            {"model": {"window": "x"}, "summary": {"k_max": "far"}},
            "k_max of its summary is 'far'",
        ),
    ]
    for name, change, says in keys:
        found.append(Lie(f"results: {name}", one, says, lambda w, c=change: w.edit("results/one.json", **c)))
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("perplexity missing", {"perplexity": None}, "has no number 'perplexity'"),
        ("perplexity a text", {"perplexity": "9.1"}, "perplexity of its row 1 is '9.1'"),
        ("perplexity true", {"perplexity": True}, "perplexity of its row 1 is 'True'"),
        ("perplexity a list", {"perplexity": [9]}, "perplexity of its row 1"),
        ("perplexity of 1e306", {"perplexity": 1e306}, "perplexity of its row 1"),
        ("interval a text", {"low": "8"}, "low of its row 1 is '8'"),
        ("interval a list", {"high": [8]}, "high of its row 1"),
        ("count a text", {"n": "many"}, "n of its row 1 is 'many'"),
        ("context a list", {"context": [1]}, "context of its row 1"),
        ("context missing", {"context": None}, "has no number 'context'"),
    ]
    for name, change, says in rows:

        def make(world: World, change: dict[str, Any] = change) -> None:
            good = readers.results()[0]
            world.json("results/one.json", {**good, "rows": [{**good["rows"][0], **change}, good["rows"][1]]})

        found.append(Lie(f"results: {name}", one, says, make))
    return [
        *found,
        Lie("results missing", "report nowhere --out o", "no results at nowhere"),
        Lie("no results below", "report m --out o", "no results files below m"),
        Lie("report into a file", "report results --out t.txt", "output t.txt is a file"),
        Lie("report over a model", "report results --out m", "was not made by ropewalk"),
        Lie("report every no seconds", REPORT + " --watch --every 0", "below 1 second"),
    ]
