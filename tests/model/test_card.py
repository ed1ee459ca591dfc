"""The model card: what it says is in the record, what no file says it does not say."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tiny_checkpoints import gguf, llama

from ropewalk.model.card import card, front_matter, origin, write_card
from ropewalk.model.load import model_block
from ropewalk.model.source import Source, resolve
from ropewalk.verbs.extend import extend


def record(place: Path, **more) -> dict:
    block = model_block(place)
    return {
        "verb": "extend",
        "settings": {"model": "/home/someone/m", "to": 256},
        "model": block,
        "from": {"name": "m"},
        **more,
    }


def made(tmp_path: Path, **more) -> Path:
    extend(str(llama(tmp_path / "m")), str(tmp_path / "out"), **{"to": 256, **more})
    return tmp_path / "out"


def test_an_extended_checkpoint_has_a_card_with_flags_that_make_the_window_right(tmp_path):
    text = (made(tmp_path) / "README.md").read_text()
    assert "vllm serve ./out --max-model-len 256" in text
    assert "--model-path ./out --context-length 256" in text
    assert "llama-server -m out-gguf/*.gguf -c 256" in text
    assert "lengthened from 64 (×4) by Position Interpolation" in text
    assert "has not been trained at this window" in text
    assert str(tmp_path) not in text  # a card is published
    head = front_matter(tmp_path / "out")
    assert head["library_name"] == "transformers" and "position-interpolation" in head["tags"]


def test_results_stand_there_only_where_there_are_results(tmp_path):
    out = made(tmp_path)
    assert "## Results" not in (out / "README.md").read_text()
    assert "## Training data" not in (out / "README.md").read_text()
    log = {
        "data": [{"name": "books", "sha256": "ab" * 32}],
        "summary": {"loss_last_tenth": 3.25},
        "provenance": {"device": "cpu", "dtype": "float32", "seed": 0},
    }
    (out / "training.json").write_text(json.dumps(log))
    trained = {"steps": 7, "tokens": 1792, "window": 256, "rate": 1e-3, "data": ["books"]}
    mine = record(out, verb="finetune")
    mine["model"]["trained"] = trained
    text = card(out, mine, {})
    assert "3.2500 nats" in text and f"books (SHA-256 {'ab' * 8}…)" in text
    assert "7 steps, 1,792 tokens" in text and "has not been trained" not in text
    assert "had the old length" not in text
    mine["settings"] |= {"short_share": 1.0, "short_share_end": 0.0}
    assert "100% (at the end 0%) of its windows had the old length." in card(out, mine, {})
    mine["model"]["trained"] = {**trained, "window": 128}
    assert "only up to 128 tokens" in card(out, mine, {})


def test_license_and_base_model_go_from_checkpoint_to_checkpoint(tmp_path):
    source = llama(tmp_path / "hub")
    (source / "README.md").write_text("---\nlicense: apache-2.0\nlanguage:\n- en\n---\n# A model\n")
    hub = Source("hub", source, "owner/name")
    known = origin(hub)
    assert known == {"license": "apache-2.0", "language": ["en"], "base_model": "owner/name"}
    write_card(source, record(source), known)
    (source / "ropewalk.json").write_text("{}")
    assert origin(Source("directory", source, "hub")) == known


def test_no_license_and_no_base_are_invented(tmp_path):
    head = front_matter(made(tmp_path))
    assert not {"license", "base_model", "base_model_relation"} & set(head)


def test_a_gguf_file_tells_its_license(tmp_path):
    from gguf import GGUFReader, GGUFWriter

    file = gguf(tmp_path / "m.gguf")
    assert origin(resolve(str(file))) == {}
    writer = GGUFWriter(str(tmp_path / "n.gguf"), "llama")
    writer.add_license("apache-2.0")
    writer.add_base_model_count(1)
    writer.add_base_model_repo_url(0, "https://huggingface.co/owner/name")
    for tensor in GGUFReader(str(file)).tensors[:1]:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = origin(resolve(str(tmp_path / "n.gguf")))
    assert found == {"license": "apache-2.0", "base_model": "owner/name"}


def test_hostile_names_stay_text(tmp_path):
    out = made(tmp_path)
    bad = "x\n---\n# <script>alert(1)</script> [a](b) ```"
    mine = record(out, settings={"data": [bad]})
    mine["from"]["name"] = bad
    mine["model"]["name"] = bad
    text = card(out, mine, {"license": "a: b\n---\n#"})
    assert "<script>" not in text.partition("## Settings")[0].replace("\\<", "")
    body = text.split("---\n", 2)[2]
    assert "[a](b)" not in body.partition("## Settings")[0]
    assert body.count("```") == 4  # two blocks, each opened and closed once
    (out / "README.md").write_text(text)
    assert front_matter(out)["license"].startswith("a: b")


def test_front_matter_that_is_broken_or_missing_is_none(tmp_path):
    for text in ("# no front matter", "---\n: [\n---\n", "---\n- a\n---\n", "---\nlicense: x\n"):
        (tmp_path / "README.md").write_text(text)
        assert front_matter(tmp_path) == {}
    assert yaml.safe_load("a: 1") == {"a": 1}


def test_a_scaling_that_llama_cpp_does_not_know_is_not_offered_there(tmp_path):
    text = (made(tmp_path, method="dynamic") / "README.md").read_text()
    assert "llama.cpp cannot serve it" in text and "llama-server" not in text
