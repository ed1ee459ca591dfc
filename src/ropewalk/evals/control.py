"""One pass over whole documents with hardly any window read twice: what a sample of windows is corrected by.

Some passages are hard and others easy, with any context; that is nearly all by which the losses of windows
differ. A pass that reads every token about once (windows side by side, a little overlapping) shows it for the
price of 4/3 tokens a token, where sliding windows of L tokens cost L / S each. On its losses those of the
sampled windows are regressed (Cochran 1977, section 7.10: the combined regression estimate in stratified
sampling), and on the logarithm of the context that the pass had: less to go by, higher losses.
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

OVERLAP = 1 / 4
"""Share of a window of the pass that only the window before it is scored in: context for the rest."""

COLUMNS = 2
"""What is known of a window: its scored tokens' loss in the pass, and the logarithm of their context."""


def pays(share: float, context: int, stride: int) -> bool:
    """Is the pass worth its price beside a sample of ``share`` of the windows?

    A sample that costs less than an eighth of the pass should rather be made larger, and at short contexts
    reading all windows costs little more.
    """
    return context >= 8 * stride and share * context / stride >= 1 / 8


def known(
    lm: LanguageModel,
    texts: Sequence[Text],
    every: Sequence[Sequence[Window]],
    context: int,
    stride: int,
    group: str,
    cells: Cells,
) -> list[np.ndarray]:
    """What the pass says of each document's windows but its first: (windows − 1, COLUMNS).

    every: the windows of each document, of ``context`` tokens and stride ``stride``.
    """
    tables = short_losses(lm, texts, context, stride, group, cells)
    offset = _offset(lm, context, stride)
    return [
        table[[int(_block(window.first_scored, stride, offset)) for window in islice(windows, 1, None)]]
        for table, windows in zip(tables, every)
    ]


def short_losses(
    lm: LanguageModel, texts: Sequence[Text], context: int, stride: int, group: str, cells: Cells
) -> list[np.ndarray]:
    """For each document the sums over its blocks of ``stride`` tokens in the pass: (blocks, COLUMNS).

    Block b holds the tokens offset + (b − 1)·S … offset + b·S − 1: those that one window scores. In the
    pass every token is scored once, with at least OVERLAP·L before it, but at the start of a document.
    """
    unseen, offset = int(lm.bos is None), _offset(lm, context, stride)
    room = context - 1 + unseen
    step = context - max(1, round(OVERLAP * context / stride)) * stride
    jobs = [(i, w) for i, text in enumerate(texts) for w in sliding(len(text.ids), room, step, unseen)]

    def reduce(losses: torch.Tensor, window: Window) -> list[float]:
        blocks = _block(np.arange(window.first_scored, window.stop), stride, offset)
        return np.bincount(blocks - blocks[0], weights=losses.numpy()).tolist()

    label = f"{group} control {context}"
    found = read_windows(lm, texts, jobs, reduce, cells, label, step)
    made = [np.zeros((int(_block(len(text.ids) - 1, stride, offset)) + 1, COLUMNS)) for text in texts]
    for (i, window), values in zip(jobs, found):
        places = np.arange(window.first_scored, window.stop)
        blocks = _block(places, stride, offset)
        some = made[i][blocks[0] : blocks[0] + len(values)]
        some[:, 0] += values
        some[:, 1] += np.bincount(blocks - blocks[0], weights=np.log(places - window.start + 1))
    return made


def _offset(lm: LanguageModel, context: int, stride: int) -> int:
    """Where the second block begins: windows score whole blocks from there on."""
    return (context - (lm.bos is not None)) % stride


def _block(position: int | np.ndarray, stride: int, offset: int) -> np.ndarray:
    """The block of a position: 0 for those before the offset."""
    return (np.asarray(position) - offset) // stride + 1
