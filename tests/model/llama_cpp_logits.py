"""llama.cpp's logits of a GGUF file, for the tests that compare them; needs llama-cpp-python."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def logits(file: Path, ids: list[int]) -> np.ndarray:
    """(T, V) float32 logits of ``ids`` as they stand: no BOS is added, no setting overrides the file's."""
    from llama_cpp import Llama

    model = Llama(str(file), n_ctx=len(ids), n_batch=len(ids), logits_all=True, verbose=False, n_threads=1)
    model.eval(ids)
    return np.array(model.scores[: len(ids)], dtype=np.float32)


def tokens(file: Path, text: str) -> list[int]:
    """llama.cpp's own tokens of a text, no special ones added."""
    from llama_cpp import Llama

    return Llama(str(file), vocab_only=True, verbose=False).tokenize(
        text.encode(), add_bos=False, special=False
    )
