"""Fuzz one reader for a time: coverage-guided by atheris where it is installed, else by hypothesis.

    python tests/faults/fuzz.py config --seconds 600 --record docs/results/reliability/fuzzing.json

A crash, a hang (60 s an input) or more than 1.5 GB beyond the start ends it with exit code 1 and the input in
``crash-*`` (or the shown example).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

HANG = 60
"""Seconds by the clock after which one input counts as a hang; a busy machine needs some for a figure."""
MEMORY = 1500
"""Megabytes beyond the start after which one input counts as a memory blow-up."""
INSTRUMENTED = ["ropewalk", "gguf.gguf_reader", "yaml"]


def guided(name: str, corpus: Path, options: list[str]) -> None:
    """Run atheris in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        import readers

        readers.warm(name)

    def one(data: bytes) -> None:
        readers.survives(name, data)

    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    limit_memory()
    atheris.Fuzz()


def limit_memory() -> None:
    """No more than MEMORY beyond what is mapped now: an input that wants more raises MemoryError."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (MEMORY << 20), resource.RLIM_INFINITY))


def unguided(name: str, seconds: float) -> int:
    """Random bytes and edits by hypothesis until the time is over; the number of inputs."""
    import readers
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    count = 0
    end = time.monotonic() + seconds

    @settings(max_examples=2000, deadline=HANG * 1000, suppress_health_check=list(HealthCheck), database=None)
    @given(st.binary(max_size=200) | st.sampled_from(readers.seeds(name)))
    def round_of(data: bytes) -> None:
        nonlocal count
        count += 1
        if time.monotonic() < end:
            readers.survives(name, data)

    while time.monotonic() < end:
        round_of()
    return count


def campaign(name: str, seconds: int, keep: Path | None = None) -> dict[str, object]:
    """Fuzz for so long in a process of its own; what it did. Raises AssertionError on a finding."""
    started = time.monotonic()
    try:
        engine = f"atheris {importlib.metadata.version('atheris')}"
    except importlib.metadata.PackageNotFoundError:
        executions = unguided(name, seconds)
        version = importlib.metadata.version("hypothesis")
        return _record(name, f"hypothesis {version}", executions, time.monotonic() - started, None)
    with tempfile.TemporaryDirectory(prefix="ropewalk-fuzz-") as place:
        corpus = keep or Path(place) / "corpus"
        corpus.mkdir(exist_ok=True, parents=True)
        import readers

        for number, seed in enumerate(readers.seeds(name)):
            (corpus / f"seed-{number}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", f"-timeout={HANG}", "-rss_limit_mb=0", "-max_len=4096"]
        options += ["-print_final_stats=1", f"-artifact_prefix={place}/", "-verbosity=1"]
        done = subprocess.run(
            [sys.executable, __file__, name, "--inside", str(corpus), *options],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode != 0:
            crashes = [path.read_bytes().hex() for path in Path(place).glob("*-*") if path.is_file()]
            raise AssertionError(
                f"{name}: {done.stdout[-500:]}\n{done.stderr[-6000:]}\ninput (hex): {crashes}"
            )
        executions = int(re.findall(r"number_of_executed_units: (\d+)", done.stderr)[-1])
        covered = [int(n) for n in re.findall(r"cov: (\d+)", done.stderr)]
    return _record(name, engine, executions, time.monotonic() - started, covered[-1] if covered else None)


def _record(
    name: str, engine: str, executions: int, seconds: float, covered: int | None
) -> dict[str, object]:
    return {
        "reader": name,
        "engine": engine,
        "executions": executions,
        "seconds": round(seconds),
        "covered": covered,
        "crashes": 0,
        "hangs": 0,
        "hang_limit_seconds": HANG,
        "memory_limit_mb": MEMORY,
        "python": platform.python_version(),
    }


def save(file: Path, row: dict[str, object]) -> None:
    """Put a reader's row into the table of figures."""
    from ropewalk.files import to_json, write_atomic

    table = json.loads(file.read_text()) if file.exists() else {"rows": []}
    table["rows"] = sorted(
        [one for one in table["rows"] if one["reader"] != row["reader"]] + [row],
        key=lambda one: one["reader"],
    )
    write_atomic(file, to_json(table))


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("reader", choices=["config", "gguf", "recipe", "results"])
    asked.add_argument("--seconds", type=int, default=600)
    asked.add_argument("--record", type=Path, help="file of figures to put the row into")
    asked.add_argument("--corpus", type=Path, help="directory that keeps the inputs found")
    asked.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    known, options = asked.parse_known_args()
    if known.inside is not None:
        guided(known.reader, known.inside, options)
        return 0
    try:
        row = campaign(known.reader, known.seconds, known.corpus)
    except AssertionError as finding:
        print(finding)
        return 1
    print(json.dumps(row))
    if known.record is not None:
        save(known.record, row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
