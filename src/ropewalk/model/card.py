"""README.md of a checkpoint that ropewalk made: a model card in the Hub's format.

Everything in it is read from the checkpoint's own record and config; nothing is said that no file says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..files import RECORD, read_record, write_atomic
from .checkpoint import read_json
from .config import read_state
from .engines import in_words, views
from .load import read_config
from .source import Source

CARD = "README.md"
LOG = "training.json"
"""The results file of a fine-tuning, in its checkpoint."""
METHODS = {
    "linear": "Position Interpolation (position m is read as m / factor; Chen et al. 2023, arXiv:2306.15595)",
    "ntk": "a larger rotary base (NTK-aware scaling)",
    "none": "a raised window without any scaling",
    "yarn": "YaRN (Peng et al. 2023, arXiv:2309.00071)",
    "dynamic": "dynamic NTK scaling",
    "llama3": "Llama 3's scaling by parts",
    "longrope": "LongRoPE's table of divisors",
}
TAGS = ("rope", "long-context", "ropewalk")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def front_matter(directory: Path) -> dict[str, Any]:
    """The YAML in front of a directory's model card; {} where there is none that can be read."""
    import yaml

    try:
        text = (directory / CARD).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        found = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def origin(source: Source) -> dict[str, Any]:
    """What the card of a model made from ``source`` says about it: base_model, license, language, as known.

    A checkpoint that ropewalk made hands on what it was made from; a Hub model is the base itself.
    """
    if source.kind == "gguf":
        return _gguf_origin(source.path)
    known = front_matter(source.path)
    found = {
        key: known[key] for key in ("license", "license_name", "license_link", "language") if known.get(key)
    }
    if read_record(source.path) is not None:
        if known.get("base_model"):
            found["base_model"] = known["base_model"]
    elif HUB_ID.fullmatch(source.name):
        found["base_model"] = source.name
    return found


def write_card(place: Path, record: dict[str, Any], known: dict[str, Any]) -> None:
    """Write the card of the finished checkpoint (or directory with a GGUF file) ``place``.

    record: its ropewalk.json.   known: `origin` of what it was made from.
    """
    write_atomic(place / CARD, card(place, record, known))


def card(place: Path, record: dict[str, Any], known: dict[str, Any]) -> str:
    """The text of the card: front matter, what was done, data, settings, how to serve it."""
    import yaml

    block = record["model"]
    interpolated = ("position-interpolation",) if block.get("method") == "linear" else ()
    gguf = sorted(place.glob("*.gguf"))
    head = {
        "library_name": "gguf" if gguf else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*TAGS, *interpolated],
        **known,
        **({"base_model_relation": "quantized" if gguf else "finetune"} if known.get("base_model") else {}),
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---",
        f"# {_plain(block['name'])}",
        _summary(block, record),
        "## What was done\n\n" + "\n".join(f"- {line}" for line in _deeds(record)),
        *_data(place, record),
        *_results(place),
        "## Serving it\n\n" + _serving(place, block, gguf),
        "## Settings\n\n```yaml\n" + _settings(record) + "```",
        f"Made by ropewalk; `{RECORD}` beside this card is the complete record.",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(block: dict[str, Any], record: dict[str, Any]) -> str:
    window, old = int(block["window"]), int(block["original_window"])
    text = f"A language model of {int(block['parameters']):,} parameters with a window of {window:,} tokens"
    if old == window:
        return text + "."
    text += (
        f", lengthened from {old:,} (×{window / old:g}) by {METHODS.get(block['method'], block['method'])}."
    )
    reached = int((block.get("trained") or {}).get("window") or 0)
    if reached < window:
        text += "\n\n**It has not been trained at this window**"
        text += f", only up to {reached:,} tokens" if reached else ""
        text += ". A short fine-tuning lets it read its new positions well: `ropewalk finetune`."
    return text


def passages_in_words(start: float, end: float | None) -> str:
    """How many passages came back in a training's windows.

    >>> passages_in_words(0.5, 2.0)
    '0.5 (at the end 2) passages for every 256 tokens'
    """
    return f"{start:g}{'' if end is None else f' (at the end {end:g})'} passages for every 256 tokens"


def shares_in_words(start: float, end: float | None) -> str:
    """A share of a training's windows, and where it has come by the end.

    >>> shares_in_words(1.0, 0.0)
    '100% (at the end 0%)'
    """
    return f"{start:.0%}{'' if end is None else f' (at the end {end:.0%})'}"


def _deeds(record: dict[str, Any]) -> list[str]:
    """One line a thing done, in order."""
    block, settings = record["model"], record.get("settings") or {}
    trained = block.get("trained") or {}
    source = _plain((record.get("from") or {}).get("name") or "the model it was made from")
    if record["verb"] == "finetune":
        earlier = f" after {trained['steps_before']:,} before" if trained.get("steps_before") else ""
        way = "low-rank adapters (merged into the weights)" if trained.get("lora") else "the weights"
        way = "a choice of the weights" if settings.get("only") else way
        start, end = trained.get("repeats", 0.0), trained.get("repeats_end")
        again = f" {passages_in_words(start, end)} came back later in their window." if start or end else ""
        mean = (
            f" The weights are the mean over the last {trained['average']:.0%} of the steps."
            if trained.get("average")
            else ""
        )
        share, last = settings.get("short_share") or 0.0, settings.get("short_share_end")
        short = f" {shares_in_words(share, last)} of its windows had the old length." if share or last else ""
        return [
            f"Started from {source}; the config, and with it the positions, is unchanged.",
            f"Trained {way} on next tokens: {trained['steps']:,} steps{earlier}, "
            f"{trained['tokens']:,} tokens, positions up to {trained['window']:,}, "
            f"peak learning rate {trained['rate']:g}.{mean}{short}{again}",
        ]
    if record["verb"] == "export":
        return _exported(record, source)
    lines = [f"Started from {source}, weights unchanged; only the config says how positions are read."]
    if trained:
        lines.append(f"{source} itself had been trained for {trained['steps']:,} steps by ropewalk.")
    return lines


def _exported(record: dict[str, Any], source: str) -> list[str]:
    lines = []
    if record.get("adapter"):
        lines.append(
            f"Merged the adapter {_plain(record['adapter'])} into {source}, in float32, rounded once."
        )
    if record.get("gguf"):
        lines.append(
            f"Written from {source} as GGUF, matrices in {record['gguf']['type']}, with its rope keys."
        )
    return lines


def _data(place: Path, record: dict[str, Any]) -> list[str]:
    """What it was trained on, where it was; with hashes where the training's own log lies beside."""
    names = (record["model"].get("trained") or {}).get("data") or []
    if not names:
        return []
    log = read_json(place / LOG)["data"] if (place / LOG).is_file() else []
    marks = {one["name"]: f" (SHA-256 {one['sha256'][:16]}…)" for one in log if one.get("sha256")}
    return ["## Training data\n\n" + "\n".join(f"- {_plain(name)}{marks.get(name, '')}" for name in names)]


def _results(place: Path) -> list[str]:
    """Figures that lie in the directory itself; no figure, no section."""
    file = place / LOG
    if not file.is_file():
        return []
    log = read_json(file)
    loss, conditions = log["summary"]["loss_last_tenth"], log["provenance"]
    return [
        "## Results\n\n"
        f"Mean training loss of the last tenth of the steps: {loss:.4f} nats a token "
        f"({conditions['device']}, {conditions['dtype']}, seed {conditions['seed']}). "
        "This is the loss on the training data, not an evaluation."
    ]


def _serving(place: Path, block: dict[str, Any], gguf: list[Path]) -> str:
    """Commands with which each engine reads the whole window."""
    window = int(block["window"])
    if gguf:
        return f"```sh\nllama-server -m {gguf[0].name} -c {window}   # rope keys are read from the file\n```"
    config = read_config(place)
    flags = {view.engine: view for view in views(config)}
    name = _word(str(block["name"]))
    lines = [
        f"vllm serve ./{name} {flags['vLLM'].flag}".rstrip(),
        f"python -m sglang.launch_server --model-path ./{name} {flags['SGLang'].flag}".rstrip(),
    ]
    llama = flags["llama.cpp"]
    if "not converted" not in llama.scaling:
        lines += [
            f"ropewalk export ./{name} {name}-gguf --gguf   # or llama.cpp's convert_hf_to_gguf.py",
            f"llama-server -m {name}-gguf/*.gguf -c {window}",
        ]
    text = (
        "transformers reads the scaling from `config.json` by itself "
        f"({in_words(read_state(config).parameters)}).\n\n```sh\n" + "\n".join(lines) + "\n```"
    )
    if "not converted" in llama.scaling:
        text += f"\n\nllama.cpp cannot serve it: {llama.scaling}."
    return text


def _settings(record: dict[str, Any]) -> str:
    import yaml

    chosen = {
        key: _local(value) for key, value in (record.get("settings") or {}).items() if value not in (None, [])
    }
    text: str = yaml.safe_dump({record["verb"]: chosen}, sort_keys=False, allow_unicode=True)
    return text.replace("```", "'''")


def _local(value: Any) -> Any:
    """A setting without the directories of the machine it was made on: cards are published."""
    if isinstance(value, list):
        return [_local(one) for one in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _gguf_origin(path: Path) -> dict[str, Any]:
    """Base model and license as a GGUF file names them."""
    from .gguf_in import read_gguf

    meta = read_gguf(path).meta
    found: dict[str, Any] = {}
    match = re.fullmatch(
        r"https://huggingface\.co/([\w.-]+/[\w.-]+)", str(meta.get("general.base_model.0.repo_url"))
    )
    if match:
        found["base_model"] = match[1]
    if isinstance(meta.get("general.license"), str):
        found["license"] = meta["general.license"]
    return found


def _plain(text: Any) -> str:
    """A name as Markdown shows it: nothing in it starts a heading, a link or a tag."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", line)


def _word(name: str) -> str:
    """A name as one word of a shell command."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2]).strip("-") or "model"
