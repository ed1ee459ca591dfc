"""Recipes with more than two arms, evaluations on the way, and a base."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ropewalk
from ropewalk.errors import UserError
from ropewalk.verbs.run import Run, arms_of, read_recipe

BASE = """
name: tiny
model: embedded
to: 1k
finetune: {data: ["{data}"], steps: 3, batch: 1, rate: 1.0e-3, skip_positions: 64}
evaluate: {perplexity: ["text={data}/test.txt"], contexts: [512], cut: 1100, windows: 1, dtype: float32}
"""
ARMS = """
base: base.yaml
arms:
  - {method: linear}
  - {method: linear, to: 2k, after: pi-1024, finetune: {steps: 2}}
by_steps: {at: [0, 1], perplexity: ["text={data}/test.txt"], contexts: [512], cut: 1100, windows: 1}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("arms")
    (root / "texts").mkdir()
    (root / "texts" / "test.txt").write_text("\n".join(f"value_{i} = {i + 1}" for i in range(400)))
    (root / "base.yaml").write_text(BASE)
    (root / "recipe.yaml").write_text(ARMS)
    return root


def walk(place: Path, out: str, **more) -> list[str]:
    made = ropewalk.run(
        recipe=place / "recipe.yaml",
        out=place / out,
        data=str(place / "texts"),
        device="cpu",
        report=False,
        **more,
    )
    assert made.get("report") is None
    return made["steps"]


def results(out: Path) -> dict[str, dict]:
    return {path.name: json.loads(path.read_text()) for path in sorted(out.glob("*.json"))}


def test_arms_build_on_each_other_and_are_measured_on_their_way(place):
    walk(place, "out", arms=("pi-1024", "pi-2048"))
    out = place / "out"
    finished = results(out / "results")
    assert set(finished) == {f"tiny-pi-{to}.perplexity.text.json" for to in (1024, 2048)}
    staged = finished["tiny-pi-2048.perplexity.text.json"]["model"]
    assert (staged["factor"], staged["original_window"], staged["trained"]["steps_before"]) == (4.0, 512, 3)
    way = results(out / "by-steps")
    found = [(r["model"]["name"], (r["model"]["trained"] or {}).get("steps")) for r in way.values()]
    assert found == [
        *(("tiny-pi-1024-step-0", None), ("tiny-pi-1024-step-1", 1)),
        *(("tiny-pi-2048-step-0", 3), ("tiny-pi-2048-step-1", 1)),
    ]
    assert len({r["model"]["hash"] for r in way.values()}) == 4


def test_only_the_arms_asked_for_are_walked(place):
    steps = walk(place, "dry", dry_run=True, arms=("original", "pi-1024"))
    assert steps[0] == "evaluate tiny" and not any("2048" in step for step in steps)
    with pytest.raises(UserError, match=r"no arm 'yarn-1024'.* original, pi-1024, pi-2048"):
        walk(place, "dry", dry_run=True, arms=("yarn-1024",))


def test_a_recipe_says_only_what_differs_from_its_base(place):
    path = place / "over.yaml"
    path.write_text("base: base.yaml\nname: other\nfinetune: {steps: 7}\n")
    recipe = read_recipe(Run(recipe=path, data="d"))
    assert (recipe.name, recipe.model) == ("other", "embedded")
    assert (recipe.finetune["steps"], recipe.finetune["batch"]) == (7, 1)
    assert list(arms_of(recipe)) == ["pi-1024", "direct-1024"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("base: over.yaml", "its own base"),
        ("base: nowhere.yaml", "no recipe .*nowhere.yaml, the base of"),
        ("base: 3", "not the path of a recipe"),
        ("base: base.yaml\narms: [{method: linear}, {method: linear}]", "'pi-1024' is taken"),
        ("base: base.yaml\narms: [{method: linear, after: x}]", "after is 'x', no arm before"),
        ("base: base.yaml\narms: [{mehtod: linear}]", "did you mean 'method'"),
        ("base: base.yaml\narms: [{finetune: {stepps: 3}}]", "did you mean 'steps'"),
        ("base: base.yaml\nby_steps: {passkey: true}", "not a list of steps"),
        ("base: base.yaml\nby_steps: {at: [4]}", "at has 4, behind the last step, 3"),
        ("base: base.yaml\nby_steps: {at: [0], passkeys: true}", "did you mean 'passkey'"),
    ],
)
def test_a_wrong_base_arm_or_step_is_one_line(place, text, part):
    (place / "over.yaml").write_text(text)
    with pytest.raises(UserError, match=part) as raised:
        read_recipe(Run(recipe=place / "over.yaml", data="d"))
    assert "\n" not in str(raised.value)


def test_a_window_smaller_than_the_config_says_is_what_arms_begin_from(place):
    walk(place, "window", arms=("pi-1024", "pi-2048"), set=("window=448",))
    found = [
        results(place / "window" / "results")[f"tiny-pi-{to}.perplexity.text.json"]["model"]
        for to in (1024, 2048)
    ]
    assert [one["original_window"] for one in found] == [448, 448]
    assert [one["factor"] for one in found] == [1024 / 448, 2048 / 448]
    made = (place / "window" / "checkpoints" / "tiny-pi-1024-untrained" / "ropewalk.json").read_bytes()
    walk(place, "window", arms=("pi-1024",))  # the same place without it: extended anew
    again = (place / "window" / "checkpoints" / "tiny-pi-1024-untrained" / "ropewalk.json").read_bytes()
    assert again != made and json.loads(again)["model"]["factor"] == 2.0


@pytest.mark.parametrize("window", [0, 4096])
def test_a_window_that_cannot_be_is_refused_before_the_original_is_measured(place, window):
    with pytest.raises(UserError, match="window"):
        walk(place, "refused", set=(f"window={window}",))
    assert not list((place / "refused").rglob("*.json"))
