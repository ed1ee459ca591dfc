"""llama.cpp's logits and tokens of a GGUF file, for the tests that compare them.

Needs `pip install cyllama`: llama.cpp with its C interface as a wheel for the CPU, nothing to compile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

F32, OFF = 0, 0  # of ggml_type and of llama_flash_attn_type


def opened(file: Path):
    """The model of a GGUF file, on the CPU, silent."""
    from cyllama.llama import llama_cpp

    class Model(llama_cpp.LlamaModel):
        """cyllama's own code asks the model for `n_vocab`, which in 0.2.18 only the vocabulary has."""

        @property
        def n_vocab(self) -> int:
            return int(self.get_vocab().n_vocab)

    llama_cpp.disable_logging()
    llama_cpp.ggml_backend_load_all()
    params = llama_cpp.LlamaModelParams()
    params.n_gpu_layers = 0
    return Model(str(file), params, verbose=False)


def logits(file: Path, ids: list[int]) -> np.ndarray:
    """(T, V) float32 logits of ``ids`` as they stand: no BOS is added, no setting overrides the file's.

    Keys and values are kept in float32 (llama.cpp's own default is float16); the attention is the plain one.
    """
    from cyllama.llama import llama_cpp

    model = opened(file)
    params = llama_cpp.LlamaContextParams()
    params.n_ctx = params.n_batch = params.n_ubatch = len(ids)
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = F32
    params.flash_attn_type = OFF
    context = llama_cpp.LlamaContext(model, params, verbose=False)
    batch = llama_cpp.LlamaBatch(n_tokens=len(ids), embd=0, n_seq_max=1)
    for place, token in enumerate(ids):
        batch.add(token, place, [0], True)
    context.decode(batch)
    return np.array([context.get_logits_ith(place) for place in range(len(ids))], dtype=np.float32)


def tokens(file: Path, text: str) -> list[int]:
    """llama.cpp's own tokens of a text, no special ones added."""
    model = opened(file)  # the vocabulary does not keep its model alive
    return list(model.get_vocab().tokenize(text, False, False))
