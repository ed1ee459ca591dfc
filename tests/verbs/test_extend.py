"""extend: the same weights, a config that transformers, older engines and servers read alike."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))

from tiny_checkpoints import edit, gguf, llama, read

from ropewalk.errors import UserError
from ropewalk.model.load import load_model, load_tokenizer, model_block
from ropewalk.verbs.extend import extend


def logits(path: Path, positions):
    import torch

    model = load_model(path)
    ids = torch.arange(2, 2 + positions.shape[1])[None]
    with torch.no_grad():
        return model(ids, position_ids=positions, attention_mask=torch.ones_like(ids), use_cache=False).logits


def test_positions_of_an_extended_model_are_those_of_the_original_divided_by_k_bitwise(
    tmp_path: Path,
) -> None:
    """Chen et al. 2023, Eq. 4, on the logits of the checkpoint that was written."""
    import torch

    source = llama(tmp_path / "m")
    extend(str(source), str(tmp_path / "out"), to=256)
    positions = torch.arange(48)[None]
    got = logits(tmp_path / "out", positions)
    assert torch.equal(got, logits(source, positions.float() / 4))
    assert not torch.allclose(got, logits(source, positions), atol=1e-2)


def test_weights_are_the_same_file_and_nothing_else_is_linked(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    extend(str(source), str(tmp_path / "out"), to=256)
    for file in (tmp_path / "out").iterdir():
        same = file.name == "model.safetensors"
        assert (os.stat(file).st_nlink == 2) == same, file.name
    assert os.path.samefile(source / "model.safetensors", tmp_path / "out" / "model.safetensors")


def test_weights_are_copied_where_they_cannot_be_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args, **kwargs):
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = llama(tmp_path / "m")
    extend(str(source), str(tmp_path / "out"), to=256)
    one, other = source / "model.safetensors", tmp_path / "out" / "model.safetensors"
    assert one.read_bytes() == other.read_bytes() and not os.path.samefile(one, other)


def test_a_sharded_checkpoint_keeps_its_shards(tmp_path: Path) -> None:
    from ropewalk.model.quiet import quiet

    source = llama(tmp_path / "m")
    with quiet():
        load_model(source).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    shutil.copy(source / "tokenizer.json", tmp_path / "shards")
    names = sorted(p.name for p in (tmp_path / "shards").glob("*.safetensors"))
    assert len(names) > 1
    extend(str(tmp_path / "shards"), str(tmp_path / "out"), to=256)
    assert sorted(p.name for p in (tmp_path / "out").glob("*.safetensors")) == names
    for name in names:
        assert os.path.samefile(tmp_path / "shards" / name, tmp_path / "out" / name)
    assert load_model(tmp_path / "out").config.rope_parameters["factor"] == 4.0


def test_the_config_states_base_factor_and_window_in_every_name_that_engines_read(tmp_path: Path) -> None:
    source = llama(tmp_path / "m", max_sequence_length=64)
    (source / "generation_config.json").write_text(json.dumps({"max_length": 64, "eos_token_id": 1}))
    extend(str(source), str(tmp_path / "out"), to=160)
    config = read(tmp_path / "out" / "config.json")
    wanted = {"rope_type": "linear", "factor": 2.5, "rope_theta": 50_000.0}
    assert config["rope_parameters"] == config["rope_scaling"] == wanted
    assert isinstance(config["rope_parameters"]["factor"], float)
    assert config["rope_theta"] == 50_000.0
    assert config["max_position_embeddings"] == config["max_sequence_length"] == 160
    assert read(tmp_path / "out" / "tokenizer_config.json")["model_max_length"] == 160
    assert read(tmp_path / "out" / "generation_config.json") == {"max_length": 160, "eos_token_id": 1}
    assert load_tokenizer(tmp_path / "out").model_max_length == 160


def test_a_whole_factor_is_still_written_as_a_float(tmp_path: Path) -> None:
    extend(str(llama(tmp_path / "m")), str(tmp_path / "out"), to=256)
    assert '"factor": 4.0' in (tmp_path / "out" / "config.json").read_text()


@pytest.mark.parametrize("older", [False, True], ids=["config of transformers 5", "config of transformers 4"])
def test_extending_twice_is_extending_once_by_the_product(
    older: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"rope_parameters": None, "rope_theta": 50_000.0} if older else {}
    source = llama(tmp_path / "m", **changes)
    extend(str(source), str(tmp_path / "two"), to=128)
    capsys.readouterr()
    extend(str(tmp_path / "two"), str(tmp_path / "six"), to=384)
    assert "×2 it had, times ×3 now, = ×6 on the original 64 tokens" in capsys.readouterr().out
    extend(str(source), str(tmp_path / "once"), to=384)
    assert read(tmp_path / "six" / "config.json") == read(tmp_path / "once" / "config.json")
    block = model_block(tmp_path / "six")
    assert (block["window"], block["original_window"], block["factor"]) == (384, 64, 6.0)


def test_a_scaling_in_the_old_style_composes(tmp_path: Path) -> None:
    scaling = {"type": "linear", "factor": 2.0}
    source = llama(tmp_path / "m", rope_parameters=None, rope_theta=5e4, rope_scaling=scaling)
    extend(str(source), str(tmp_path / "out"), to=128)
    parameters = read(tmp_path / "out" / "config.json")["rope_parameters"]
    assert (parameters["factor"], parameters["rope_theta"]) == (4.0, 50_000.0)
    assert model_block(tmp_path / "out")["original_window"] == 32


def test_a_window_that_the_config_states_wrongly_can_be_said(tmp_path: Path) -> None:
    """A second extension must divide by the window that the model really has."""
    parameters = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e4}
    source = llama(tmp_path / "m", rope_parameters=parameters, max_position_embeddings=64)
    extend(str(source), str(tmp_path / "out"), to=512, window=256)
    config = read(tmp_path / "out" / "config.json")
    assert (config["rope_parameters"]["factor"], config["max_position_embeddings"]) == (8.0, 512)


def test_the_record_and_the_block_say_where_it_came_from(tmp_path: Path) -> None:
    result = extend(str(llama(tmp_path / "m")), str(tmp_path / "out"), to=256)
    record = read(tmp_path / "out" / "ropewalk.json")
    assert record["verb"] == "extend" and record["settings"]["to"] == 256
    assert record["from"]["window"] == 64 and record["model"]["window"] == 256
    assert record["model"] == model_block(tmp_path / "out")
    assert record["model"]["hash"] != record["from"]["hash"]
    assert result["findings"] == []


def test_serving_flags_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extend(str(llama(tmp_path / "m")), str(tmp_path / "out"), to=256)
    said = capsys.readouterr().out
    assert "--max-model-len 256" in said and "--context-length 256" in said
    assert "window 64 -> 256 tokens, factor 4" in said


@pytest.mark.parametrize("method", ["ntk", "dynamic", "yarn", "llama3", "longrope", "none"])
def test_every_method_is_written_so_that_transformers_builds_it(method: str, tmp_path: Path) -> None:
    more = {}
    if method == "longrope":
        (tmp_path / "f.json").write_text(json.dumps({"short_factor": [1.0] * 4, "long_factor": [1, 2, 3, 4]}))
        more = {"factors": str(tmp_path / "f.json")}
    if method == "yarn":
        (tmp_path / "f.json").write_text(json.dumps({"beta_fast": 8.0, "beta_slow": 0.25}))
        more = {"factors": str(tmp_path / "f.json")}
    result = extend(str(llama(tmp_path / "m")), str(tmp_path / "out"), to=256, method=method, **more)
    assert result["findings"] == []  # the tables that transformers builds are among what is looked at
    block = model_block(tmp_path / "out")
    assert (block["method"], block["window"], block["original_window"]) == (method, 256, 64)
    assert block["factor"] == (1.0 if method == "none" else 4.0)


def test_position_interpolation_on_a_shipped_scaling_divides_every_frequency(tmp_path: Path) -> None:
    """llama3 and yarn keep their table, divided by k: written as longrope, logits within rounding."""
    import torch

    for kind in ("llama3", "yarn"):
        shipped = {
            "rope_type": kind,
            "factor": 4.0,
            "rope_theta": 5e4,
            "original_max_position_embeddings": 64,
        }
        if kind == "llama3":
            shipped |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        else:
            shipped |= {"beta_fast": 8.0, "beta_slow": 0.25}
        source = llama(tmp_path / kind, rope_parameters=shipped, max_position_embeddings=256)
        extend(str(source), str(tmp_path / f"{kind}-out"), to=512)
        positions = torch.arange(48)[None]
        got = logits(tmp_path / f"{kind}-out", positions)
        torch.testing.assert_close(got, logits(source, positions.float() / 2), atol=2e-4, rtol=0)


def test_a_gguf_file_becomes_a_clean_checkpoint(tmp_path: Path) -> None:
    result = extend(str(gguf(tmp_path / "m.gguf")), str(tmp_path / "out"), to=256)
    assert result["findings"] == []
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer.decode(tokenizer.encode("hello 12\n")) == "hello 12\n"
    assert tokenizer.encode("12") != tokenizer.encode("lo") and len(tokenizer.encode("12")) == 2
    assert len(tokenizer.encode("lo")) == 1
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")
    assert tokenizer.model_max_length == 256
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"
    model = load_model(tmp_path / "out")
    assert model.config.rope_parameters["factor"] == 4.0
    assert getattr(model.config, "quantization_config", None) is None
    mode = os.stat(tmp_path / "out" / "model.safetensors").st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    assert mode == 0o666 & ~mask


def test_a_gguf_file_is_read_once_as_long_as_it_does_not_change(tmp_path: Path) -> None:
    """gguf takes seconds for a large vocabulary, and extend, its card and its tokenizer all ask."""
    from ropewalk.model import gguf_in

    file = gguf(tmp_path / "m.gguf")
    readings = [gguf_in._read.cache_info().misses, gguf_in._plain_config.cache_info().misses]
    extend(str(file), str(tmp_path / "out"), to=256)
    assert gguf_in._read.cache_info().misses == readings[0] + 1
    assert gguf_in._plain_config.cache_info().misses == readings[1] + 1
    gguf_in.read_gguf(file).meta["general.name"] = "remembered"
    os.utime(file, ns=(1, 1))
    assert gguf_in.read_gguf(file).meta.get("general.name") != "remembered"


def test_a_scaling_inside_a_gguf_file_is_kept_and_composed(tmp_path: Path) -> None:
    extend(str(gguf(tmp_path / "m.gguf", scaling=4.0)), str(tmp_path / "out"), to=128)
    block = model_block(tmp_path / "out")
    assert (block["factor"], block["original_window"], block["window"]) == (8.0, 16, 128)


def _gpt2(place: Path) -> Path:
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 64}))
    return place


def _pickled(place: Path) -> Path:
    source = llama(place)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    return source


def _cut(place: Path) -> Path:
    source = llama(place)
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return source


def _noise(place: Path) -> Path:
    source = llama(place)
    (source / "model.safetensors").write_bytes(b"\xff" * 5000)
    return source


def _cut_gguf(place: Path) -> Path:
    file = gguf(place.with_suffix(".gguf"))
    file.write_bytes(file.read_bytes()[:-1000])
    return file


def _cut_gguf_early(place: Path) -> Path:
    file = gguf(place.with_suffix(".gguf"))
    file.write_bytes(file.read_bytes()[:700])
    return file


def _foreign_tokenizer(place: Path) -> Path:
    return llama(place, vocab_size=100)


def _missing_shard(place: Path) -> Path:
    source = llama(place)
    (source / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "not-there.safetensors"}})
    )
    return source


def _unknown_type(place: Path) -> Path:
    return llama(place, rope_parameters={"rope_type": "spiral", "factor": 2.0, "rope_theta": 1e4})


def _no_factor(place: Path) -> Path:
    return llama(place, rope_parameters={"rope_type": "linear", "rope_theta": 1e4})


def _broken_json(place: Path) -> Path:
    source = llama(place)
    (source / "config.json").write_text("{")
    return source


def _unknown_family(place: Path) -> Path:
    return llama(place, model_type="sphinx", auto_map={"AutoModel": "modeling_sphinx.S"})


def _nothing(place: Path) -> Path:
    return place


def _adapter(place: Path) -> Path:
    place.mkdir()
    (place / "adapter_config.json").write_text("{}")
    return place


def _dynamic(place: Path) -> Path:
    return llama(place, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})


BAD = {
    "no such model": (_nothing, "no such model"),
    "not a RoPE model": (_gpt2, "family gpt2 has no rotary positions"),
    "only a pickle": (_pickled, "no pickle is ever loaded"),
    "weights cut off": (_cut, "corrupt: its header describes"),
    "weights are noise": (_noise, "cut off or is not safetensors"),
    "a shard is missing": (_missing_shard, "not-there.safetensors is missing"),
    "GGUF cut off": (_cut_gguf, "cut off"),
    "GGUF cut off early": (_cut_gguf_early, "cut off"),
    "foreign tokenizer": (_foreign_tokenizer, "does not match the model"),
    "unknown rope type": (_unknown_type, "rope type 'spiral'"),
    "linear without factor": (_no_factor, "transformers refuses this config.json"),
    "broken config": (_broken_json, "cannot be read as JSON"),
    "unknown family": (_unknown_family, "code shipped with a model is never run"),
    "an adapter": (_adapter, "adapter without its base model"),
    "dynamic": (_dynamic, "family llama: this checkpoint has dynamic scaling"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    make, wanted = BAD[case]
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in" / "m")
    with pytest.raises(UserError) as caught:
        extend(str(source), str(tmp_path / "out" / "x"), to=256)
    message = str(caught.value)
    assert wanted in message and "\n" not in message and len(message) < 400
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_target_that_is_not_longer_is_refused(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    for to in (64, 32):
        with pytest.raises(UserError, match=f"target {to} is not longer than the window"):
            extend(str(source), str(tmp_path / "out"), to=to)


def test_a_directory_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="not empty and was not made by ropewalk"):
        extend(str(source), str(tmp_path / "out"), to=256)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_a_finished_training_is_left_alone(tmp_path: Path) -> None:
    source, tuned = llama(tmp_path / "m"), tmp_path / "tuned"
    extend(str(source), str(tuned), to=128)
    edit(tuned / "ropewalk.json", verb="finetune")
    (tuned / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds what `ropewalk finetune` made"):
        extend(str(source), str(tuned), to=256)
    assert model_block(tuned)["window"] == 128 and (tuned / "notes.txt").read_text() == "mine"


def test_a_checkpoint_is_not_written_over_itself(tmp_path: Path) -> None:
    made = tmp_path / "made"
    extend(str(llama(tmp_path / "m")), str(made), to=256)
    for out in (made, made / "inside"):
        with pytest.raises(UserError, match="is the model itself"):
            extend(str(made), str(out), to=512)


def test_extending_again_into_the_same_directory_replaces_it(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    extend(str(source), str(tmp_path / "out"), to=128)
    extend(str(source), str(tmp_path / "out"), to=256)
    assert model_block(tmp_path / "out")["window"] == 256


def test_pickles_code_and_model_cards_are_not_carried_along(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    for name in (
        "pytorch_model.bin",
        "modeling.py",
        "README.md",
        "training_args.bin",
        "LICENSE",
        "optimizer.pt",
    ):
        (source / name).write_text("x")
    extend(str(source), str(tmp_path / "out"), to=256)
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert "LICENSE" in names
    assert not names & {"pytorch_model.bin", "modeling.py", "training_args.bin", "optimizer.pt"}
    assert (tmp_path / "out" / "README.md").read_text() != "x"  # the new card, not the old one


def test_a_truncation_inside_the_tokenizer_is_lifted(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    cut = {"direction": "Right", "max_length": 64, "strategy": "LongestFirst", "stride": 0}
    edit(source / "tokenizer.json", truncation=cut)
    assert extend(str(source), str(tmp_path / "out"), to=256)["findings"] == []
    assert read(tmp_path / "out" / "tokenizer.json")["truncation"] is None
