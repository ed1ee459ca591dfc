"""One pass with a short context over whole documents: what a sample of long windows is corrected by.

Some passages are hard and others easy, with any context; that is nearly all by which the losses of windows
differ. A pass that reads every token once (windows of 4 strides side by side) shows it for the price of one
token a token, where sliding windows of L tokens cost L / S each. On its losses those of the sampled windows
are regressed (Cochran 1977, section 7.10: the combined regression estimate in stratified sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from ..metrics.windows import Window, sliding
from ..model.lm import LanguageModel
from ..results.cells import Cells
from .texts import Text, read_windows

STRIDES = 4
"""Context of the pass, in strides."""


def pays(share: float, context: int, stride: int) -> bool:
    """Is the pass worth its price beside a sample of ``share`` of the windows?

    It divided the sampling variance by 12 to 22 on three books (the embedded model, windows of 512, passes of
    256 and 512 tokens); so a sample that costs less than an eighth of the pass should rather be made larger,
    and at short contexts reading all windows costs little more.
    """
    return context >= 2 * STRIDES * stride and share * context / stride >= 1 / 8


def short_losses(
    lm: LanguageModel, texts: Sequence[Text], stride: int, offset: int, group: str, cells: Cells
) -> list[np.ndarray]:
    """For each document the losses of its blocks of ``stride`` tokens, in a short context: (blocks, 3).

    Block b holds the tokens offset + (b − 1)·S … offset + b·S − 1.  offset: 0 … S − 1.
    The columns are the block's loss (nats) and its tokens × the sine and cosine of its place in the window
    that read it: at the start of a window there is less to go by.
    """
    unseen = int(lm.bos is None)  # tokens at the start of a window that nothing stands before
    room = STRIDES * stride - 1 + unseen
    step = room - unseen
    jobs = [(i, w) for i, text in enumerate(texts) for w in sliding(len(text.ids), room, step, unseen)]

    def reduce(losses: torch.Tensor, window: Window) -> list[float]:
        blocks = _block(np.arange(window.first_scored, window.stop), stride, offset)
        return np.bincount(blocks - blocks[0], weights=losses.numpy()).tolist()

    found = read_windows(lm, texts, jobs, reduce, cells, f"{group} control {offset}", step)
    made = [np.zeros((int(_block(len(text.ids) - 1, stride, offset)) + 1, 3)) for text in texts]
    for (i, window), values in zip(jobs, found):
        first = int(_block(window.first_scored, stride, offset))
        made[i][first : first + len(values), 0] += values
    for table in made:
        angle = 2 * np.pi * ((offset + (np.arange(len(table)) - 0.5) * stride) % step) / step
        table[:, 1], table[:, 2] = stride * np.sin(angle), stride * np.cos(angle)
    return made


def _block(position: int | np.ndarray, stride: int, offset: int) -> np.ndarray:
    """The block of a position: 0 for those before the offset."""
    return (np.asarray(position) - offset) // stride + 1


def of_windows(table: np.ndarray, windows: Sequence[Window], stride: int, offset: int) -> np.ndarray:
    """The rows of `short_losses` for all windows of one document but its first: (windows − 1, 3)."""
    at = [int(_block(window.first_scored, stride, offset)) for window in islice(windows, 1, None)]
    return table[at]
