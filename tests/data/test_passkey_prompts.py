"""Passkey prompts are exact in tokens, whatever the tokenizer does with digits, spaces and line ends."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.filler import FILLER, SENTENCES, Filler
from ropewalk.data.passkey import KEY, PREAMBLE, QUESTION, PasskeyPrompts, draw_keys
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


def sentences_of(filler: str) -> list[str]:
    return [one.strip() for one in re.findall(r"[^.]*\.", filler)]


@pytest.mark.parametrize("k", range(1500, 1540, 3))
def test_the_text_is_the_papers_its_filler_whole_sentences(codec, k):
    """With two words at once sentences do not come out even: the end of one stands in front."""
    codec.bos = None
    maker = PasskeyPrompts(codec, 4096)
    text = codec.decode(maker.at_distance(k, "48123").ids)
    head, tail = f"{PREAMBLE}\n{KEY.format(key='48123')}\n", f"\n{QUESTION}"
    assert text.startswith(head) and text.endswith(tail)
    filler = text[len(head) : -len(tail)]
    assert text.count("48123") == 2 and text.count(QUESTION) == 1
    if codec.pattern.pattern == CODECS["two words at once"]:
        return
    found = sentences_of(filler)
    assert set(found) == set(SENTENCES) and "".join(filler.split()) == "".join("".join(found).split())
    assert (
        filler.startswith(FILLER) and max(found.count(one) for one in SENTENCES) <= found.count(found[0]) + 4
    )


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CODECS)), st.integers(0, 3000), st.integers(0, 1))
def test_filler_has_exactly_the_tokens_asked_for_and_longer_ones_begin_alike(name, count, merged):
    filler = Filler(PieceCodec(CODECS[name]), PREAMBLE, 4096)
    stretch, longer = filler.exactly(count, merged), filler.exactly(count + 500, merged)
    assert len(stretch.ids) == count and stretch.shared <= count
    if longer.shared:
        assert longer.ids[: stretch.shared] == stretch.ids[: stretch.shared] and longer.shared > count - 400


def test_before_key_and_question_a_sentence_has_ended():
    """What the mid-sentence cuts of before cost is in dev/LOG.md, entry 46."""
    codec = PieceCodec(CODECS["words, digits alone"])
    maker = PasskeyPrompts(codec, 4096)
    for depth in (0.13, 0.25, 0.5, 0.77, 1.0):
        text = codec.decode(maker.at_depth(4000, depth, "48123").ids)
        before, behind = text.split(KEY.format(key="48123"))
        assert sentences_of(before)[-1] in SENTENCES and before.endswith(".\n")
        assert behind.removesuffix(QUESTION).endswith(".\n" if depth < 1 else "\n")


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
