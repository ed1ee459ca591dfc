"""`ropewalk sweep`: methods × factors without training, on one loaded model, ranked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..console import say, table
from ..errors import UserError
from ..files import fingerprint, locked
from ..results.result_file import replaced, require_same, safe
from ..settings import option, tokens, verb

EXAMPLE = """ropewalk sweep path/to/model --to 32k --data books.parquet
  ropewalk sweep embedded --to 2k --data stdlib-heldout --factors 2 4 8"""


@dataclass(frozen=True)
class Sweep:
    """Compare methods and factors without any training: perplexity by position, and passkeys.

    The model is loaded once; only its rotary tables are exchanged. Each figure is the one that an extended
    checkpoint of that method and factor gives. The same command again does nothing.
    """

    model: str = option(
        help="checkpoint directory, Hub id, GGUF file, 'embedded' or 'smollm2'", positional=True
    )
    to: int = option(help="target window L', tokens (32k = 32,768)", parse=tokens)
    data: tuple[str, ...] = option(help="texts with documents of at least L' tokens")
    methods: tuple[Literal["none", "linear", "ntk", "dynamic", "yarn", "llama3"], ...] = option(
        (), help="methods to compare (default: none linear ntk dynamic yarn, those that the model can have)"
    )
    factors: tuple[float, ...] = option((), help="factors of each method (default: L'/L alone)")
    passkey: bool = option(True, help="also look for passkeys at L, 2L, 4L ... L' tokens")
    keys: int = option(10, help="passkeys at each length")
    windows: int = option(8, help="read at most so many windows of L' tokens")
    column: str | None = option(None, help="text column of JSON and Parquet files (default: found)")
    seed: int = option(0, help="seed of keys and bootstrap")
    device: str = option("auto", help="cpu, cuda, cuda:1 ... (default: a GPU where there is one)")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option(
        "auto", help="of the weights (default: bfloat16 on a GPU, float32 on the CPU)"
    )
    out: Path = option(Path("results"), help="directory of the results file")
    name: str | None = option(None, help="what results call the model (default: its directory's name)")
    overwrite: bool = option(False, help="replace the results of another model or other texts in --out")


@verb(Sweep)
def sweep(settings: Sweep) -> dict[str, Any]:
    """Measure what is not measured yet and rank it.

    Returns {"results": [path], "ranking": [{"rank", "label", "method", "factor", "perplexity", ...}]}.
    Raises UserError before any weights are loaded when a setting, the model or a text cannot be used.
    """
    from ..evals import sweep as work
    from ..model.convert import checkpoint_beside
    from ..model.device import choose_device, device_name
    from ..model.load import model_block, read_config
    from ..model.source import resolve
    from ..results.record import provenance

    if settings.passkey and settings.keys < 1:
        raise UserError(f"keys is {settings.keys}; give 1 or more, or --no-passkey")
    source = resolve(settings.model)
    path = checkpoint_beside(source, settings.out)
    block = model_block(path, settings.name or source.name)
    chosen = work.SweepSettings(
        to=settings.to,
        sources=settings.data,
        methods=settings.methods,
        factors=settings.factors,
        windows=settings.windows,
        keys=settings.keys if settings.passkey else 0,
        column=settings.column,
        seed=settings.seed,
    )
    work.candidates(read_config(path), chosen)
    device, dtype = choose_device(settings.device, settings.dtype)
    versions = provenance(device=device_name(device), dtype=dtype, seed=settings.seed)
    file = settings.out / f"{safe(block['name'])}.sweep.{settings.to}.json"
    inputs: dict[str, Any] = {
        "evaluation": work.NAME,
        "model": block,
        "settings": dataclasses.asdict(chosen),
        "data": work.data(chosen),
        "method": work.METHOD,
        "versions": {key: value for key, value in versions.items() if key != "commit"},
    }
    with locked(file):
        if not settings.overwrite:
            require_same(file, block, inputs["data"], "another --out or --name")
        result = _result(path, device, chosen, file, inputs, versions)
    show(result)
    return {"results": [str(file)], "ranking": result["summary"]["ranking"]}


def _result(
    path: Path, device: str, chosen: Any, file: Path, inputs: dict[str, Any], versions: dict[str, Any]
) -> dict[str, Any]:
    """The result that is there for the same inputs, or a new one; a killed run goes on where it stopped."""
    from ..evals import sweep as work
    from ..model.lm import TransformersLM
    from ..model.load import read_config
    from ..results.cells import Cells, drop_cells
    from ..results.record import read_result, write_result

    mark = fingerprint(inputs)
    try:
        there = read_result(file) if file.exists() else None
    except UserError as error:
        say(f"{file} is replaced: {error}")
        there = None
    if there is not None and there["provenance"].get("inputs") == mark:
        say(f"{file.name}: already done for the same model, data and settings")
        drop_cells(file.with_name(f".{file.stem}.cells"))  # left by a kill behind the result's writing
        return there
    block = inputs["model"]
    if there is not None:
        say(f"{file.name}: {replaced(there, block, inputs['versions'])}")
    say(f"sweep of {block['name']} to {chosen.to:,} tokens on {versions['device']}, {versions['dtype']}")
    cells = Cells(file.with_name(f".{file.stem}.cells"), inputs)
    lm = TransformersLM(path, device, versions["dtype"], name=block["name"], compiled=False)
    found = work.run(lm, chosen, cells, read_config(path))
    result = {
        "evaluation": work.NAME,
        "model": block,
        **found,
        "provenance": {**versions, "inputs": mark},
    }
    write_result(file, result)
    cells.remove()
    say(f"written to {file}")
    return result


def show(result: dict[str, Any]) -> None:
    """Print the ranked table: perplexity by position, and passkeys by length, one line a candidate."""
    summary = result["summary"]
    places = list(dict.fromkeys((r["from"], r["to"]) for r in result["rows"] if "from" in r))
    lengths = list(dict.fromkeys(r["length"] for r in result["rows"] if "length" in r))
    lines = []
    for one in summary["ranking"]:
        mine = [r for r in result["rows"] if (r["method"], r["factor"]) == (one["method"], one["factor"])]
        by_place = {(r["from"], r["to"]): r["perplexity"] for r in mine if "from" in r}
        by_length = {r["length"]: f"{r['right']}/{r['n']}" for r in mine if "length" in r}
        lines.append(
            [
                one["label"],
                _figure(one["perplexity"]),
                *(_figure(by_place[place]) for place in places),
                *(by_length[length] for length in lengths),
            ]
        )
    ends = [f"{_short(a)}-{_short(b)}" for a, b in places]
    columns = ["best first", "all", *ends, *(f"keys\n{_short(n)}" for n in lengths)]
    title = f"{result['model']['name']} to {summary['target']:,} tokens, untrained: perplexity by position"
    table(title, columns, lines)


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _short(number: int) -> str:
    return f"{number // 1024}k" if number and number % 1024 == 0 else str(number)
