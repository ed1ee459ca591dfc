"""Faults planted in a copy of the sources are caught by the tests that are named with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import FAULTS, ROOT, SOURCE, Fault, caught_by

FIGURES = ROOT / "docs" / "results" / "reliability" / "mutations.json"
SUBJECTS = {"windows", "scoring", "intervals", "scaling", "packing", "training", "resume", "export", "report"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_what_a_fault_replaces_stands_exactly_once_in_its_file(fault: Fault) -> None:
    assert (SOURCE / fault.file).read_text(encoding="utf-8").count(fault.old) == 1
    assert fault.old != fault.new
    for word in fault.tests.split():
        assert not word.startswith("tests/") or (ROOT / word).is_file(), word


def test_there_are_enough_faults_of_every_subject() -> None:
    assert len(FAULTS) >= 25
    assert {fault.subject for fault in FAULTS} >= SUBJECTS
    assert len({fault.what for fault in FAULTS}) == len(FAULTS)


@pytest.mark.faults
def test_every_planted_fault_is_caught(tmp_path: Path) -> None:
    from mutations import table

    from ropewalk.files import to_json, write_atomic

    rows = table()
    write_atomic(FIGURES, to_json({"rows": rows}))
    assert [row["what"] for row in rows if row["caught"] is None] == []


@pytest.mark.faults
def test_what_changes_nothing_is_not_caught() -> None:
    """The table can say no: a fault that is none survives."""
    same = Fault("none", "a comment", "metrics/retrieval.py", "    best = 0\n", "    best = 0  # none\n",
                 "tests/metrics/test_perplexity_metrics.py")  # fmt: skip
    assert caught_by(same) is None
