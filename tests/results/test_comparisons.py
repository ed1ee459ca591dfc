"""Sections beyond the paper's tests: what a table's means are over is said with them."""

from __future__ import annotations

import fake_results as fake

from ropewalk.results.collection import collect
from ropewalk.results.comparisons import ruler
from ropewalk.results.style import choose


def section(*results):
    found = collect([(f"{i}.json", one) for i, one in enumerate(results)])
    return ruler(found, choose(found))


def test_a_mean_over_fewer_tasks_is_not_passed_for_one_over_all():
    """At 512 tokens one of two tasks does not fit: the mean there is of the easier one alone."""
    short = fake.ruler(fake.model("longer", "tuned"), 2048)
    short["rows"] = [r for r in short["rows"] if (r["task"], r["length"]) != ("variable_tracking", 512)]
    short["summary"]["left_out"] = [{"task": "variable_tracking", "length": 512, "reason": "too long"}]
    made = section(short)
    (table,) = made.tables
    assert list(table.rows[0][2:]) == [
        "0.900 (n 50, tasks 1)",
        "0.800 (n 100, tasks 2)",
        "0.800 (n 100, tasks 2)",
    ]
    assert table.notes[0].startswith("Mean over those that fit of 2 tasks;")
    assert table.notes[1] == "Left out, as they do not fit (longer): at 512 variable_tracking."
    assert "Not every point is the mean of the same tasks" in made.figures[0].caption


def test_where_every_length_has_all_tasks_nothing_more_is_said():
    made = section(fake.ruler(fake.model("longer", "tuned"), 2048))
    assert made.tables[0].rows[0][2] == "0.800 (n 100)"
    assert made.tables[0].notes == ("Mean over 2 tasks; each task with its interval is in the CSV.",)
