"""transformers without its chatter: our own lines say what matters."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator

ASKED = os.environ.get("TOKENIZERS_PARALLELISM")
"""What the user set; left alone. Else their threads are off but in `all_cores`: forks do not bear them."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings and no progress bars from transformers inside; all as before afterwards."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def all_cores() -> Iterator[None]:
    """Inside, a list of texts is tokenised by several threads, unless the user set it otherwise."""
    os.environ["TOKENIZERS_PARALLELISM"] = ASKED or "true"
    try:
        yield
    finally:
        os.environ["TOKENIZERS_PARALLELISM"] = ASKED or "false"
