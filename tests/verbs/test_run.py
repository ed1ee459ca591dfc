"""The whole way on the embedded model, small: extend, fine-tune, evaluate, report; skipped when done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ropewalk
from ropewalk.errors import UserError
from ropewalk.verbs.run import Run, read_recipe

RECIPE = """
name: tiny
model: embedded
to: 1k
direct: true
finetune:
  data: ["{data}/train"]
  steps: 3
  batch: 1
  rate: 1.0e-3
  skip_positions: 128
evaluate:
  perplexity: ["text={data}/test.txt"]
  contexts: [512, 1024]
  cut: 1100
  dtype: float32
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A recipe and its texts: lines of code that count."""
    root = tmp_path_factory.mktemp("recipe")
    (root / "texts" / "train").mkdir(parents=True)
    for name in ("a", "b"):
        lines = [f"{name}_{i} = {i * i}  # the square of {i}" for i in range(400)]
        (root / "texts" / "train" / f"{name}.py").write_text("\n".join(lines))
    (root / "texts" / "test.txt").write_text("\n".join(f"value_{i} = {i + 1}" for i in range(400)))
    (root / "recipe.yaml").write_text(RECIPE)
    return root


@pytest.fixture(scope="module")
def finished(place) -> tuple[Path, dict]:
    out = place / "out"
    made = ropewalk.run(recipe=place / "recipe.yaml", out=out, data=str(place / "texts"), device="cpu")
    return out, made


def files(out: Path) -> dict[str, bytes]:
    """Every results file and every weight that a run leaves."""
    found = [*out.glob("results/*.json"), *out.glob("checkpoints/*/*.safetensors")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(found)}


def test_a_recipe_leads_from_the_checkpoint_to_the_report_with_all_arms(finished):
    out, made = finished
    names = {path.name for path in (out / "results").glob("*.json")}
    arms = ("tiny", "tiny-direct-1024", "tiny-pi-1024")
    assert names == {f"{arm}.perplexity.text.json" for arm in arms}
    contexts = [
        row["context"]
        for row in json.loads((out / "results" / "tiny.perplexity.text.json").read_text())["rows"]
    ]
    assert contexts == [512, 1024]
    page = (out / "report" / "report.html").read_text()
    assert all(arm in page for arm in arms)
    assert made["verdict"]["sentence"]
    config = json.loads((out / "checkpoints" / "tiny-pi-1024" / "config.json").read_text())
    assert config["rope_parameters"]["factor"] == 2.0 and config["max_position_embeddings"] == 1024
    direct = json.loads((out / "checkpoints" / "tiny-direct-1024" / "config.json").read_text())
    assert direct["rope_parameters"]["rope_type"] == "default" and direct["max_position_embeddings"] == 1024


def test_a_second_run_on_the_same_inputs_does_nothing_again(finished, place, capsys):
    out, _ = finished
    times = {
        path: path.stat().st_mtime_ns for path in [*out.glob("results/*.json"), *out.glob("checkpoints/*/*")]
    }
    ropewalk.run(recipe=place / "recipe.yaml", out=out, data=str(place / "texts"), device="cpu")
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert capsys.readouterr().out.count("already") >= 4


def test_a_run_replaces_its_own_results_of_a_model_that_it_trains_anew(place, tmp_path):
    """Elsewhere results of other weights stand in the way of new ones; here they are of the same arm."""
    wanted = {"recipe": place / "recipe.yaml", "out": tmp_path / "out", "data": str(place / "texts")}
    found = []
    for steps in (1, 2):
        few = (f"finetune.steps={steps}", "evaluate.contexts=[512]", "evaluate.windows=1")
        ropewalk.run(**wanted, device="cpu", arms=("direct-1024",), report=False, set=few)
        file = tmp_path / "out" / "results" / "tiny-direct-1024.perplexity.text.json"
        found.append(json.loads(file.read_text())["model"]["hash"])
    assert found[0] != found[1]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_files(finished, place, monkeypatch):
    import ropewalk.verbs.finetune as verb

    out = place / "interrupted"
    whole = verb.finetune
    calls = []

    def stopped(**settings):
        calls.append(settings["out"])
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(**settings)

    monkeypatch.setattr(verb, "finetune", stopped)
    with pytest.raises(KeyboardInterrupt):
        ropewalk.run(recipe=place / "recipe.yaml", out=out, data=str(place / "texts"), device="cpu")
    assert not (out / "report").exists()
    monkeypatch.setattr(verb, "finetune", whole)
    ropewalk.run(recipe=place / "recipe.yaml", out=out, data=str(place / "texts"), device="cpu")
    assert files(out) == files(finished[0])


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1, 2]", "not a mapping"),
        ("name: [", "cannot be read"),
        ("name: a", "is missing"),
        (RECIPE + "colour: red", "no setting 'colour'"),
        (RECIPE.replace("steps: 3", "stepps: 3"), "did you mean 'steps'"),
        (RECIPE.replace("steps: 3", "steps: many"), "not a whole number"),
        (RECIPE.replace("name: tiny", "name: ../up"), "becomes a directory"),
        (RECIPE.replace("to: 1k", "to: far"), "to is"),
        ("a: &x [*x]", "more than 20 levels"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_one_line(tmp_path, text, part):
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=part.replace(".", r"\.")):
        read_recipe(Run(recipe=path, data="texts"))


def test_a_recipe_that_needs_data_says_so(place):
    with pytest.raises(UserError, match="--data DIR"):
        read_recipe(Run(recipe=place / "recipe.yaml"))


def test_set_changes_one_setting_of_the_recipe(place):
    recipe = read_recipe(
        Run(recipe=place / "recipe.yaml", data="d", set=("finetune.steps=7", "to=2k", "direct=false"))
    )
    assert (recipe.finetune["steps"], recipe.to, recipe.direct) == (7, 2048, False)
    with pytest.raises(UserError, match="SECTION"):
        read_recipe(Run(recipe=place / "recipe.yaml", data="d", set=("steps",)))
