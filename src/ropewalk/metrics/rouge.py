"""ROUGE as the rouge-score package computes it (the extra ``summarization``), stemmed, F-measure."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..errors import UserError

METRICS = ("rouge1", "rouge2", "rougeL")


def rouge(reference: str, summary: str) -> dict[str, float]:
    """ROUGE-1, -2 and -L of a summary against its reference: F-measures in [0, 1], Porter-stemmed.

    ROUGE-L takes the longest common subsequence over the whole texts (not sentence by sentence, which
    rouge-score calls rougeLsum). Raises UserError when rouge-score is not installed.

    >>> rouge("the cat sat", "a cat sat down")["rouge1"]
    0.5714285714285715
    """
    found = _scorer().score(reference, summary)
    return {name: float(found[name].fmeasure) for name in METRICS}


@cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise UserError("ROUGE needs rouge-score: pip install 'ropewalk[summarization]'") from None
    return RougeScorer(list(METRICS), use_stemmer=True)
