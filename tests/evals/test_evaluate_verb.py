"""`ropewalk evaluate`: one file an evaluation, nothing done twice, nothing lost when killed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
from fakes import TEXT, tiny_checkpoint

import ropewalk
from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.model.lm import TransformersLM
from ropewalk.results.record import read_result
from ropewalk.verbs.evaluate import SMALL, Evaluate, Lengths, _ruler, context_sizes, groups


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    top = tmp_path_factory.mktemp("verb")
    tiny_checkpoint(top / "model", window=512)
    for name in "ab":
        (top / f"{name}.txt").write_text(" ".join(f"{i}{name} {TEXT}" for i in range(40)))
    return top


FEW = ("passkey.distances=4", "passkey.runs=2")


def call(place, out, **more):
    settings = {"perplexity": (f"t={place}/a.txt", f"{place}/b.txt"), "contexts": (512,), "windows": 6}
    return ropewalk.evaluate(str(place / "model"), out=str(out), **{**settings, **more})


def test_one_results_file_an_evaluation_with_all_that_traces_it(place, tmp_path):
    found = call(place, tmp_path, passkey=True, set=FEW, target=640, position_loss=(f"{place}/a.txt",))
    names = ["model.perplexity.t.json", "model.passkey.json", "model.position-loss.a.json"]
    assert [path.split("/")[-1] for path in found["results"]] == names
    for name in names:
        result = read_result(tmp_path / name)
        assert result["model"]["name"] == "model" and result["model"]["window"] == 512
        assert set(result["provenance"]) >= {"torch", "transformers", "device", "dtype", "seed", "inputs"}
    perplexity = read_result(tmp_path / names[0])
    assert [block["group"] for block in perplexity["data"]] == ["t", "t"]
    assert read_result(tmp_path / names[1])["summary"]["target"] == 640
    assert not list(tmp_path.glob(".*.cells"))


def test_a_second_run_does_nothing_and_another_setting_runs_again(place, tmp_path, monkeypatch, capsys):
    call(place, tmp_path)
    first = (tmp_path / "model.perplexity.t.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(TransformersLM, "log_probs", None)
        patch.setattr(TransformersLM, "__init__", None)
        capsys.readouterr()
        call(place, tmp_path)
    assert capsys.readouterr().out.strip().endswith("already done for the same model, data and settings")
    assert (tmp_path / "model.perplexity.t.json").read_bytes() == first
    call(place, tmp_path, stride=128)
    assert (tmp_path / "model.perplexity.t.json").read_bytes() != first


def test_a_changed_text_is_evaluated_again_where_that_may_replace(place, tmp_path):
    text = tmp_path / "c.txt"
    text.write_text((place / "a.txt").read_text())
    one = call(place, tmp_path / "out", perplexity=(str(text),))
    before = read_result(one["results"][0])
    text.write_text((place / "b.txt").read_text())
    with pytest.raises(
        UserError, match=r"results on other data, c\.txt \(\w{6}\), not on c\.txt .*--overwrite"
    ):
        call(place, tmp_path / "out", perplexity=(str(text),))
    assert read_result(one["results"][0]) == before
    call(place, tmp_path / "out", perplexity=(str(text),), overwrite=True)
    assert read_result(one["results"][0])["rows"] != before["rows"]


def test_results_of_another_model_or_text_are_not_lost(place, tmp_path, monkeypatch):
    """Two texts, or two models, of one name want one file: the second is told before any work."""
    other = tiny_checkpoint(tmp_path / "other" / "model", window=512)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 20000.0, "rms_norm_eps": 1e-4}))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.txt").write_text((place / "b.txt").read_text())
    out = tmp_path / "out"
    first = call(place, out, perplexity=(f"{place}/a.txt",))["results"][0]
    held = read_result(first)
    call(place, out, perplexity=(f"more={tmp_path}/more/a.txt",))
    with monkeypatch.context() as patch:
        patch.setattr("ropewalk.model.lm.load_model", None)
        with pytest.raises(UserError, match=r"other data, a\.txt .* or name the texts"):
            call(place, out, passkey=True, set=FEW, perplexity=(f"{tmp_path}/more/a.txt",))
        with pytest.raises(UserError, match=r"another model, model .*, not of model .*--name") as raised:
            ropewalk.evaluate(str(other), perplexity=(f"{place}/a.txt",), contexts=(512,), out=str(out))
    assert "\n" not in str(raised.value) and read_result(first) == held
    assert not list(out.glob("*passkey*"))


@pytest.mark.parametrize(
    ("flags", "change", "said"),
    [
        ({"passkey": True}, "passkey.runs=0", "passkey.runs is 0; give 1 or more"),
        ({"passkey": True}, "passkey.runs=-2", "passkey.runs is -2; give 1 or more"),
        ({"passkey": True}, "passkey.distances=0", "passkey.distances is 0; give 1 or more"),
        ({"passkey_grid": True}, "passkey-map.depths=[2.0]", "depths is [2.0]; give one or more from 0"),
        ({"passkey_grid": True}, "passkey-map.depths=[]", "depths is []; give one or more from 0"),
        ({"passkey_grid": True}, "passkey-map.lengths=0", "passkey-map.lengths is 0; give 1 or more"),
        ({"position_loss": ("a.txt",)}, "position-loss.buckets=0", "buckets is 0; give 1 or more"),
        ({"position_loss": ("a.txt",)}, "position-loss.cut=100", "cut is 100; give 512 or more"),
        ({"perplexity": ("a.txt",)}, "perplexity.stride=0", "perplexity.stride is 0; give 1 or more"),
        ({"perplexity": ("a.txt",)}, "perplexity.contexts=[]", "perplexity.contexts is empty"),
        (
            {"perplexity": ("a.txt",)},
            "perplexity.contexts=[257]",
            "longer than the stride of 256 tokens by 2",
        ),
        ({"perplexity": ("a.txt",)}, "perplexity.protocol=x", "protocol is 'x'; choose one of sliding"),
        ({"attention": ("a.txt",), "target": 1024}, "attention.points=0", "points is 0; give 2 or more"),
        ({"attention": ("a.txt",), "target": 1024}, "attention.tokens=0", "tokens is 0; give 2 or more"),
        ({"attention": ("a.txt",), "target": 1024}, "attention.heads=0", "heads is 0; give 1 or more"),
        ({"benchmark": True}, "benchmark.limit=-1", "benchmark.limit is -1; give 1 or more"),
        ({"summarization": True}, "summarization.limit=0", "summarization.limit is 0; give 1 or more"),
    ],
)
def test_a_finer_setting_out_of_its_range_is_said_before_weights_load(
    place, tmp_path, monkeypatch, flags, change, said
):
    monkeypatch.setattr("ropewalk.model.lm.load_model", None)
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match=re.escape(said)):
        call(place, tmp_path, **{"perplexity": (), **flags}, set=(change,))
    assert not list(tmp_path.iterdir())


def test_a_text_that_cannot_be_read_is_found_before_any_evaluation_runs(place, tmp_path, monkeypatch):
    """Hashing a file says nothing of its text column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": [1, 2]}), tmp_path / "notext.parquet")
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    monkeypatch.setattr("ropewalk.model.lm.load_model", None)
    for flag, name, said in (
        ("position_loss", "notext.parquet", r"notext\.parquet .*column"),
        ("perplexity", "empty.jsonl", r"empty\.jsonl holds no text"),
        ("attention", "empty.jsonl", r"empty\.jsonl holds no text"),
    ):
        texts = {"perplexity": (), flag: (str(tmp_path / name),), "target": 1024, "contexts": (512,)}
        with pytest.raises(UserError, match=said):
            call(place, tmp_path / "out", passkey=True, **texts)
    haystack = (f"ruler.haystack=[{tmp_path}/empty.jsonl]",)
    with pytest.raises(UserError, match=r"empty\.jsonl holds no text"):
        call(place, tmp_path / "out", perplexity=(), passkey=True, ruler=True, set=haystack)
    assert not (tmp_path / "out").exists()


def test_names_of_every_script_have_files_of_their_own(place, tmp_path):
    made = [call(place, tmp_path, name=name)["results"][0] for name in ("模型甲", "模型乙", "α b")]
    assert [path.rpartition("/")[2].split(".")[0] for path in made] == ["模型甲", "模型乙", "α-b"]
    assert groups(["书=a.txt"]) == {"书": ("a.txt",)}


def test_what_replaces_a_result_of_the_same_model_and_text_is_said(place, tmp_path, capsys):
    call(place, tmp_path, name="a b")
    capsys.readouterr()
    call(place, tmp_path, name="a b", stride=128)
    assert "a-b.perplexity.t.json: replaces the result with other settings" in capsys.readouterr().out
    call(place, tmp_path, name="a-b", stride=128)
    assert "replaces the same model's result under the name a b" in capsys.readouterr().out
    call(place, tmp_path, name="a-b", stride=128, seed=1, dtype="bfloat16")
    assert "replaces the result of dtype float32, now bfloat16; seed 0, now 1" in capsys.readouterr().out


def test_killed_and_started_again_it_ends_with_the_same_bytes(place, tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.evals.texts.CPU_TOKENS", 1024)
    call(place, tmp_path / "whole", passkey=True, set=FEW)
    real, calls = TransformersLM.log_probs, []

    def dies(self, windows, scored):
        calls.append(windows.shape)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, windows, scored)

    with monkeypatch.context() as patch:
        patch.setattr(TransformersLM, "log_probs", dies)
        with pytest.raises(KeyboardInterrupt):
            call(place, tmp_path / "killed", passkey=True, set=FEW)
    assert not list((tmp_path / "killed").glob("*.json"))
    assert len(list((tmp_path / "killed").glob(".*.cells"))) == 1
    call(place, tmp_path / "killed", passkey=True, set=FEW)
    for name in ("model.perplexity.t.json", "model.passkey.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_shared_keys_find_what_the_prompts_alone_find(place, tmp_path, monkeypatch):
    """Read along one another or each alone: the same prompts, so the same answers."""
    chosen = {"perplexity": (), "passkey": True, "shared_keys": True, "set": FEW}
    along = read_result(call(place, tmp_path / "a", **chosen)["results"][0])
    monkeypatch.delattr(TransformersLM, "generate_along")
    alone = read_result(call(place, tmp_path / "b", **chosen)["results"][0])
    assert along["rows"] == alone["rows"] and along["protocol"] == alone["protocol"]


def test_finer_settings_are_checked_like_all_others(place, tmp_path):
    with pytest.raises(UserError, match="did you mean 'distances'"):
        call(place, tmp_path, passkey=True, set=("passkey.distance=8",))
    with pytest.raises(UserError, match="of one that runs"):
        call(place, tmp_path, set=("ruler.samples=8",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"perplexity": ()}, "nothing to evaluate"),
        ({"perplexity": ("nothing.txt",)}, "no data file nothing.txt"),
        ({"stride": 512}, "longer than the stride"),
        ({"sample": 1.5}, "share above 0"),
        ({"sample": 0.5, "protocol": "overlap"}, "go with protocol sliding"),
        ({"device": "cuda:9"}, "is not there"),
        ({"device": "tpu"}, "give cpu"),
        ({"cut": 100}, "shorter than the context"),
        ({"documents": 0}, "give 1 or more"),
        ({"contexts": (65536,)}, "choose longer documents"),
        ({"perplexity": (), "passkey": True, "target": 60}, "passkey prompt needs"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_before_weights_are_loaded(
    place, tmp_path, change, said, monkeypatch
):
    monkeypatch.setattr("ropewalk.model.lm.load_model", None)
    with pytest.raises(UserError, match=said) as raised:
        call(place, tmp_path, **change)
    assert "\n" not in str(raised.value) and not list(tmp_path.glob("*.json"))


def test_the_command_line_ends_with_code_2_and_one_line(place, tmp_path, capsys):
    assert main(["evaluate", str(place / "no-model"), "--passkey", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_of_another_schema_is_replaced_and_that_is_said(place, tmp_path, capsys):
    (tmp_path / "model.perplexity.t.json").write_text('{"schema": 99, "rows": []}')
    call(place, tmp_path)
    assert "is replaced" in capsys.readouterr().out
    assert json.loads((tmp_path / "model.perplexity.t.json").read_text())["schema"] == 1


def test_groups_begin_at_a_name(tmp_path):
    assert groups(["books=a.parquet", "b.parquet", "math=c"]) == {
        "books": ("a.parquet", "b.parquet"),
        "math": ("c",),
    }
    assert groups(["x/a.txt", "b.txt"]) == {"a": ("x/a.txt", "b.txt")}
    assert groups(["stdlib-heldout"]) == {"stdlib-heldout": ("stdlib-heldout",)}
    assert groups(["hub:deepmind/pg19@main:test"]).popitem()[1] == ("hub:deepmind/pg19@main:test",)
    assert set(groups(["pg19", "proof-pile"])) == {"pg19", "proof-pile"}


@pytest.mark.parametrize(
    ("window", "original", "target", "expected"),
    [
        (8192, 8192, 8192, (2048, 4096, 8192)),
        (2048, 512, 2048, (512, 1024, 2048)),
        (512, 512, 2048, (512, 1024, 2048)),
        (32768, 2048, 32768, (2048, 4096, 8192, 16384, 32768)),
        (12288, 4096, 12288, (2048, 4096, 8192, 12288)),
    ],
)
def test_context_sizes_double_from_the_papers_2048_to_the_window(window, original, target, expected):
    assert context_sizes(Evaluate("m"), Lengths(window, original, target)) == expected


def test_small_takes_less_of_everything_but_what_the_user_has_set(place, tmp_path):
    found = call(
        place, tmp_path, windows=3, passkey=True, passkey_choice=True, passkey_grid=True, small=True,
        set=("passkey.runs=1",),
    )  # fmt: skip
    results = {path.split(".")[-2]: read_result(path) for path in found["results"]}
    assert results["t"]["protocol"]["most_windows"] == 3
    assert len(results["passkey"]["rows"]) == 8 and {row["n"] for row in results["passkey"]["rows"]} == {1}
    assert len(results["passkey-choice"]["rows"]) == 8
    assert {row["n"] for row in results["passkey-map"]["rows"]} == {3}
    for name, settings in SMALL.items():
        module = importlib.import_module(
            f"ropewalk.evals.{re.sub('-(map|choice)$', '', name).replace('-', '_')}"
        )
        (made,) = (x for x in vars(module).values() if getattr(x, "__module__", "") == module.__name__
                   and x.__name__.endswith("Settings"))  # fmt: skip
        assert set(settings) <= {field.name for field in dataclasses.fields(made)}


def test_ruler_goes_up_to_the_target_or_over_the_contexts(place):
    def lengths(**more):
        (work,) = _ruler(Evaluate("m", ruler=True, **more), Lengths(512, 512, more.get("target") or 512))
        return work.settings.lengths

    assert lengths() == () and lengths(target=512) == ()
    assert lengths(target=2048) == (512, 1024, 2048)
    assert lengths(target=2048, contexts=(1024, 768)) == (768, 1024)


def test_no_message_of_an_evaluation_names_a_flag_that_evaluate_has_not():
    """Their finer settings are given with --set alone."""
    flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Evaluate)}
    source = Path(importlib.import_module("ropewalk.evals").__file__).parent
    files = [*source.glob("*.py"), source.parent / "data" / "summaries.py"]
    assert {flag for file in files for flag in re.findall(r"--[a-z]\w+", file.read_text())} <= flags


def test_what_is_wrong_with_the_last_evaluation_is_said_before_the_first_runs(place, tmp_path, monkeypatch):
    monkeypatch.setattr("ropewalk.model.lm.load_model", None)
    for change, said in (
        ({"attention": (f"{place}/a.txt",)}, "inside the trained window"),
        ({"summarization": True, "set": ("summarization.source=absent.json",)}, "no file absent.json"),
        ({"ruler": True, "set": ("ruler.tasks=[nonsense]",)}, "no RULER task"),
    ):
        with pytest.raises(UserError, match=said):
            call(place, tmp_path, **change)
    assert not list(tmp_path.iterdir())


def test_no_interval_of_a_loss_or_of_rouge_reaches_what_they_cannot_be(place, tmp_path, monkeypatch):
    from ropewalk.evals import position_loss, summarization

    for module in (position_loss, summarization):
        monkeypatch.setattr(module, "document_interval", lambda *a: (-3.4, 99.0))
    found = call(place, tmp_path, perplexity=(), position_loss=(f"{place}/a.txt",), windows=2)
    rows = read_result(found["results"][0])["rows"]
    assert {(row["low"], row["high"]) for row in rows} == {(0.0, 99.0)}
    row = summarization._row([{"rouge1": 0.1}, {"rouge1": 0.9}], 512, "rouge1", 0)
    assert (row["low"], row["high"]) == (0.0, 1.0)
