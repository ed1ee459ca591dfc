"""Passkey prompts are exact in tokens, whatever the tokenizer does with digits, spaces and line ends."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.passkey import FILLER, KEY, PREAMBLE, QUESTION, PasskeyPrompts, draw_keys
from ropewalk.errors import UserError


class PieceCodec:
    """Cuts text by a pattern; every distinct piece is a token. Pieces may run across words and lines."""

    def __init__(self, pattern: str, bos: int | None = None) -> None:
        self.pattern, self.bos, self.pieces = re.compile(pattern, re.S), bos, ["<s>"]
        self.ids = {"<s>": 0}

    def encode(self, text):
        found = []
        for piece in self.pattern.findall(text):
            if piece not in self.ids:
                self.ids[piece] = len(self.pieces)
                self.pieces.append(piece)
            found.append(self.ids[piece])
        return found

    def decode(self, ids):
        return "".join(self.pieces[i] for i in ids if i != 0)


CODECS = {
    "characters": ".",
    "words, digits alone": r" ?[^\W\d]+|\d| ?[^\s\w]+|\s",
    "words, numbers whole": r" ?\w+|[^\s\w]|\s",
    "digits by three, '.' and line end merged": r" ?[^\W\d]+|\d{1,3}|[^\s\w]+\n*|\s",
    "two words at once": r" ?[^\W\d]+ [^\W\d]+| ?[^\W\d]+|\d| ?[^\s\w]+|\s",
}


@pytest.fixture(params=CODECS, scope="module")
def codec(request):
    return PieceCodec(CODECS[request.param])


@pytest.mark.parametrize("bos", [None, 0])
@pytest.mark.parametrize("k", [600, 700, 955, 1024])
def test_the_key_stands_exactly_k_tokens_before_the_end_of_the_answer(codec, bos, k):
    codec.bos = bos
    maker = PasskeyPrompts(codec, 4096)
    for key in draw_keys(3, k):
        prompt = maker.at_distance(k, key)
        place = len(prompt.ids) + maker.room - k  # of the key's first digit
        assert prompt.distance == k
        assert key[0] not in codec.decode(prompt.ids[:place]).replace(PREAMBLE, "")
        assert codec.decode(prompt.ids[: place + 1]).endswith(
            key[: len(codec.decode([prompt.ids[place]]).strip())]
        )
        assert (prompt.ids[0] == 0) == (bos is not None)


def test_the_text_is_the_papers_with_filler_alone_cut(codec):
    codec.bos = None
    maker = PasskeyPrompts(codec, 4096)
    text = codec.decode(maker.at_distance(1500, "48123").ids)
    head, tail = f"{PREAMBLE}\n{KEY.format(key='48123')}\n", f"\n{QUESTION}"
    assert text.startswith(head) and text.endswith(tail)
    filler = text[len(head) : -len(tail)]
    assert (" ".join([FILLER] * 200)).startswith(filler.rstrip("."))
    assert text.count("48123") == 2 and text.count(QUESTION) == 1


def test_no_input_is_longer_than_the_target_less_the_answers_room(codec):
    codec.bos = 0
    maker = PasskeyPrompts(codec, 2048)
    longest = maker.at_distance(2048, "55555")
    assert len(longest.ids) == 2048 - maker.room
    assert longest.distance < 2048  # the real distance, a preamble less
    codec.bos = None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3000), st.floats(0, 1), st.integers(10000, 99999).map(str))
def test_a_prompt_of_a_length_has_that_length_and_holds_the_key_once_at_the_depth(more, depth, key):
    codec = PieceCodec(CODECS["digits by three, '.' and line end merged"])
    maker = PasskeyPrompts(codec, 4096)
    length = min(maker.shortest + more, 4096)
    prompt = maker.at_depth(length, depth, key)
    text = codec.decode(prompt.ids)
    assert len(prompt.ids) == length - maker.room
    assert text.count(KEY.format(key=key)) == 1 and text.startswith(PREAMBLE) and text.endswith(QUESTION)
    place = len(prompt.ids) + maker.room - prompt.distance
    start = len(codec.encode(PREAMBLE))
    if length - maker.shortest > 500:
        assert (place - start) / (length - maker.shortest) == pytest.approx(depth, abs=0.03)


def test_the_room_holds_any_answer(codec):
    codec.bos = None
    maker = PasskeyPrompts(codec, 4096)
    for key in draw_keys(20, "x"):
        whole = codec.encode(f"{QUESTION} {key}")
        assert len(whole) - len(codec.encode(QUESTION)) <= maker.room


def test_keys_are_the_same_for_the_same_seed_and_have_five_digits():
    assert draw_keys(5, "0/256") == draw_keys(5, "0/256") != draw_keys(5, "0/512")
    assert all(len(key) == 5 and key[0] != "0" for key in draw_keys(200, 1))


def test_a_tokenizer_that_loses_text_is_refused():
    with pytest.raises(UserError, match="does not keep"):
        PasskeyPrompts(PieceCodec(r"[a-zA-Z]+| "), 2048)


def test_a_target_too_small_for_any_prompt_is_refused():
    with pytest.raises(UserError, match="needs"):
        PasskeyPrompts(PieceCodec("."), 200)
