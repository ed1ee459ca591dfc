"""Passages of a window that come back later in it: what asks a model to look back any distance.

In a stretch of a book almost nothing needs the words of 15,000 tokens ago. A passage that stands a second
time is predicted perfectly by whoever finds the first, and by nobody else:

    a b c d e f g h i j k l m n o p        d = 9 tokens, ℓ = 3
    a b c d e f g h i j B C D n o p        b c d once more: after B, the first gives C D

d is the larger of two even draws over the window's distances, so that the longest are asked for most (plain
text teaches the short ones), and the place is drawn evenly among those left. The second passage overwrites
what stood there.
"""

from __future__ import annotations

import numpy as np

EVERY = 256
"""Tokens of window for each of which ``density`` passages come back."""
SHORTEST, LONGEST = 8, 32
"""ℓ, tokens in a passage: at density 1 about 8 % of the window is overwritten."""


def with_repeats(ids: np.ndarray, rng: np.random.Generator, density: float = 1.0) -> np.ndarray:
    """A copy of the window (T,) with density · T/256 passages (at least one) standing a second time.

    Windows of fewer than two of the longest passages stay as they are.
    """
    length = len(ids)
    if length < 2 * LONGEST:
        return ids
    ids = ids.copy()
    for _ in range(max(1, int(density * length) // EVERY)):
        long = int(rng.integers(SHORTEST, LONGEST + 1))
        back = int(rng.integers(long, length - long + 1, size=2).max())
        at = int(rng.integers(back, length - long + 1))
        ids[at : at + long] = ids[at - back : at - back + long]
    return ids
