"""Other processes beside it, another order, other seeds around it: the same inputs give the same bytes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conditions import conditions
from tiny_recipe import make_files
from trees import contents, differences

from ropewalk.cli import main

CPU = "--device cpu"
SMALL = "--set passkey.distances=3 passkey.runs=2"
BOOKS = "books=IN/texts/test.jsonl"
TRAIN = "--data IN/texts/train.jsonl --steps 4 --batch 2 --rate 1e-2"
WORK = {
    "perplexity": f"evaluate IN/model --perplexity {BOOKS} --contexts 128 --stride 64 {CPU}",
    "passkey": f"evaluate IN/model --passkey {SMALL} {CPU}",
    "position": f"evaluate IN/model --position-loss {BOOKS} {CPU}",
    "training": f"finetune IN/model OUT/tuned {TRAIN} {CPU}",
}
TOGETHER = (
    f"evaluate IN/model --passkey --position-loss {BOOKS} --perplexity {BOOKS} --contexts 128 --stride 64 "
    f"{SMALL} {CPU}"
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("beside")
    make_files(root)
    return root


def words(line: str, root: Path) -> list[str]:
    line = line if line.startswith("finetune") else f"{line} --out OUT/results"
    return line.replace("IN/", f"{root}/").replace("OUT/", f"{root}/out/").split()


@pytest.fixture(scope="module")
def alone(inputs) -> dict[str, bytes]:
    """What the works leave, done one after the other."""
    for line in WORK.values():
        assert main(words(line, inputs)) == 0
    found = contents(inputs / "out")
    shutil.rmtree(inputs / "out")
    return found


def test_neither_the_order_nor_the_seeds_of_the_process_change_a_result(inputs, alone):
    import torch

    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    torch.rand(5)
    assert main(words(WORK["training"], inputs)) == 0
    assert main(words(TOGETHER, inputs)) == 0
    assert differences(contents(inputs / "out"), alone) == []
    shutil.rmtree(inputs / "out")


def _without_commit(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Results without the commit of the source, which may change while processes start."""
    return {name: re.sub(rb'"commit": [^\n]*', b"", data) for name, data in tree.items()}


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_processes_side_by_side_with_other_hash_seeds_leave_the_same_bytes(inputs, alone, tmp_path):
    """All works at once in one folder, five times, each time under other seeds of Python's hashes."""
    rounds = 5
    for turn in range(rounds):
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "ropewalk", *words(line, inputs)],
                env={
                    **os.environ,
                    "OMP_NUM_THREADS": str(os.cpu_count()),
                    "PYTHONHASHSEED": str(turn * 10 + i),
                },
                stdout=subprocess.DEVNULL,
            )
            for i, line in enumerate(WORK.values())
        ]
        assert [one.wait() for one in running] == [0] * len(WORK)
        found = contents(inputs / "out")
        assert differences(*(_without_commit(one) for one in (found, alone))) == [], turn
        shutil.rmtree(inputs / "out")
    out = Path(os.environ.get("ROPEWALK_FAULTS_OUT", tmp_path)) / "concurrency.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "rounds": rounds,
        "processes_at_once": len(WORK),
        "works": sorted(WORK),
        "files_compared": len(alone),
        "differences": 0,
        "conditions": {**conditions(), "threads": os.cpu_count()},
    }
    out.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
