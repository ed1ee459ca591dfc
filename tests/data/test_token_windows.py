"""Laws of the window stream, over random documents: nothing lost, nothing twice, the same again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.data.formats import Document
from ropewalk.data.mixture import Mixture, parse_mixture
from ropewalk.data.order import Order
from ropewalk.data.windows import NO_MARKS, Marks, Windows, pieces
from ropewalk.errors import UserError

EOS = 7


@dataclass
class Fake:
    """A shard of given blocks of texts."""

    contents: list[list[str]]
    path: Path | None = None

    def count(self) -> int:
        return sum(map(len, self.contents))

    def size(self) -> int:
        return sum(len(text) for block in self.contents for text in block)

    def blocks(self) -> Iterator[list[Document]]:
        for block in self.contents:
            yield [Document(str(i), text) for i, text in enumerate(block)]


def encode(text: str) -> list[int]:
    return [ord(letter) + 10 for letter in text]


# Every character of a corpus is another one, so that a token says where it came from.
sizes = st.lists(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    min_size=1,
    max_size=4,
).filter(lambda s: sum(n for a in s for b in a for n in b) > 0)


def corpus(lengths: list[list[list[int]]]) -> tuple[list[Fake], list[str]]:
    letters = (chr(i) for i in range(100, 100_000))
    texts: list[str] = []
    shards = []
    for shard in lengths:
        made = []
        for block in shard:
            made.append(["".join(next(letters) for _ in range(n)) for n in block])
            texts += made[-1]
        shards.append(Fake(made))
    return shards, [text for text in texts if text]


def read(stream: Windows, count: int) -> list[list[int]]:
    return [next(stream).ids.tolist() for _ in range(count)]


@given(sizes, st.integers(1, 12))
def test_one_lane_in_file_order_is_the_documents_joined(lengths, length):
    shards, texts = corpus(lengths)
    joined = [id for text in texts for id in [*encode(text), EOS]]
    count = len(joined) // length
    found = read(Windows(Order(shards, shuffle=False), encode, length, marks=Marks(eos=EOS), lanes=1), count)
    assert [id for window in found for id in window] == joined[: count * length]


@pytest.mark.parametrize("marks", [NO_MARKS, Marks(bos=5), Marks(eos=EOS), Marks(bos=5, eos=EOS)])
def test_every_document_stands_between_the_marks_asked_for(marks):
    shards, texts = corpus([[[3, 1]], [[2]]])
    ends = [[] if mark is None else [mark] for mark in (marks.bos, marks.eos)]
    joined = [id for text in texts for id in [*ends[0], *encode(text), *ends[1]]]
    stream = Windows(Order(shards, shuffle=False), encode, len(joined), marks=marks, lanes=1)
    window = next(stream)
    assert window.ids.tolist() == joined
    assert [joined[start : start + len(ends[0])] for start in window.starts] == [ends[0]] * len(texts)


@given(sizes, st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_whatever_the_lanes_a_document_is_read_whole_in_its_own_order_and_once_a_pass(
    lengths, length, lanes, seed
):
    """Follow each lane: it is a concatenation of whole documents; the k-th pass holds each k times."""
    shards, texts = corpus(lengths)
    stream = Windows(Order(shards, seed), encode, length, lanes=lanes)
    per_lane: list[list[int]] = [[] for _ in range(lanes)]
    for i in range(lanes * 8):
        per_lane[i % lanes] += next(stream).ids.tolist()
    by_first = {encode(text)[0]: encode(text) for text in texts}
    begun = []
    for tokens in per_lane:
        while tokens:
            document = by_first[tokens[0]]
            assert tokens[: len(document)] == document[: len(tokens)]
            begun.append(tokens[0])
            tokens = tokens[len(document) :]
    counts = [begun.count(first) for first in by_first]
    assert max(counts) - min(counts) <= 1
    assert stream.passes >= max(counts)


@given(sizes, st.integers(1, 12), st.integers(1, 4), st.integers(0, 99), st.integers(0, 12))
def test_a_stream_restored_from_its_state_goes_on_as_if_never_stopped(lengths, length, lanes, seed, stop):
    def begin() -> Windows:
        return Windows(Order(corpus(lengths)[0], seed), encode, length, marks=Marks(3, EOS), lanes=lanes)

    whole = begin()
    expected = read(whole, stop + 10)[stop:]
    first = begin()
    read(first, stop)
    second = begin()
    second.restore(first.state())
    assert read(second, 10) == expected


@given(sizes, st.integers(1, 9))
def test_starts_say_where_documents_begin(lengths, length):
    shards, texts = corpus(lengths)
    stream = Windows(Order(shards, shuffle=False), encode, length, lanes=1)
    firsts = {encode(text)[0] for text in texts}
    for _ in range(10):
        window = next(stream)
        assert window.starts == tuple(i for i, id in enumerate(window.ids.tolist()) if id in firsts)


def test_another_seed_is_another_order_and_the_same_seed_the_same():
    shards, _ = corpus([[[3] * 20], [[3] * 20]])
    orders = [read(Windows(Order(shards, seed), encode, 12, lanes=2), 8) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


def test_a_second_pass_has_another_order_than_the_first():
    shards, _ = corpus([[[3] * 20]])
    stream = Windows(Order(shards, 0), encode, 60, lanes=1)
    first, second = next(stream).ids, next(stream).ids
    assert sorted(first) == sorted(second)
    assert first.tolist() != second.tolist()


def test_a_source_of_empty_documents_is_refused_and_not_read_forever():
    with pytest.raises(UserError, match="no text"):
        next(Windows(Order([Fake([["", ""]])]), encode, 4))


@given(st.text(alphabet="ab \n", max_size=60), st.integers(1, 20))
def test_pieces_of_a_text_are_the_text(text, size):
    parts = list(pieces(text, size))
    assert "".join(parts) == text
    assert all(0 < len(part) <= size for part in parts)


@given(
    st.lists(st.floats(0.05, 1), min_size=1, max_size=4),
    st.integers(1, 60),
)
def test_a_mixture_gives_every_source_its_share_within_one_window(weights, count):
    total = sum(weights)
    shares = [w / total for w in weights]
    streams = [
        Windows(Order([Fake([[chr(200 + i) * 4]])]), encode, 4, marks=NO_MARKS, lanes=1)
        for i in range(len(weights))
    ]
    mixture = Mixture(streams, shares)
    given_ = np.zeros(len(weights))
    for n in range(1, count + 1):
        given_[next(mixture).ids[0] - 210] += 1
        assert (given_ - n * np.array(shares) < 1 + 1e-6).all()
        assert (n * np.array(shares) - given_ < len(weights)).all()


def test_weights_are_read_behind_a_colon_and_a_path_with_a_colon_stays_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:3").mkdir()
    assert [(p.sources, p.weight) for p in parse_mixture(["a:0.5", "hub:o/n@c:train:1.5"])] == [
        (("a",), 0.25),
        (("hub:o/n@c:train",), 0.75),
    ]
    assert parse_mixture(["odd:3", "b"])[0].sources == ("odd:3", "b")
    with pytest.raises(UserError, match=r"b\.txt has no weight"):
        parse_mixture(["a.txt:1", "b.txt"])
    with pytest.raises(UserError, match="above zero"):
        parse_mixture(["a.txt:0", "b.txt:1"])
