"""What finetune leaves beside the weights: a model card, and a word about what is wrong with them."""

from __future__ import annotations

import json
import shutil

from ropewalk.model.card import front_matter
from ropewalk.results.collection import collect
from ropewalk.results.record import read_result
from ropewalk.verbs.finetune import finetune

SMALL = {"steps": 2, "batch": 2, "warmup": 1, "rate": 1e-2, "device": "cpu"}


def test_a_tuned_checkpoint_has_a_card_with_its_own_figures(tiny_model, texts, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "README.md").write_text("---\nlicense: mit\n---\n# The old card, of a window of 16\n")
    finetune(str(source), str(tmp_path / "out"), data=(str(texts),), **SMALL)
    text = (tmp_path / "out" / "README.md").read_text()
    log = read_result(tmp_path / "out" / "training.json")
    assert f"{log['summary']['loss_last_tenth']:.4f} nats" in text
    assert "2 steps, 256 tokens" in text and "texts.jsonl (SHA-256 " in text
    assert "The old card" not in text and "has not been trained" not in text
    assert front_matter(tmp_path / "out")["license"] == "mit"


def test_a_kept_step_has_a_card_of_its_own(tiny_model, texts, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    (source / "README.md").write_text("---\nlicense: mit\n---\n# source\n\nIt has not been trained.\n")
    finetune(str(source), str(tmp_path / "out"), data=(str(texts),), **{**SMALL, "steps": 3, "keep_at": (2,)})
    text = (tmp_path / "out-step-2" / "README.md").read_text()
    assert "# out-step-2" in text and "2 steps, 256 tokens" in text and "texts.jsonl" in text
    assert "has not been trained" not in text and "# source" not in text
    assert front_matter(tmp_path / "out-step-2")["license"] == "mit"


def test_only_what_belongs_to_a_checkpoint_goes_along(tiny_model, texts, tmp_path):
    """No pickle, no code, no other framework's weights; as extend and export have it."""
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    foreign = (
        "modeling_evil.py",
        "vocab.pkl",
        "tokenizer.pickle",
        "flax_model.msgpack",
        "model.h5",
        ".gitattributes",
    )
    for name in (*foreign, "LICENSE", "generation_config.json"):
        (source / name).write_text("{}")
    finetune(str(source), str(tmp_path / "out"), data=(str(texts),), keep_at=(1,), **SMALL)
    for place in (tmp_path / "out", tmp_path / "out-step-1"):
        names = {path.name for path in place.iterdir()}
        assert not names & set(foreign)
        assert {"LICENSE", "config.json", "tokenizer.json", "generation_config.json"} <= names
        assert (place / "generation_config.json").read_text() == "{}"


def test_that_passages_came_back_in_training_is_said_wherever_the_model_goes(
    tiny_model, texts, tmp_path, capsys
):
    finetune(str(tiny_model), str(tmp_path / "out"), data=(str(texts),), repeats=0.5, **SMALL)
    assert "0.5 passages for every 256 tokens come back later" in capsys.readouterr().out
    assert "0.5 passages for every 256 tokens came back" in (tmp_path / "out" / "README.md").read_text()
    log = tmp_path / "out" / "training.json"
    assert read_result(log)["protocol"]["repeats"] == 0.5
    (found,) = collect([(log, read_result(log))]).models
    assert found.story.endswith("passages coming back in its windows")
    finetune(str(tiny_model), str(tmp_path / "rise"), data=(str(texts),), repeats_end=1.0, **SMALL)
    assert "0 (at the end 1) passages for every 256 tokens come back later" in capsys.readouterr().out
    text = (tmp_path / "rise" / "README.md").read_text()
    assert "0 (at the end 1) passages for every 256 tokens came back" in text
    log = tmp_path / "rise" / "training.json"
    (found,) = collect([(log, read_result(log))]).models
    assert found.story.endswith("passages coming back in its windows")


def test_what_is_wrong_with_the_tuned_checkpoint_is_said(tiny_model, texts, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(tiny_model, source)
    finetune(str(source), str(tmp_path / "one"), data=(str(texts),), **SMALL)
    assert "!" not in capsys.readouterr().out
    config = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 16}))
    finetune(str(source), str(tmp_path / "two"), data=(str(texts),), **SMALL)
    assert "! the tokenizer's model_max_length is 16, and the window is 64" in capsys.readouterr().out
