"""`ropewalk evaluate`: chosen evaluations of one checkpoint, one results file each.

Every evaluation is a module of `ropewalk.evals` with ``NAME``, a frozen settings class, ``data(settings)``
and ``run(lm, settings, cells)``. The table `EVALUATIONS` says which of them the flags ask for; all else
here (what is done already, resuming, the results file) is the same for each.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..board import published
from ..console import say
from ..errors import UserError
from ..files import fingerprint, from_yaml, locked
from ..results.repeat import command, text_words
from ..results.result_file import replaced, require_same, safe, show
from ..settings import from_mapping, option, tokens, verb

if TYPE_CHECKING:
    from ..model.source import Source

EXAMPLE = """ropewalk evaluate longer-model --perplexity books=test.parquet --passkey --out results
  ropewalk evaluate original-model --passkey --target 32k --out results
  ropewalk evaluate model --benchmark --set 'benchmark.files=[piqa=piqa.parquet, boolq=boolq.parquet]'"""


@dataclass(frozen=True)
class Evaluate:
    """Measure a checkpoint: perplexity by context size, passkey retrieval and more, each with intervals.

    One results file is written for each evaluation. The same command again does nothing when nothing
    changed, and goes on where it stopped when it was interrupted.
    """

    model: str = option(help="checkpoint directory, Hub id, 'embedded'", positional=True)
    perplexity: tuple[str, ...] = option(
        (), help="sliding-window perplexity on these texts; NAME=FILE begins a group with its own results"
    )
    passkey: bool = option(False, help="passkey retrieval at 32 distances, 10 keys each")
    shared_keys: bool = option(
        False, help="passkey: the same ten keys at every distance, so that prompts are read once (10x faster)"
    )
    passkey_choice: bool = option(
        False, help="passkey: is the key likelier than nine others? tells what is read from what is answered"
    )
    passkey_grid: bool = option(False, help="passkey retrieval by length and depth (heat map)")
    position_loss: tuple[str, ...] = option((), help="loss by position in the window on these texts")
    benchmark: bool = option(False, help="BoolQ, PIQA, RACE, WinoGrande zero-shot, or your own (--set)")
    ruler: bool = option(False, help="RULER's synthetic tasks by length")
    attention: tuple[str, ...] = option(
        (), help="attention scores of real heads by distance, past the trained window, read on these texts"
    )
    summarization: bool = option(False, help="summaries of long documents by ROUGE")
    suite: Literal["paper"] | None = option(
        None, help="paper: perplexity (PG-19 and proof-pile unless given), passkey, benchmark, summarization"
    )
    small: bool = option(False, help="few windows, keys and questions: all in minutes on two cores")
    set: tuple[str, ...] = option(
        (), help="more settings of an evaluation, such as benchmark.limit=100 ruler.samples=5"
    )
    contexts: tuple[int, ...] = option(
        (), help="context sizes, tokens (default: powers of two from 2048 to the window)", parse=tokens
    )
    target: int | None = option(
        None, help="window L' to test up to, also beyond the model's own (default: its window)", parse=tokens
    )
    stride: int = option(256, help="stride S of the sliding window, tokens", parse=tokens)
    protocol: Literal["sliding", "window-mean", "overlap", "truncate"] = option(
        "sliding", help="perplexity protocol; the others are for comparing with other people's figures"
    )
    sample: float | None = option(None, help="read this share of each document's windows, 0 to 1")
    windows: int | None = option(None, help="read at most about so many windows a context size")
    documents: int | None = option(None, help="read the first so many documents that are long enough")
    cut: int | None = option(None, help="cut documents to their first tokens (paper: 32k)", parse=tokens)
    column: str | None = option(None, help="text column of JSON and Parquet files (default: found)")
    seed: int = option(0, help="seed of keys, samples and bootstrap")
    device: str = option(
        "auto", help="cpu, cuda, cuda:1, or cuda:all for every GPU (default: a GPU where there is one)"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="of the weights (default: bfloat16 on a GPU, float32 on the CPU)"
    )
    compile: bool | None = option(
        None, help="torch.compile the layers for perplexity (default: on a GPU, when there is enough to do)"
    )
    out: str = option("results", help="directory of the results files")
    name: str | None = option(None, help="what results call the model (default: its directory's name)")
    overwrite: bool = option(False, help="replace the results of another model or other texts in --out")


@dataclass(frozen=True)
class Work:
    """One evaluation to be run: its name, the module that runs it, its settings, a tag for the file name.

    command: what makes its results file again.
    """

    name: str
    module: Any
    settings: Any
    tag: str = ""
    command: str = ""


@dataclass(frozen=True)
class Lengths:
    """The window of the model, the one before it was extended, and the one to test up to; tokens."""

    window: int
    original: int
    target: int


@verb(Evaluate)
def evaluate(settings: Evaluate) -> dict[str, Any]:
    """Run the evaluations that are not done yet.

    Returns {"results": [paths], "summaries": {file: summary}}.
    Raises UserError before any weights are loaded when a setting, a model or a text cannot be used.
    """
    from ..model.convert import checkpoint_beside
    from ..model.device import choose_device
    from ..model.load import model_block
    from ..model.parallel import open_model
    from ..model.source import resolve

    settings = _with_suite(settings)
    source = resolve(settings.model)
    name = settings.name or source.name
    path = checkpoint_beside(source, Path(settings.out))
    block = model_block(path, name)
    device, dtype = choose_device(settings.device, settings.dtype, several=True)
    lengths = Lengths(
        block["window"], block["original_window"] or block["window"], settings.target or block["window"]
    )
    works = [work for plan in EVALUATIONS for work in plan(settings, lengths)]
    works = _changed(_small(works) if settings.small else works, settings.set)
    if not works:
        raise UserError("nothing to evaluate: give --perplexity FILES, --passkey or another (see -h)")
    works = [replace(work, command=_command(settings, work, source, block)) for work in works]
    read = [_checked(work, block) for work in works]
    files = [Path(settings.out) / _file_name(name, work) for work in works]
    if not settings.overwrite:
        for file, work, data in zip(files, works, read):  # all of them before the first one takes its hour
            require_same(file, block, data, _cure(work))
    lm = _Lazy(lambda: open_model(path, device, dtype, name=name, compiled=settings.compile))
    paths, summaries = [], {}
    for file, work, data in zip(files, works, read):
        with locked(file), published(settings.out):
            if not settings.overwrite:
                require_same(file, block, data, _cure(work))  # another process may have written it since
            result = _one(lm, block, work, data, file, (device, dtype, settings.seed))
        paths.append(str(file))
        summaries[file.name] = result["summary"]
    return {"results": paths, "summaries": summaries}


def _file_name(name: str, work: Work) -> str:
    """The name of a results file: model, evaluation, and the group of texts where there are such."""
    return ".".join(filter(None, (safe(name), work.name, work.tag, "json")))


def _command(settings: Evaluate, work: Work, source: Source, block: dict[str, Any]) -> str:
    """The command that makes one results file again; local directories by their names alone."""
    sources, group = getattr(work.settings, "sources", ()), getattr(work.settings, "group", "")
    named = source.kind == "hub" or not Path(settings.model).expanduser().exists()
    model = settings.model if named else Path(settings.model).expanduser().resolve().name
    texts = text_words(group, sources) if sources else ""
    return command(settings, work.name, texts, model, block["name"], block["window"])


def _cure(work: Work) -> str:
    """What gives a work a file of its own."""
    return "another --out or --name, or name the texts (NAME=FILE)" if work.tag else "another --out or --name"


def _with_suite(settings: Evaluate) -> Evaluate:
    """The settings with what a suite asks for."""
    if settings.suite is None:
        return settings
    texts = settings.perplexity or tuple(NAMED)
    return replace(settings, perplexity=texts, passkey=True, benchmark=True, summarization=True)


SMALL: dict[str, dict[str, Any]] = {
    "perplexity": {"most_windows": 24},
    "passkey": {"distances": 8, "runs": 4, "shared_keys": True},
    "passkey-choice": {"distances": 8, "runs": 4, "shared_keys": True},
    "passkey-map": {"lengths": 4, "runs": 3},
    "position-loss": {"most_windows": 8},
    "benchmark": {"limit": 50},
    "ruler": {"samples": 2},
    "summarization": {"limit": 3, "answer": 64},
}
"""What ``--small`` sets where the user has set nothing else: enough to see that all works, not to compare."""


def _small(works: Sequence[Work]) -> list[Work]:
    """The works with the settings of `SMALL` in place of the defaults."""

    def less(settings: Any, wanted: dict[str, Any]) -> Any:
        defaults = {field.name: field.default for field in dataclasses.fields(settings)}
        free = {key: value for key, value in wanted.items() if getattr(settings, key) == defaults[key]}
        return replace(settings, **free)

    return [replace(work, settings=less(work.settings, SMALL.get(work.name, {}))) for work in works]


def _changed(works: list[Work], changes: Sequence[str]) -> list[Work]:
    """The works with the settings of ``--set EVALUATION.SETTING=VALUE``; values are YAML."""
    for change in changes:
        match = re.fullmatch(r"([a-z-]+)\.(\w+)=(.*)", change)
        mine = [work for work in works if match and work.name == match[1]]
        if match is None or not mine:
            known = ", ".join(sorted({work.name for work in works}))
            raise UserError(f"--set {change!r} is not EVALUATION.SETTING=VALUE of one that runs ({known})")
        try:
            value = from_yaml(match[3])
        except ValueError:
            raise UserError(f"--set {change!r}: the value is not YAML") from None
        for work in mine:
            values = {**dataclasses.asdict(work.settings), match[2]: value}
            where = f"--set {change}"
            new = replace(work, settings=from_mapping(type(work.settings), values, where))
            works = [new if one is work else one for one in works]
    return works


def _checked(work: Work, block: dict[str, Any]) -> list[dict[str, Any]]:
    """The "data" blocks of a work. What is wrong with its files or settings is said now, before any runs."""
    from ..data.text import require_readable

    if hasattr(work.module, "check"):
        work.module.check(work.settings, block)
    require_readable(getattr(work.settings, "sources", ()), getattr(work.settings, "column", None))
    return work.module.data(work.settings)


class _Lazy:
    """A language model that is opened when the first evaluation needs it: none does when all is done."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._made = make, None

    def __call__(self) -> Any:
        self._made = self._made or self._make()
        return self._made


def _one(
    open_lm: Callable[[], Any],
    block: dict[str, Any],
    work: Work,
    data: list[dict[str, Any]],
    path: Path,
    conditions: tuple[str, str, int],
) -> dict[str, Any]:
    """The result of one evaluation: the one that is there for the same inputs, or a new one."""
    from ..model.device import device_name
    from ..results.cells import Cells, drop_cells
    from ..results.record import provenance, read_result, write_result

    device, dtype, seed = conditions
    versions = provenance(device=device_name(device), dtype=dtype, seed=seed)
    del versions["commit"]  # a change of the documentation changes no figure
    inputs = {
        "evaluation": work.name,
        "model": block,
        "settings": dataclasses.asdict(work.settings),
        "data": data,
        "versions": versions,
    }
    if hasattr(work.module, "METHOD"):  # what code has changed that gave other results before
        inputs["method"] = work.module.METHOD
    mark = fingerprint(inputs)
    try:
        there = read_result(path) if path.exists() else None
    except UserError as error:
        say(f"{path} is replaced: {error}")
        there = None
    if there is not None and there["provenance"].get("inputs") == mark:
        say(f"{path.name}: already done for the same model, data and settings")
        drop_cells(path.with_name(f".{path.stem}.cells"))  # left by a kill behind the result's writing
        return there
    if there is not None:
        say(f"{path.name}: {replaced(there, block, versions)}")
    say(f"{work.name} of {block['name']} on {versions['device']}, {dtype}")
    cells = Cells(path.with_name(f".{path.stem}.cells"), inputs)
    lm = open_lm()
    found = work.module.run(lm, work.settings, cells)
    more = {"attention": _attention(lm)} if device != "cpu" else {}
    result = {
        "evaluation": work.name,
        "model": block,
        **found,
        "provenance": provenance(
            device=versions["device"], dtype=dtype, seed=seed, inputs=mark, command=work.command, **more
        ),
    }
    write_result(path, result)
    cells.remove()
    show(result)
    say(f"written to {path}")
    return result


NAMED = {
    "pg19": "hub:emozilla/pg19-test:test",
    "proof-pile": "hub:hoskinson-center/proof-pile/test/proofpile_test.jsonl.gz",
}
"""The paper's test sets on the Hub, by name."""


def groups(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Texts by group: ``books=a b math=c`` -> {"books": ("a", "b"), "math": ("c",)}.

    Texts before any ``NAME=`` form a group that has the name of the first of them. Raises UserError for a
    name that cannot be part of a file name. ``pg19`` and ``proof-pile`` stand for the paper's test sets.
    """
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for word in words:
        match = re.match(r"^([^\W_][\w-]*)=(.+)$", word)
        if match and not Path(word).exists():
            name, word = match[1], match[2]
        elif word in NAMED:
            found[word] = (NAMED[word],)
            continue
        elif not name:
            name = safe(Path(word.removeprefix("hub:")).stem) or "text"
        found[name] = (*found.get(name, ()), word)
    return found


def context_sizes(settings: Evaluate, lengths: Lengths) -> tuple[int, ...]:
    """The context sizes asked for, or powers of two from min(2048, L) up to the window (or the target)."""
    sizes = tuple(sorted(set(settings.contexts)))
    if not sizes:
        size = min(2048, lengths.original, lengths.target)
        found = []
        while size < lengths.target:
            found.append(size)
            size *= 2
        sizes = (*found, lengths.target)
    if sizes[-1] > lengths.window:
        say(f"note: contexts up to {sizes[-1]:,} tokens go beyond the model's window of {lengths.window:,}")
    return sizes


def _perplexity(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.perplexity:
        return []
    module = importlib.import_module("ropewalk.evals.perplexity")
    if (settings.sample or settings.windows) and settings.protocol != "sliding":
        raise UserError(f"sample and windows go with protocol sliding, not with {settings.protocol}")
    contexts = context_sizes(settings, lengths)
    works = []
    for group, sources in groups(settings.perplexity).items():
        tag = group if settings.protocol == "sliding" else f"{group}.{settings.protocol}"
        chosen = module.PerplexitySettings(
            group=group,
            sources=sources,
            contexts=contexts,
            stride=settings.stride,
            protocol=settings.protocol,
            sample=settings.sample,
            most_windows=settings.windows,
            **_reading(settings),
        )
        works.append(Work(module.NAME, module, chosen, tag))
    return works


def _position_loss(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.position_loss:
        return []
    module = importlib.import_module("ropewalk.evals.position_loss")
    return [
        Work(
            module.NAME,
            module,
            module.PositionLossSettings(
                group=group,
                sources=sources,
                length=lengths.target,
                most_windows=settings.windows,
                **_reading(settings),
            ),
            group,
        )
        for group, sources in groups(settings.position_loss).items()
    ]


def _reading(settings: Evaluate) -> dict[str, Any]:
    """The settings that say which documents are read."""
    return {name: getattr(settings, name) for name in ("documents", "cut", "column", "seed")}


def _passkey(settings: Evaluate, lengths: Lengths) -> list[Work]:
    asked = {"passkey": settings.passkey, "passkey-choice": settings.passkey_choice}
    works = []
    for name in (name for name, wanted in asked.items() if wanted):
        module = importlib.import_module(f"ropewalk.evals.{name.replace('-', '_')}")
        chosen = module.PasskeySettings(
            target=_target(lengths), seed=settings.seed, shared_keys=settings.shared_keys
        )
        works.append(Work(name, module, chosen))
    return works


def _passkey_grid(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.passkey_grid:
        return []
    module = importlib.import_module("ropewalk.evals.passkey")
    chosen = module.PasskeySettings(target=_target(lengths), seed=settings.seed, grid=True)
    return [Work("passkey-map", module, chosen)]


def _target(lengths: Lengths) -> int:
    if lengths.target > lengths.window:
        say(f"note: testing up to {lengths.target:,} tokens, beyond the model's window of {lengths.window:,}")
    return lengths.target


def _benchmark(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.benchmark:
        return []
    module = importlib.import_module("ropewalk.evals.benchmark")
    return [Work(module.NAME, module, module.BenchmarkSettings())]


def _ruler(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.ruler:
        return []
    module = importlib.import_module("ropewalk.evals.ruler")
    sizes = tuple(sorted(set(settings.contexts)))
    if not sizes and _target(lengths) != lengths.window:  # up to the window RULER counts by itself
        sizes = tuple(module.doubled(lengths.target))
    return [Work(module.NAME, module, module.RulerSettings(lengths=sizes, seed=settings.seed))]


def _attention_scores(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.attention:
        return []
    module = importlib.import_module("ropewalk.evals.attention")
    sources = tuple(word for words in groups(settings.attention).values() for word in words)
    chosen = module.AttentionSettings(
        to=lengths.target, sources=sources, column=settings.column, seed=settings.seed
    )
    return [Work(module.NAME, module, chosen)]


def _summarization(settings: Evaluate, lengths: Lengths) -> list[Work]:
    if not settings.summarization:
        return []
    module = importlib.import_module("ropewalk.evals.summarization")
    old = (lengths.original,) if lengths.original < lengths.target else ()
    chosen = module.SummarizationSettings(window=lengths.target, cut=old, seed=settings.seed)
    return [Work(module.NAME, module, chosen)]


EVALUATIONS: tuple[Callable[[Evaluate, Lengths], list[Work]], ...] = (
    _perplexity,
    _passkey,
    _passkey_grid,
    _position_loss,
    _benchmark,
    _ruler,
    _summarization,
    _attention_scores,
)
"""What the flags can ask for: each entry gives the works that these settings want, or none."""


def _attention(lm: Any) -> str:
    """The attention kernels that ran, by window length, and whether layers were compiled."""
    kernels = ", ".join(f"{name} from {size}" for size, name in sorted(lm.kernels.items())) or "torch"
    return kernels + (", layers compiled" if lm.compiled else "")
