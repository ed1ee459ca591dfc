"""lm-evaluation-harness is the reference: the same questions, its own definitions, its own model class.

Needs the extra ``bench``; the data are local files, so that no Hub is asked. Another checkpoint and
other files can be compared through ROPEWALK_BENCH_MODEL and ROPEWALK_BENCH_DATA (a directory with
boolq.parquet, piqa.parquet and winogrande.parquet), ROPEWALK_BENCH_LIMIT questions of each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ropewalk.data.tables import read_rows
from ropewalk.evals.benchmark import BenchmarkSettings, run
from ropewalk.evals.harness import evaluate
from ropewalk.results.cells import Cells

lm_eval = pytest.importorskip("lm_eval", reason="the extra `bench` (lm-eval) is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

YAMLS = {
    "boolq": "super_glue/boolq/default.yaml",
    "piqa": "piqa/piqa.yaml",
    "winogrande": "winogrande/default.yaml",
}
TEXT = "the rope walk is a long lane where hemp and yarn were twisted by hand into strands of rope"
WORDS = TEXT.split()


def sentence(generator, n):
    picked = torch.randint(len(WORDS), (n,), generator=generator).tolist()
    return " ".join(WORDS[i] for i in picked)


def made_questions():
    g = torch.Generator().manual_seed(0)
    rows = {"boolq": [], "piqa": [], "winogrande": []}
    for i in range(40):
        some = [sentence(g, 3 + (i * k) % 11) for k in range(1, 5)]
        rows["boolq"].append({"passage": some[0], "question": some[1], "label": i % 2})
        rows["piqa"].append({"goal": some[0], "sol1": some[1], "sol2": some[2], "label": i % 2})
        blank = {"sentence": f"{some[0]} _ {some[1]}.", "option1": some[2], "option2": some[3]}
        rows["winogrande"].append({**blank, "answer": str(1 + i % 2)})
    return rows


def given_questions(place, limit):
    rows = {name: read_rows(f"{place}/{name}.parquet", (), limit) for name in YAMLS}
    rows["boolq"] = [{**row, "label": int(row["answer"])} for row in rows["boolq"]]
    return rows


def tiny_model(path, bos):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([TEXT, "Question: Answer: yes no"], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(
        path
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


def lm_eval_tasks(tmp_path, rows):
    """lm-eval's own task definitions over local files; and the files."""
    from lm_eval.tasks import TaskManager

    home = Path(lm_eval.__file__).parent / "tasks"
    (tmp_path / "tasks").mkdir()
    for name, yaml in YAMLS.items():
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        (tmp_path / "tasks" / f"{name}.yaml").write_text(
            f"include: {home / yaml}\ntask: local_{name}\ntag: null\ndataset_path: json\ndataset_name: null\n"
            f"dataset_kwargs:\n  data_files:\n    validation: {file}\n"
            "training_split: null\ntest_split: null\n"
        )
    return TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False)


def items(found, name, metric):
    samples = sorted(found["samples"][f"local_{name}"], key=lambda sample: sample["doc_id"])
    return "".join("1" if sample[metric] else "0" for sample in samples)


@pytest.mark.parametrize("bos", [False, True])
def test_every_question_is_judged_as_lm_eval_judges_it(tmp_path, monkeypatch, bos):
    from lm_eval.models.huggingface import HFLM

    from ropewalk.model.lm import TransformersLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    place, path = os.environ.get("ROPEWALK_BENCH_DATA"), os.environ.get("ROPEWALK_BENCH_MODEL")
    limit = int(os.environ.get("ROPEWALK_BENCH_LIMIT", "40"))
    if path and bos:
        pytest.skip("the given model has its own tokenizer")
    path = path or tiny_model(tmp_path / "model", bos)
    rows = given_questions(place, limit) if place else made_questions()
    manager = lm_eval_tasks(tmp_path, rows)
    tasks = [f"local_{name}" for name in YAMLS]
    theirs = lm_eval.simple_evaluate(
        model=HFLM(pretrained=path, dtype="float32", device="cpu", batch_size=4),
        tasks=tasks,
        task_manager=manager,
        num_fewshot=0,
        log_samples=True,
        bootstrap_iters=0,
    )
    lm = TransformersLM(path)
    through_us = evaluate(lm, tasks, manager)
    files = tuple(f"{name}={tmp_path / f'{name}.jsonl'}" for name in YAMLS)
    ours = run(lm, BenchmarkSettings(files=files), Cells(None, {}))
    for row in ours["rows"]:
        name = row["task"]
        assert row["items"] == items(theirs, name, "acc") == items(through_us, name, "acc")
        assert row["accuracy"] == pytest.approx(theirs["results"][f"local_{name}"]["acc,none"])
        print(name, row["n"], row["accuracy"], row["standard_error"], row["accuracy_norm"])
    assert ours["rows"][1]["items_norm"] == items(theirs, "piqa", "acc_norm")
