"""Talking to a model: exact prompts, streams, and a cache that changes no answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_checkpoints import edit, llama, write_tokenizer

from ropewalk.model.chat import STOPS, Speaker, _Writer, plain_prompt
from ropewalk.model.load import load_model

TEMPLATE = (
    "<s>{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
DOCUMENT = "The key is 7. The door is red."


def talkative(place: Path, **changes) -> Path:
    """The tiny Llama with a chat template, never at an end of its own."""
    source = llama(place, eos_token_id=None, **changes)
    edit(source / "generation_config.json", eos_token_id=None)
    edit(source / "tokenizer_config.json", chat_template=TEMPLATE, eos_token=None)
    return source


@pytest.fixture
def plain(tmp_path: Path) -> Speaker:
    source = llama(tmp_path / "plain", eos_token_id=None)
    edit(source / "generation_config.json", eos_token_id=None)
    edit(source / "tokenizer_config.json", eos_token=None)
    return Speaker(source, "plain")


def fresh(path: Path, ids: list[int], count: int) -> list[int]:
    """Greedy tokens without any cache."""
    model = load_model(path)
    for _ in range(count):
        with torch.no_grad():
            ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
    return ids[-count:]


def test_a_chat_prompt_is_the_templates_with_the_document_in_the_first_message(tmp_path: Path) -> None:
    speaker = Speaker(talkative(tmp_path / "m"), "m")
    ids = speaker.prompt(DOCUMENT, [("Which key?", "7")], "Which door?")
    text = f"<s>[user]{DOCUMENT}\n\nWhich key?</s>[assistant]7</s>[user]Which door?</s>[assistant]"
    assert ids == speaker.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids.count(0) == 1  # BOS once, though template and tokenizer both have it


@pytest.mark.parametrize("bos", [True, False])
def test_a_plain_prompt_has_bos_exactly_where_the_tokenizer_puts_one(tmp_path: Path, bos: bool) -> None:
    source = llama(tmp_path / "m")
    write_tokenizer(source, bos=bos)
    speaker = Speaker(source, "m")
    assert speaker.prompt("", [], "abc") == speaker.tokenizer("abc")["input_ids"]
    assert (speaker.prompt("", [], "abc")[0] == 0) is bos


def test_a_plain_prompt_is_the_document_the_questions_and_their_answers() -> None:
    assert plain_prompt("D", [], "q") == "D\n\nQuestion: q\nAnswer:"
    assert plain_prompt("D", [("a", " b")], "q") == "D\n\nQuestion: a\nAnswer: b\n\nQuestion: q\nAnswer:"
    assert plain_prompt("", [("1 ", "2")], "3") == "1 2\n3"


def test_answers_from_a_kept_cache_are_those_of_a_fresh_reading(plain: Speaker) -> None:
    """Questions of one document, longer and shorter than the one before, and the very same again."""
    kept = []
    for question in ("What key?", "The colour of the door, please?", "What?", "What?"):
        ids = plain.prompt(DOCUMENT, [], question)
        found = plain.answer(ids, 6, lambda _: None)
        want = plain.tokenizer.decode(fresh(plain.path, ids, 6), skip_special_tokens=True)
        assert found.text == want and (found.prompt, found.new) == (len(ids), 6)
        kept.append(found.kept)
    begin = len(plain.prompt(DOCUMENT, [], "x")) - len("x\nAnswer:")
    assert kept[0] == 0 and kept[1] >= begin and kept[2] >= begin
    assert kept[3] == len(ids) - 1


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 50_000.0},
        {"rope_type": "linear", "factor": 2.0, "rope_theta": 50_000.0},
    ],
    ids=["dynamic", "linear"],
)
def test_what_was_read_is_read_anew_where_frequencies_depend_on_the_length(tmp_path: Path, rope) -> None:
    speaker = Speaker(talkative(tmp_path / "m", rope_parameters=rope), "m")
    speaker.answer(speaker.prompt(DOCUMENT, [], "a?"), 3, lambda _: None)
    found = speaker.answer(speaker.prompt(DOCUMENT, [], "b?"), 3, lambda _: None)
    assert (found.kept == 0) is (rope["rope_type"] == "dynamic")


def test_what_is_streamed_is_the_answer(plain: Speaker) -> None:
    pieces: list[str] = []
    found = plain.answer(plain.prompt(DOCUMENT, [], "Why?"), 12, pieces.append)
    assert "".join(pieces) == found.text + "\n"


def test_an_answer_ends_before_the_question_that_the_model_asks_itself(plain: Speaker) -> None:
    pieces: list[str] = []
    writer = _Writer(plain.tokenizer, pieces.append, STOPS)
    for text in ("It is", " red.\n", "Ques", "tion: and", " the key"):
        writer.on_finalized_text(text)
        assert "\nQ" not in "".join(pieces)
    writer.on_finalized_text("?", stream_end=True)
    assert "".join(pieces) == "It is red.\n"
    ids = plain.prompt("", [], "abc")
    whole = plain.answer(ids, 30, pieces.append)
    stop = next(letter for letter in whole.text if letter.isascii())
    cut = plain.answer(ids, 30, pieces.append, stops=(stop,))
    assert cut.text == whole.text.partition(stop)[0] and cut.new < 30


def test_an_answer_says_whether_it_stayed_in_the_window(plain: Speaker) -> None:
    inside = plain.answer(plain.prompt("", [], "a" * 50), 10, lambda _: None)
    outside = plain.answer(plain.prompt("", [], "a" * 56), 10, lambda _: None)
    assert (inside.inside, outside.inside, inside.window) == (True, False, 64)


def test_draws_differ_from_the_likeliest_tokens_and_repeat_with_the_seed(plain: Speaker) -> None:
    ids = plain.prompt("", [], "abc")

    def drawn(seed: int) -> str:
        torch.manual_seed(seed)
        return plain.answer(ids, 20, lambda _: None, temperature=5.0).text

    assert drawn(1) == drawn(1) != drawn(2)
    assert drawn(1) != plain.answer(ids, 20, lambda _: None).text
