"""GGUF out: what is in the file, that it reads back as the same model, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file
from tiny_checkpoints import edit, llama, read

from ropewalk.errors import UserError
from ropewalk.model.config import read_state
from ropewalk.model.convert import to_checkpoint
from ropewalk.model.gguf_in import metadata
from ropewalk.model.gguf_out import write_gguf
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.model.scaling import extended_config
from ropewalk.model.source import resolve

IDS = torch.arange(60)[None] * 7 % 250
TEXT = "def f(x1=2048, y): # naïve – 3½ it's\n\n\treturn  'a' + str(10 ** 4)\r\n  日本 <s>"


def logits(path: Path) -> torch.Tensor:
    with torch.no_grad():
        return load_model(path)(IDS, use_cache=False).logits


def write(source: Path, file: Path, **more) -> tuple[dict, dict[str, np.ndarray]]:
    """(metadata, tensors by name) of the file that `write_gguf` writes."""
    write_gguf(source, file, name="tiny", **more)
    reader = GGUFReader(str(file))
    return metadata(reader), {t.name: (t.tensor_type.name, tuple(t.shape), t.data) for t in reader.tensors}


def extended(place: Path, to: int, method: str, **more) -> Path:
    source = llama(place)
    config = extended_config(read(source / "config.json"), to, method, **more)
    (source / "config.json").write_text(json.dumps(config))
    return source


def test_the_keys_say_window_base_and_interpolation(tmp_path: Path) -> None:
    meta, _ = write(extended(tmp_path / "m", 256, "linear"), tmp_path / "m.gguf")
    wanted = {
        "general.architecture": "llama",
        "llama.context_length": 256,
        "llama.rope.freq_base": 50_000.0,
        "llama.rope.dimension_count": 8,
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 64,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.block_count": 2,
        "llama.embedding_length": 32,
        "llama.feed_forward_length": 64,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }
    assert {key: meta.get(key) for key in wanted} == wanted
    assert meta["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)


def test_an_unscaled_model_has_no_scaling_key(tmp_path: Path) -> None:
    meta, tensors = write(llama(tmp_path / "m"), tmp_path / "m.gguf")
    assert not [key for key in meta if "scaling" in key] and "rope_freqs.weight" not in tensors


def test_tensors_are_the_checkpoints_with_q_and_k_in_neighbouring_pairs(tmp_path: Path) -> None:
    """Row j of a head's first half at 2j, of its second half at 2j + 1 (llama.cpp's rotation)."""
    source = llama(tmp_path / "m")
    _, tensors = write(source, tmp_path / "m.gguf")
    theirs = load_file(source / "model.safetensors")
    assert len(tensors) == len(theirs)
    heads, d = {"q": 4, "k": 2}, 8
    for letter, count in heads.items():
        want = theirs[f"model.layers.1.self_attn.{letter}_proj.weight"].numpy()
        got = tensors[f"blk.1.attn_{letter}.weight"][2]
        back = np.empty_like(got)
        for head in range(count):
            for j in range(d // 2):
                back[head * d + j] = got[head * d + 2 * j]
                back[head * d + d // 2 + j] = got[head * d + 2 * j + 1]
        assert np.array_equal(back, want) and not np.array_equal(got, want)
    for name, new in (
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"),
        ("model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"),
        ("model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight"),
    ):
        assert np.array_equal(tensors[new][2], theirs[name].numpy()), name


@pytest.mark.parametrize("method", ["none", "linear", "yarn", "llama3", "linear on llama3", "ntk"])
def test_a_model_comes_back_from_its_gguf_file_with_the_same_logits_and_window(
    tmp_path: Path, method: str
) -> None:
    source = extended(tmp_path / "m", 256, method.split(" on ")[-1])
    if " on " in method:
        config = extended_config(read(source / "config.json"), 512, "linear")
        (source / "config.json").write_text(json.dumps(config))
    write_gguf(source, tmp_path / "m.gguf", name="m")
    to_checkpoint(resolve(str(tmp_path / "m.gguf")), tmp_path / "back")
    torch.testing.assert_close(logits(tmp_path / "back"), logits(source), rtol=1e-4, atol=1e-4)
    assert read_state(read(tmp_path / "back" / "config.json")).window == (512 if " on " in method else 256)
    plain = llama(tmp_path / "plain")
    if method not in ("none", "ntk"):
        assert (logits(plain) - logits(source)).abs().max() > 0.05  # the scaling is seen at all


def test_the_embedded_model_comes_back_with_its_tokenizer(tmp_path: Path) -> None:
    source = resolve("embedded").path
    meta, tensors = write(source, tmp_path / "m.gguf")
    assert meta["tokenizer.ggml.pre"] == "smollm" and "output.weight" not in tensors
    assert tensors["token_embd.weight"][0] == "BF16" and tensors["output_norm.weight"][0] == "F32"
    to_checkpoint(resolve(str(tmp_path / "m.gguf")), tmp_path / "back")
    assert torch.equal(logits(tmp_path / "back"), logits(source))
    one, other = load_tokenizer(source), load_tokenizer(tmp_path / "back")
    ids = one(TEXT)["input_ids"]
    assert other(TEXT)["input_ids"] == ids and other.decode(ids) == one.decode(ids)


@pytest.mark.parametrize(("kind", "share"), [("f32", 0), ("f16", 2**-11), ("bf16", 2**-8)])
def test_matrices_have_the_precision_asked_for_and_vectors_float32(tmp_path, kind, share) -> None:
    source = llama(tmp_path / "m")
    write_gguf(source, tmp_path / "m.gguf", kind=kind, name="m")
    tensors = {t.name: t for t in GGUFReader(str(tmp_path / "m.gguf")).tensors}
    assert {t.tensor_type.name for t in tensors.values()} == {"F32", kind.upper()}
    assert tensors["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    raw = tensors["blk.0.attn_v.weight"]
    got = raw.data.view(np.uint16).astype(np.uint32) << 16 if kind == "bf16" else raw.data
    got = got.view(np.float32) if kind == "bf16" else got.astype(np.float32)
    want = load_file(source / "model.safetensors")["model.layers.0.self_attn.v_proj.weight"].numpy()
    assert (np.abs(got.reshape(want.shape) - want) <= share * np.abs(want)).all()


def test_a_number_beyond_float16_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    from ropewalk.verbs.export import export

    source = llama(tmp_path / "m")
    weights = load_file(source / "model.safetensors")
    weights["lm_head.weight"][3, 3] = 1e5
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head.weight .* float16"):
        export(str(source), str(tmp_path / "m.gguf"), type="f16")
    assert os.listdir(tmp_path) == ["m"]


def test_embedding_rows_without_a_token_are_unused_tokens(tmp_path: Path) -> None:
    source = llama(tmp_path / "m", vocab_size=261)
    weights = load_file(source / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = torch.cat([weights[name], torch.zeros(3, 32)])
    save_file(weights, source / "model.safetensors", {"format": "pt"})
    meta, _ = write(source, tmp_path / "m.gguf")
    assert meta["tokenizer.ggml.tokens"][258:] == ["[PAD258]", "[PAD259]", "[PAD260]"]
    assert meta["tokenizer.ggml.token_type"][256:] == [1, 1, 5, 5, 5]
    assert meta["tokenizer.ggml.token_type"][:3] == [3, 3, 1]


def sentencepiece(place: Path, *, swap: bool = False) -> Path:
    """The tiny Llama with a vocabulary as LLaMA's: bytes to fall back on, a space in front."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    source = llama(place)
    merges = [("▁", "a"), ("b", "c"), ("▁a", "bc")]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(200))]
    words += ["".join(m) for m in merges] + ["▁", "a", "b", "c", "d"]
    built = Tokenizer(
        models.BPE(
            {word: i for i, word in enumerate(words)},
            merges[::-1] if swap else merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    built.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    built.add_special_tokens([AddedToken(token, special=True) for token in words[:3]])
    built.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    built.save(str(source / "tokenizer.json"))
    edit(source / "tokenizer_config.json", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return source


def test_a_sentencepiece_vocabulary_gets_scores_in_the_order_of_its_pieces(tmp_path: Path) -> None:
    source = sentencepiece(tmp_path / "m")
    meta, _ = write(source, tmp_path / "m.gguf")
    assert meta["tokenizer.ggml.model"] == "llama" and meta["tokenizer.ggml.add_space_prefix"] is True
    assert meta["tokenizer.ggml.scores"][203:206] == [0.0, -1.0, -2.0]
    types = meta["tokenizer.ggml.token_type"]
    assert types[:4] == [2, 3, 3, 6] and types[202:204] == [6, 1]
    to_checkpoint(resolve(str(tmp_path / "m.gguf")), tmp_path / "back")
    one, other = load_tokenizer(source), load_tokenizer(tmp_path / "back")
    for text in ("abc", "a bc ab", "dabc  abc", "a#"):
        assert other(text)["input_ids"] == one(text)["input_ids"]


def test_merges_in_another_order_than_the_pieces_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="merges"):
        write_gguf(sentencepiece(tmp_path / "m", swap=True), tmp_path / "m.gguf", name="m")
    assert not (tmp_path / "m.gguf").exists()


def other_pre_tokenizer(source: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated", "invert": False}
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    edit(source / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": [split, plain]})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: edit(s / "config.json", model_type="qwen2"), r"qwen2.*convert_hf_to_gguf\.py"),
        (lambda s: edit(s / "config.json", hidden_act="gelu"), "gelu"),
        (lambda s: edit(s / "config.json", model_type="mistral", sliding_window=16), "looks back 16"),
        (
            lambda s: edit(
                s / "config.json", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
            ),
            "dynamic",
        ),
        (other_pre_tokenizer, "pre-tokenizer"),
    ],
    ids=["family", "activation", "sliding", "dynamic", "pre-tokenizer"],
)
def test_what_llama_cpp_would_read_otherwise_is_refused(tmp_path: Path, change, words: str) -> None:
    source = llama(tmp_path / "m")
    change(source)
    with pytest.raises(UserError, match=words):
        write_gguf(source, tmp_path / "m.gguf", name="m")
    assert not (tmp_path / "m.gguf").exists()


def model_for_llama_cpp(name: str, place: Path) -> Path:
    """The model extended fourfold, as a checkpoint. Skips where it or llama.cpp is not there."""
    from ropewalk.verbs.extend import extend

    pytest.importorskip("cyllama", reason="llama.cpp is not here (pip install cyllama)")
    try:
        window = read_state(read(resolve(name).path / "config.json")).window if name == "embedded" else 8192
        resolve(name)
    except UserError as error:
        pytest.skip(str(error))
    extend(name, str(place), to=4 * window)
    return place


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["embedded", "smollm2"])
def test_llama_cpp_gives_the_logits_and_tokens_of_transformers(tmp_path: Path, name: str) -> None:
    """600 tokens at ×4, float32. Measured: largest difference 3e-5 (embedded) and 7e-5 (SmolLM2)."""
    import llama_cpp_logits as llama_cpp

    source = model_for_llama_cpp(name, tmp_path / "m")
    write_gguf(source, tmp_path / "m.gguf", kind="f32", name="m")
    text = Path(shutil.__file__).read_text()[:4000] + TEXT.replace("<s>", "")
    ids = load_tokenizer(source)(text, add_special_tokens=False)["input_ids"]
    assert llama_cpp.tokens(tmp_path / "m.gguf", text) == ids
    ids = ids[:600]
    with torch.no_grad():
        mine = load_model(source)(torch.tensor([ids])).logits[0].numpy()
    theirs = llama_cpp.logits(tmp_path / "m.gguf", ids)
    assert (mine.argmax(-1) == theirs.argmax(-1)).mean() >= 0.99
    assert np.abs(mine - theirs).max() < 0.01


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_smollm2_comes_out_as_its_own_gguf_file_with_the_scaling_added(tmp_path: Path) -> None:
    """An independent reference for layout and vocabulary: the file that llama.cpp's own converter wrote."""
    from gguf.quants import dequantize

    from ropewalk.verbs.extend import extend

    try:
        original = resolve("smollm2").path
    except UserError as error:
        pytest.skip(str(error))
    extend("smollm2", str(tmp_path / "m"), to=32_768)
    meta, tensors = write(tmp_path / "m", tmp_path / "m.gguf")
    reader = GGUFReader(str(original))
    theirs = metadata(reader)
    ours = ("llama.context_length", "llama.rope.scaling.", "llama.attention.key_", "llama.attention.value_")
    both = set(meta) & set(theirs)
    assert {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.pre"} <= both
    for key in both:
        if not key.startswith(("general.", *ours)):
            assert meta[key] == theirs[key], key
    assert set(tensors) == {tensor.name for tensor in reader.tensors}
    for tensor in reader.tensors:
        assert np.array_equal(dequantize(tensor.data, tensor.tensor_type), tensors[tensor.name][2])
