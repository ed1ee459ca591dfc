"""Documents as token ids: bounded in memory, the same ids however they are kept or cut."""

from __future__ import annotations

import pytest
import torch
from fakes import FakeLM

from ropewalk.evals import texts
from ropewalk.evals.texts import TokenStore, read_texts


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
