"""Tasks of lm-evaluation-harness itself, run by it on our `LanguageModel` (the extra ``bench``)."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from ..errors import UserError
from ..model.lm import LanguageModel
from .likelihood import encode_pair, log_likelihoods


def lm_eval_version() -> str:
    """The installed version of lm-eval. Raises UserError when there is none."""
    try:
        return importlib.metadata.version("lm-eval")
    except importlib.metadata.PackageNotFoundError:
        raise UserError("lm-eval's own tasks need lm-eval: pip install 'ropewalk[bench]'") from None


def lm_eval_rows(lm: LanguageModel, task: str, limit: int | None, window: int | None) -> list[dict[str, Any]]:
    """Rows of one lm-eval task (a group gives several): ``{"task", "items", "items_norm"}``.

    Raises UserError: lm-eval is not installed, the task is unknown, its data cannot be had, or it is not
    scored by accuracy (generation is not offered here).
    """
    lm_eval_version()
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if task not in manager.all_tasks:
        raise UserError(f"lm-eval has no task {task!r}; `lm-eval ls tasks` lists them")
    try:
        found = evaluate(lm, [task], manager, limit, window)
    except (OSError, ValueError) as error:  # what `datasets` raises for absent, gated and offline sets
        raise UserError(f"lm-eval task {task}: {' '.join(str(error).split())[:200]}") from None
    rows = []
    for name, samples in found["samples"].items():
        if not all("acc" in sample for sample in samples):
            raise UserError(f"lm-eval task {name} is not scored by accuracy; run it with lm-eval itself")
        samples = sorted(samples, key=lambda sample: sample["doc_id"])
        row = {"task": f"lm-eval:{name}", "items": _items(samples, "acc")}
        if all("acc_norm" in sample for sample in samples):
            row["items_norm"] = _items(samples, "acc_norm")
        rows.append(row)
    return rows


def evaluate(
    lm: LanguageModel, tasks: list[str], manager: Any, limit: int | None = None, window: int | None = None
) -> dict[str, Any]:
    """lm-eval's own result dictionary for ``lm``, zero-shot, with every sample in it."""
    import lm_eval

    found = lm_eval.simple_evaluate(
        model=_adapter(lm, window),
        tasks=tasks,
        task_manager=manager,
        num_fewshot=0,
        limit=limit,
        log_samples=True,
        bootstrap_iters=0,
    )
    assert found is not None, "lm-eval answers None on secondary processes only"
    return found


def _adapter(lm: LanguageModel, window: int | None) -> Any:
    """lm-eval's view of our model: log-likelihoods only."""
    from lm_eval.api.model import LM

    class Adapter(LM):
        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            pairs = [encode_pair(lm, *request.args) for request in requests]
            return [(value, False) for value in log_likelihoods(lm, pairs, window)]

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
            raise UserError("this lm-eval task scores whole texts; use ropewalk's perplexity instead")

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
            raise UserError("this lm-eval task generates text; run it with lm-eval itself")

    return Adapter()


def _items(samples: list[dict[str, Any]], metric: str) -> str:
    return "".join("1" if sample[metric] else "0" for sample in samples)
