"""`ropewalk sweep`: its figures are those of extended checkpoints, ranked, done once, lost never."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fakes import TEXT, tiny_checkpoint

import ropewalk
from ropewalk.errors import UserError
from ropewalk.evals import position_loss
from ropewalk.evals.sweep import SweepSettings, candidates, position_edges
from ropewalk.model.lm import TransformersLM
from ropewalk.model.load import read_config
from ropewalk.results.cells import Cells
from ropewalk.results.record import read_result
from ropewalk.verbs.sweep import sweep


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("sweep")
    tiny_checkpoint(top / "model", window=128)
    for name in "ab":
        (top / f"{name}.txt").write_text(" ".join(f"{i}{name} {TEXT}" for i in range(40)))
    return top


def call(place, out, **more):
    settings = {"to": 512, "data": (str(place / "a.txt"), str(place / "b.txt")), "windows": 4}
    return sweep(str(place / "model"), out=out, **{**settings, "keys": 2, "device": "cpu", **more})


def test_positions_end_at_a_quarter_of_the_window_at_it_and_at_its_doublings():
    assert position_edges(8192, 32768) == [0, 2048, 8192, 16384, 32768]
    assert position_edges(512, 1500) == [0, 128, 512, 1024, 1500]


def test_linear_x4_is_what_evaluating_the_extended_checkpoint_gives(place, tmp_path):
    call(place, tmp_path / "out", methods=("none", "linear"))
    ropewalk.extend(str(place / "model"), str(tmp_path / "longer"), to=512)
    rows = read_result(tmp_path / "out" / "model.sweep.512.json")["rows"]
    mine = [r for r in rows if r["method"] == "linear" and "from" in r]
    settings = position_loss.PositionLossSettings(
        "t", (str(place / "a.txt"), str(place / "b.txt")), 512, buckets=16, most_windows=4
    )
    theirs = position_loss.run(TransformersLM(tmp_path / "longer"), settings, Cells(None, {}))["rows"]
    assert [(r["from"], r["to"]) for r in mine] == [(0, 32), (32, 128), (128, 256), (256, 512)]
    for row in mine:
        within = [r for r in theirs if row["from"] <= r["from"] < row["to"]]
        n = sum(r["n"] for r in within)
        assert n == row["n"]
        loss = sum(r["loss"] * r["n"] for r in within) / n
        assert math.log(row["perplexity"]) == pytest.approx(loss, rel=1e-12)
    plain = [r for r in rows if r["method"] == "none" and "from" in r]
    assert plain[-1]["perplexity"] != pytest.approx(mine[-1]["perplexity"], rel=1e-3)


def test_every_method_and_factor_once_the_lowest_perplexity_first(place, tmp_path, capsys):
    found = call(place, tmp_path, methods=("none", "linear", "yarn"), factors=(4.0, 2.0))
    labels = {"none", "linear ×2", "linear ×4", "yarn ×2", "yarn ×4"}
    assert {one["label"] for one in found["ranking"]} == labels and len(found["ranking"]) == 5
    values = [one["perplexity"] for one in found["ranking"]]
    assert values == sorted(values) and [one["rank"] for one in found["ranking"]] == [1, 2, 3, 4, 5]
    result = read_result(tmp_path / "model.sweep.512.json")
    keys = [r for r in result["rows"] if "length" in r]
    assert {r["length"] for r in keys} == {256, 512} and all(r["n"] == 2 for r in keys)
    assert len(result["rows"]) == 5 * (4 + 2)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith("best first"))
    assert lines[first + 2].startswith(found["ranking"][0]["label"])


def test_a_second_run_does_nothing(place, tmp_path, monkeypatch, capsys):
    first = call(place, tmp_path, methods=("linear",), passkey=False)
    content = (tmp_path / "model.sweep.512.json").read_bytes()
    monkeypatch.setattr(TransformersLM, "__init__", None)
    assert call(place, tmp_path, methods=("linear",), passkey=False) == first
    assert (tmp_path / "model.sweep.512.json").read_bytes() == content
    assert "already done" in capsys.readouterr().out


def test_a_sweep_on_another_text_does_not_replace_the_first_unasked(place, tmp_path):
    few = {"methods": ("linear",), "passkey": False, "windows": 1}
    file = Path(call(place, tmp_path, **few)["results"][0])
    first = file.read_text()
    with pytest.raises(UserError, match="results on other data"):
        call(place, tmp_path, data=(str(place / "b.txt"),), **few)
    assert file.read_text() == first
    call(place, tmp_path, data=(str(place / "b.txt"),), overwrite=True, **few)
    assert file.read_text() != first


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(place, tmp_path, monkeypatch):
    methods = ("none", "dynamic", "yarn")
    call(place, tmp_path / "whole", methods=methods)
    done = []
    real = TransformersLM.log_probs

    def dying(self, windows, scored):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(1)
        return real(self, windows, scored)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TransformersLM, "log_probs", dying)
        call(place, tmp_path / "killed", methods=methods)
    again, answered = [], []
    generate = TransformersLM.generate
    with monkeypatch.context() as patch:
        patch.setattr(TransformersLM, "generate", lambda *a: answered.append(1) or generate(*a))
        patch.setattr(TransformersLM, "log_probs", lambda *a: again.append(1) or real(*a))
        call(place, tmp_path / "killed", methods=methods)
    assert len(again) == 1 and len(answered) == 2  # yarn alone: its windows, and its keys at two lengths
    name = "model.sweep.512.json"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "killed").glob(".*.cells"))


def test_what_cannot_be_measured_is_said_before_weights_load(place, tmp_path, monkeypatch):
    monkeypatch.setattr(TransformersLM, "__init__", None)
    for more, text in (
        ({"to": 128}, "not longer than the window"),
        ({"factors": (1.0,)}, "factor is 1"),
        ({"windows": 0}, "windows is 0"),
        ({"keys": 0}, "--no-passkey"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"data": (str(place / "none.txt"),)}, "none.txt"),
    ):
        with pytest.raises(UserError, match=text):
            call(place, tmp_path, **more)


def test_methods_that_a_scaled_checkpoint_cannot_have_are_left_out_unless_named(place, tmp_path, capsys):
    ropewalk.extend(str(place / "model"), str(tmp_path / "longer"), to=256)
    config = read_config(tmp_path / "longer")
    found = candidates(config, SweepSettings(512, ()))
    assert [one.label for one in found] == ["none", "linear ×2"]
    assert found[1].config["rope_parameters"]["factor"] == 4.0
    assert "yarn is left out" in capsys.readouterr().out
    with pytest.raises(UserError, match="yarn needs"):
        candidates(config, SweepSettings(512, (), methods=("yarn",)))
