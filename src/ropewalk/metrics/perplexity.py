"""Perplexity from losses: exact over all windows, or estimated from a random few of them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .intervals import CONFIDENCE, student_quantile


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats a token; a uniform guess over V tokens has perplexity V."""
    return math.exp(min(loss, 700.0))  # above, a float cannot hold it


@dataclass(frozen=True)
class Stratum:
    """The windows of one document after its first, of which some were read.

    loss, tokens: (read,), total loss and number of scored tokens of each window that was read.
    windows, all_tokens: how many windows there are, and how many tokens they score together.
    """

    loss: Sequence[float]
    tokens: Sequence[int]
    windows: int
    all_tokens: int

    @property
    def estimate(self) -> float:
        """The total loss of all windows: the mean loss of what was read times all tokens."""
        return math.fsum(self.loss) / sum(self.tokens) * self.all_tokens if self.windows else 0.0

    @property
    def variance(self) -> float:
        """The sampling variance of `estimate` (Cochran 1977, eq. 6.13, with finite-population correction).

        0 when all windows were read.  With a single window of several read, nan: it cannot be known.
        """
        read = len(self.loss)
        if read == self.windows:
            return 0.0
        if read < 2:
            return math.nan
        mean = math.fsum(self.loss) / sum(self.tokens)
        residual = math.fsum((x - mean * m) ** 2 for x, m in zip(self.loss, self.tokens)) / (read - 1)
        return self.windows**2 * (1 - read / self.windows) / read * residual


def slopes(strata: Sequence[Stratum], known: Sequence[np.ndarray]) -> np.ndarray:
    """How the losses that were read follow what is known of every window: least squares within strata.

    known: for each stratum (read, p), of the windows that were read.  Returns (p,); zeros where too few
    were read to tell. Taking b·known from the losses and adding b·(its sum over all windows) changes the
    estimate's expectation by O(1/n) only, whatever b (Cochran 1977, section 7.10), and its variance to
    that of the residuals.
    """
    width = known[0].shape[1]
    freedom = sum(max(0, len(s.loss) - 1) for s in strata)
    if freedom < 5 * width:
        return np.zeros(width)
    rows, values = [], []
    for stratum, x in zip(strata, known):
        if len(stratum.loss) < 2:
            continue
        tokens, y = np.asarray(stratum.tokens, dtype=np.float64), np.asarray(stratum.loss)
        weight = math.sqrt(stratum.windows / len(y))
        rows.append(weight * (x - np.outer(tokens, x.sum(axis=0) / tokens.sum())))
        values.append(weight * (y - tokens * (y.sum() / tokens.sum())))
    return np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=None)[0]


def sampled_interval(
    sure: float, strata: Sequence[Stratum], tokens: int, confidence: float = CONFIDENCE, fitted: int = 0
) -> tuple[float, float] | None:
    """Interval for the mean loss that reading *all* windows of these documents would have given.

    sure: total loss of the windows that are always read.  tokens: all tokens scored, read or not.
    fitted: how many `slopes` the strata's losses were corrected by.
    This is the error of sampling alone; how far other documents may differ is `document_interval`'s.
    None when a stratum has too few windows to say.
    """
    variance = math.fsum(s.variance for s in strata)
    if math.isnan(variance):
        return None
    freedom = sum(max(0, len(s.loss) - 1) for s in strata)
    if fitted and freedom > fitted:
        variance *= freedom / (freedom - fitted)
    mean = (sure + math.fsum(s.estimate for s in strata)) / tokens
    quantile = student_quantile(0.5 + confidence / 2, max(1, freedom - fitted))
    half = quantile * math.sqrt(variance) / tokens
    return mean - half, mean + half


def choose_windows(counts: Sequence[int], share: float, seed: int | str) -> list[list[int]]:
    """A random subset of each document's windows: strata are documents, so each is there by its size.

    counts: (documents,), windows of each besides its first (which is always read: it scores L tokens for
    the price of S).  share: 0 < share <= 1 of them; at least two of a document, so that its spread is
    known.  Returns for each document the sorted indices, 0 … count − 1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"a share of {share} of the windows is not above 0 and at most 1")
    chosen = []
    for document, count in enumerate(counts):
        take = min(count, max(2, math.ceil(share * count)))
        draw = random.Random(f"{seed}/{document}")
        chosen.append(sorted(draw.sample(range(count), take)))
    return chosen
