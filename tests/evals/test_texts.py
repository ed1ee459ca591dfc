"""Documents as token ids: bounded in memory, the same ids however they are kept or cut."""

from __future__ import annotations

import os

import pytest
import torch
from fakes import FakeLM, tiny_checkpoint

from ropewalk.evals import texts
from ropewalk.evals.texts import TokenStore, read_texts
from ropewalk.model.lm import TransformersLM


def test_ids_come_back_as_they_were_in_memory_and_on_the_disk(monkeypatch):
    for limit in (1 << 20, 64):
        monkeypatch.setattr(texts, "IN_MEMORY", limit)
        store = TokenStore()
        first = store.add([[1, 2, 3], [4]])
        store.drop(store.add([[9] * 50]))
        second = store.add([range(100_000, 100_040)])
        assert first[0:4].tolist() == [1, 2, 3, 4] and first[1:3].dtype == torch.int64
        assert second[38:99].tolist() == [100_038, 100_039]
        assert (len(first), len(second)) == (4, 40)
        assert second[7:7].tolist() == []


@pytest.mark.parametrize("cut", [None, 900, 5])
def test_a_long_document_is_tokenised_in_parts_with_the_same_result(tmp_path, monkeypatch, cut):
    (tmp_path / "a.txt").write_text("".join(f"line {i}\n" for i in range(300)))

    def ids():
        (text,) = read_texts(FakeLM(), [str(tmp_path / "a.txt")], at_least=2, cut=cut)
        return text.ids[0 : len(text.ids)].tolist()

    whole = ids()
    monkeypatch.setattr(texts, "AT_ONCE", 40)
    assert ids() == whole
    assert len(whole) == (cut or len((tmp_path / "a.txt").read_text()))


def test_short_documents_are_tokenised_together_and_long_ones_in_parts_all_in_order(tmp_path, monkeypatch):
    sizes = [30, 20, 200, 10, 10, 10, 45, 5]
    for i, size in enumerate(sizes):
        (tmp_path / f"{i}.txt").write_text(f"{i}" * size)

    class Several(FakeLM):
        def encode_many(self, given):
            together.append(len(given))
            return [self.encode(text) for text in given]

    def found(lm, **more):
        read = read_texts(lm, [str(tmp_path)], at_least=2, **more)
        return [(text.name, text.ids[0 : len(text.ids)].tolist()) for text in read]

    alone, together = found(FakeLM()), []
    monkeypatch.setattr(texts, "AT_ONCE", 60)
    monkeypatch.setattr(texts, "TOGETHER", 60)
    assert found(Several()) == alone and [len(ids) for _, ids in alone] == sizes
    assert together == [2, 4, 1]
    together.clear()
    assert found(Several(), documents_wanted=3) == alone[:3] and together == []


def test_tokens_are_the_same_together_as_alone(tmp_path):
    lm = TransformersLM(tiny_checkpoint(tmp_path / "tiny"))
    given = ["The grass is green. 12", "", "The sky" * 50]
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    assert lm.encode_many(given) == [lm.encode(text) for text in given]
    assert os.environ.get("TOKENIZERS_PARALLELISM") in (before, "false")
