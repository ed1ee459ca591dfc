"""export: an adapter merged or refused, a GGUF file with its card, one line for what cannot be done."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from tiny_checkpoints import edit, llama, read

from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.files import read_record
from ropewalk.model.card import front_matter
from ropewalk.model.inspect import inspect_directory
from ropewalk.model.load import load_model
from ropewalk.train.lora import add_adapter, save_adapter
from ropewalk.verbs.export import export
from ropewalk.verbs.extend import extend
from ropewalk.verbs.finetune import finetune

IDS = torch.arange(60)[None] * 7 % 250


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, use_cache=False).logits


def adapted(base: Path, place: Path, *, embeddings: bool = False) -> torch.Tensor:
    """Write an adapter of ``base`` to ``place``, its config beside it; the adapted model's logits."""
    model = add_adapter(load_model(base), rank=4, embeddings=embeddings)
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    save_adapter(model, place)
    shutil.copy(base / "config.json", place)
    return logits(model)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The tiny Llama extended from 64 to 256 tokens."""
    extend(str(llama(tmp_path / "m")), str(tmp_path / "base"), to=256)
    return tmp_path / "base"


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("embeddings", [False, True], ids=["attention", "embeddings-too"])
def test_a_merged_checkpoint_has_the_adapters_logits_and_a_clean_bill(tmp_path, base, embeddings, tied):
    if tied:
        edit(base / "config.json", tie_word_embeddings=True)
    expected = adapted(base, tmp_path / "adapter", embeddings=embeddings)
    export(str(base), str(tmp_path / "merged"), adapter=str(tmp_path / "adapter"))
    got = logits(load_model(tmp_path / "merged"))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert (got - logits(load_model(base))).abs().max() > 0.05
    assert inspect_directory(tmp_path / "merged") == []
    assert read(tmp_path / "merged" / "config.json") == read(base / "config.json")
    assert read_record(tmp_path / "merged")["model"]["factor"] == 4.0
    assert "adapter" in (tmp_path / "merged" / "README.md").read_text()


def test_an_adapter_is_refused_on_an_unscaled_base_in_one_line(tmp_path, base, capsys):
    adapted(base, tmp_path / "adapter")
    words = ["export", str(tmp_path / "m"), str(tmp_path / "out"), "--adapter", str(tmp_path / "adapter")]
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert "linear ×4" in shown and "has none" in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_does_not_say_its_scaling_is_refused(tmp_path, base):
    adapted(base, tmp_path / "adapter")
    (tmp_path / "adapter" / "config.json").unlink()
    with pytest.raises(UserError, match="does not say under which scaling"):
        export(str(base), str(tmp_path / "out"), adapter=str(tmp_path / "adapter"))


def test_an_adapter_is_merged_into_the_weights_it_was_trained_on_and_no_others(tmp_path, base, capsys):
    """Not into the merged model that lies around it, which has the same positions."""
    (tmp_path / "t.txt").write_text("some words to train on " * 200)
    training = {"steps": 1, "batch": 1, "warmup": 0, "rate": 1e-2, "device": "cpu", "lora": True}
    finetune(str(base), str(tmp_path / "tuned"), data=(str(tmp_path / "t.txt"),), **training)
    adapter = tmp_path / "tuned" / "adapter"
    with pytest.raises(UserError, match=r"weights \w{16} of base, and .*tuned has the weights \w{16}: give"):
        export(str(tmp_path / "tuned"), str(tmp_path / "out"), adapter=str(adapter))
    assert not (tmp_path / "out").exists()
    capsys.readouterr()
    export(str(base), str(tmp_path / "out"), adapter=str(adapter))
    assert "note:" not in capsys.readouterr().out
    (adapter / "base.json").unlink()
    export(str(base), str(tmp_path / "out"), adapter=str(adapter))
    assert "does not say on which weights it was trained" in capsys.readouterr().out


def test_an_adapter_of_another_model_is_refused(tmp_path, base):
    from safetensors.torch import load_file, save_file

    adapted(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    gone = next(name for name in weights if "layers.1" in name and "q_proj" in name)
    del weights[gone]
    save_file(weights, file)
    with pytest.raises(UserError, match="does not fit"):
        export(str(base), str(tmp_path / "out"), adapter=str(tmp_path / "adapter"))
    assert sorted(os.listdir(tmp_path)) == ["adapter", "base", "m"]


def test_gguf_of_an_adapter_is_gguf_of_the_merged_checkpoint(tmp_path, base):
    adapted(base, tmp_path / "adapter")
    export(str(base), str(tmp_path / "merged"), adapter=str(tmp_path / "adapter"))
    export(str(tmp_path / "merged"), str(tmp_path / "two" / "x.gguf"))
    export(str(base), str(tmp_path / "one" / "x.gguf"), adapter=str(tmp_path / "adapter"))
    assert (tmp_path / "one" / "x.gguf").read_bytes() == (tmp_path / "two" / "x.gguf").read_bytes()
    assert os.listdir(tmp_path / "one") == ["x.gguf"]


def test_a_gguf_directory_holds_file_card_and_record(tmp_path, base):
    (tmp_path / "m" / "README.md").write_text("---\nlicense: mit\n---\n")
    extend(str(tmp_path / "m"), str(base), to=256)
    done = export(str(base), str(tmp_path / "out"), gguf=True, type="f16")
    assert sorted(os.listdir(tmp_path / "out")) == ["README.md", "base-f16.gguf", "ropewalk.json"]
    assert done["gguf"]["file"] == "base-f16.gguf" and done["model"]["window"] == 256
    text = (tmp_path / "out" / "README.md").read_text()
    assert "llama-server -m base-f16.gguf -c 256" in text
    assert front_matter(tmp_path / "out")["license"] == "mit"
    export(str(base), str(tmp_path / "out"), gguf=True, type="f32")  # ours, so it may be replaced
    assert (tmp_path / "out" / "base-f32.gguf").is_file()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["base", "out"], "nothing to export"),
        (["base", "out", "--adapter", "adapter", "--type", "f16"], "add --gguf"),
        (["base", "there.gguf"], "there already"),
        (["base", "full", "--gguf"], "not made by ropewalk"),
        (["base", "tuned", "--gguf"], "holds what `ropewalk finetune` made"),
        (["adapter", "out", "--gguf"], "name its base"),
        (["base", "out", "--adapter", "base"], "not a LoRA adapter"),
        (["base", "base", "--gguf"], "model itself"),
    ],
)
def test_a_users_fault_is_said_in_one_line(tmp_path, base, words, part, capsys, monkeypatch):
    adapted(base, tmp_path / "adapter")
    (tmp_path / "there.gguf").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "ropewalk.json").write_text('{"verb": "finetune"}')
    before = sorted(os.listdir(tmp_path))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["export", *words]) == 2
    shown = capsys.readouterr().err
    assert part in shown and shown.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == before


def test_a_family_llama_cpp_has_another_layout_for_is_named_with_the_command(tmp_path, base, capsys):
    edit(base / "config.json", model_type="qwen2")
    capsys.readouterr()
    assert main(["export", str(base), str(tmp_path / "out"), "--gguf"]) == 2
    shown = capsys.readouterr().err
    assert "qwen2" in shown and f"convert_hf_to_gguf.py {base}" in shown
    assert json.loads((base / "config.json").read_text())["rope_parameters"]["factor"] == 4.0
