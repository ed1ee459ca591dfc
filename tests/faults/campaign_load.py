"""A document of 100 million tokens in constant memory, and a report of 10,000 results files in a minute.

    python tests/faults/campaign_load.py --out load.json

Each size is measured in a process of its own: its peak resident memory above that of the same process before
it began. The language model is a fake that believes every word equally likely, so that the perplexity must be
its vocabulary; all else (reading, tokenising word by word, windows, cells on the disk) is what really runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from conditions import conditions, one_thread, tell

VOCABULARY = 1000
CONTEXT, STRIDE = 1024, 256
WINDOW = 8192


def words(path: Path, count: int) -> Path:
    """A text file of ``count`` words in lines of ten, about five bytes a word."""
    dice = random.Random(count)
    lines = [" ".join(f"w{dice.randrange(VOCABULARY)}" for _ in range(10)) + "\n" for _ in range(997)]
    with open(path, "w") as stream:
        for i in range(count // 10):
            stream.write(lines[i * 7 % 997])
    return path


def encode(text: str) -> list[int]:
    """One id a word."""
    return [int(word[1:] or 0) for word in text.split()]


class EvenModel:
    """Every word is equally likely."""

    name, window, bos, vocab, device, dtype = "even", CONTEXT, None, VOCABULARY, "cpu", "float32"

    def encode(self, text: str) -> list[int]:
        return encode(text)

    def log_probs(self, windows: Any, scored: int) -> Any:
        import math

        import torch

        return torch.full((len(windows), scored), -math.log(VOCABULARY))


def perplexity(path: Path) -> dict[str, Any]:
    """The file as one document in sliding windows."""
    from ropewalk.evals.perplexity import PerplexitySettings, run
    from ropewalk.results.cells import Cells

    settings = PerplexitySettings("text", (str(path),), (CONTEXT,), STRIDE)
    cells = Cells(path.with_suffix(".cells"), {})
    found = run(EvenModel(), settings, cells)
    cells.remove()
    (row,) = found["rows"]
    return {key: row[key] for key in ("perplexity", "n", "windows", "documents")}


def packing(path: Path) -> dict[str, Any]:
    """One pass over the file in training windows, the place in the data noted as a training does."""
    from ropewalk.data.mixture import Part, open_mixture

    stream, (amount,) = open_mixture([Part((str(path),), 1.0)], encode, WINDOW)
    assert amount.tokens is not None
    count = 0
    while stream.passes < 2:
        assert len(next(stream).ids) == WINDOW
        json.dumps(stream.state())
        count += 1
    return {"windows": count, "tokens": count * WINDOW}


def one(work: str, tokens: int) -> dict[str, Any]:
    """Peak memory of one work on a text of so many tokens, in this process."""
    import torch

    import ropewalk.data.mixture
    import ropewalk.evals.perplexity  # noqa: F401 - what is imported later would count as growth

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="load-") as place:
        path = words(Path(place) / "text.txt", tokens)
        size = path.stat().st_size
        before, began = peak(), time.monotonic()
        found = {"perplexity": perplexity, "packing": packing}[work](path)
        return {
            **found,
            "tokens_of_the_text": tokens,
            "bytes_of_the_text": size,
            "peak_mb": round(peak()),
            "grown_mb": round(peak() - before),
            "seconds": round(time.monotonic() - began, 1),
        }


def peak() -> float:
    """The most memory that this process had resident, MB (10^6 bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def results_folder(place: Path, count: int) -> Path:
    """``count`` results files, ten evaluations each of many models, all as the verbs write them."""
    spec = importlib.util.spec_from_file_location(
        "fake_results", Path(__file__).parent.parent / "results" / "fake_results.py"
    )
    assert spec is not None and spec.loader is not None
    fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    made: list[dict[str, Any]] = []
    turn = 0
    while len(made) < count:
        names = {"original": "base-512", "direct": f"direct-{turn}", "tuned": f"pi-{turn}"}
        made += fake.everything(names) if turn == 0 else fake.everything(names)[7:]
        turn += 1
    return fake.save(made[:count], place / "results")


def report(count: int) -> dict[str, Any]:
    """Seconds and memory of a report over ``count`` results files."""
    from ropewalk.verbs.report import report as make

    with tempfile.TemporaryDirectory(prefix="load-") as place:
        folder = results_folder(Path(place), count)
        began, used = time.monotonic(), time.process_time()
        found = make(results=(str(folder),), out=Path(place) / "report")
        seconds, used = time.monotonic() - began, time.process_time() - used
        page = (Path(place) / "report" / "report.html").stat().st_size
    return {
        "files": found["files"],
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "peak_mb": round(peak()),
        "page_mb": round(page / 1e6, 1),
    }


def apart(*arguments: str) -> dict[str, Any]:
    """What a process of its own measures."""
    run = subprocess.run(
        [sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


def campaign(sizes: list[int], files: list[int]) -> dict[str, Any]:
    """All figures; "problems" is empty when memory does not grow with the text and the report is in time."""
    known = conditions()
    found: dict[str, Any] = {"conditions": known, "problems": []}
    for work in ("perplexity", "packing"):
        found[work] = [apart("--one", work, str(size)) for size in sizes]
        first, last = found[work][0]["peak_mb"], found[work][-1]["peak_mb"]
        print(f"{work}: peak {first} -> {last} MB", file=sys.stderr, flush=True)
        if last > 1.5 * first:
            found["problems"].append(f"{work}: {last} MB at {sizes[-1]:,} tokens, {first} at {sizes[0]:,}")
    for row in found["perplexity"]:
        if abs(row["perplexity"] - VOCABULARY) > 0.01 or row["n"] != row["tokens_of_the_text"] - 1:
            found["problems"].append(f"perplexity is not the vocabulary's over all tokens: {row}")
    found["report"] = [apart("--report", str(count)) for count in files]
    for row in found["report"]:
        if row["files"] >= 10_000 and row["processor_seconds"] > 60:
            found["problems"].append(f"a report of {row['files']:,} files took {row['processor_seconds']} s")
    return found


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--files", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    one_thread()
    if asked.one:
        print(json.dumps(one(asked.one[0], int(asked.one[1]))))
        return 0
    if asked.report:
        print(json.dumps(report(asked.report)))
        return 0
    found = campaign(asked.tokens, asked.files)
    tell(found, asked.out)
    return int(bool(found["problems"]))


if __name__ == "__main__":
    sys.exit(main())
