"""A report says under which conditions its numbers stand, and how to get them again."""

from __future__ import annotations

import importlib
import shlex

import fake_results as fake

from ropewalk.results.collection import collect
from ropewalk.results.commands import commands
from ropewalk.results.conditions import conditions
from ropewalk.settings import parse_arguments


def gathered(results):
    return collect([(f"{i}.json", one) for i, one in enumerate(results)])


def test_every_command_is_one_that_the_command_line_takes():
    names = {"original": "base 512; rm -rf /", "direct": "$(direct)", "tuned": "pi'2048"}
    said = commands(gathered(fake.everything(names)))
    verbs = []
    for command in said:
        program, verb, *words = shlex.split(command)
        assert program == "ropewalk"
        module = importlib.import_module(f"ropewalk.verbs.{verb}")
        parse_arguments(getattr(module, verb).settings, words, verb, module.EXAMPLE)
        verbs.append(verb)
    assert verbs == ["evaluate", *["extend", "finetune", "evaluate"] * 2, "report"]


def test_commands_recorded_with_the_results_go_first():
    found = fake.everything()[:2]
    for one in found:
        one["provenance"]["command"] = "ropewalk run recipe.yaml"
    assert commands(gathered(found)) == ["ropewalk run recipe.yaml", "ropewalk report RESULTS --out REPORT"]


def test_a_recorded_command_stands_beside_how_its_model_is_made_and_files_without_one():
    """One evaluation a command; the model is called alike in all of them."""
    found = fake.everything()
    for one in found:
        if one["evaluation"] == "passkey" and one["model"]["name"] == "pi-2048":
            one["provenance"]["command"] = "ropewalk evaluate long --passkey --small --name pi-2048"
    said = commands(gathered(found))
    at = said.index("ropewalk evaluate long --passkey --small --name pi-2048")
    assert said[at - 2].endswith("long-start --to 2048")
    assert said[at - 1].startswith("ropewalk finetune long-start long --steps 400")
    assert said[at + 1].startswith("ropewalk evaluate long --perplexity")
    assert "--passkey " not in said[at + 1] and "--passkey" in said[0]


def test_models_data_protocols_and_environment_are_all_there():
    models, data, protocols, environment = conditions(gathered(fake.everything()))
    assert [row[0] for row in models.rows] == ["base-512", "direct-2048", "pi-2048"]
    assert models.rows[2][1] == "Position Interpolation 4× to 2,048, fine-tuned 400 steps (3,276,800 tokens)"
    assert data.records[0]["sha256"] == fake.SHA["stdlib"]
    assert protocols.rows[0][:2] == ["perplexity", "sliding; contexts: 512, 1024, 2048; stride: 256"]
    assert len(environment.rows) == 1
    assert "torch: 2.13.0" in environment.rows[0][1]
    assert "seed: 0" in environment.rows[0][1]


def test_other_versions_are_a_row_of_their_own():
    found = fake.everything()
    found[0]["provenance"]["torch"] = "2.9.0"
    assert len(conditions(gathered(found))[3].rows) == 2


def test_commands_repeat_what_the_files_say_of_training_and_sampling():
    """A training's data, shares and changed settings, and an evaluation's sample, stand in the commands."""
    found = fake.everything()
    log = next(one for one in found if one["evaluation"] == "training" and "pi" in one["model"]["name"])
    log["protocol"] |= {"peak_rate": 6e-4, "schedule": "linear", "warmup": 20, "only": ["q_proj", "norm"]}
    log["protocol"]["shares"] = {"a/books.parquet": 0.9, "b/math.parquet": 0.1}
    log["data"] = [{"name": "books.parquet"}, {"name": "math.parquet"}]
    for one in found:
        if one["evaluation"] == "perplexity":
            one["protocol"]["most_windows"] = 120
    said = "\n".join(commands(gathered(found)))
    assert "--data books.parquet:0.9 math.parquet:0.1 --rate 0.0006" in said
    assert "--schedule linear --only q_proj norm" in said and "--warmup" not in said
    assert "--windows 120 --passkey" in said and "--stride" not in said


def test_where_files_lay_is_not_in_the_protocols():
    found = fake.everything()
    log = next(one for one in found if one["evaluation"] == "training")
    log["protocol"]["shares"] = {"/home/me/books.parquet /home/me/more.txt": 1.0}
    table = next(t for t in conditions(gathered(found)) if t.name == "protocols")
    assert "books.parquet more.txt" in str(table.rows)
    assert "/home/me" not in str(table.rows) + str(table.records)
