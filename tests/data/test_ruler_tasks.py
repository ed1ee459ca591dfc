import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data import ruler_tasks
from ropewalk.data.ruler_tasks import TASKS, TooShort, sample, sentences, words

TEXT = sentences("Rope is laid in a walk. It is twisted from yarns! Is it long? It is. " * 3)


def letters(text):
    """A tokenizer whose tokens depend on their neighbours: pairs of letters from the left of each word."""
    ids = []
    for word in text.split(" "):
        ids += [hash_of(word[i : i + 2]) for i in range(0, len(word), 2)] or [1]
    return ids


def hash_of(piece):
    return sum(ord(c) * 131**i for i, c in enumerate(piece)) % 50_000 + 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [4096, 5001, 8192])
@pytest.mark.parametrize("bos", [None, 0])
def test_prompt_and_answer_room_have_exactly_the_asked_length(task, length, bos):
    made = sample(task, length, 3, encode=letters, bos=bos, haystack=TEXT, seed=1)
    assert len(made.ids) + TASKS[task].room == length
    assert (made.ids[0] == bos) == (bos is not None)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(TASKS)), st.integers(700, 9_000), st.integers(0, 99))
def test_any_length_is_met_exactly_or_refused(task, length, seed):
    try:
        made = sample(task, length, 0, encode=letters, bos=None, haystack=TEXT, seed=seed)
    except TooShort:
        assert length < 4096
    else:
        assert len(made.ids) + TASKS[task].room == length


@pytest.mark.parametrize("task", TASKS)
def test_padding_is_a_small_part_of_the_prompt(task):
    made = sample(task, 16_384, 0, encode=letters, bos=None, haystack=TEXT, seed=0)
    assert made.padding < 200


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_is_the_same_for_the_same_seed_and_another_for_another(task):
    def prompt(index=0, seed=0):
        return sample(task, 4096, index, encode=letters, bos=None, haystack=TEXT, seed=seed)

    assert prompt() == prompt()
    assert prompt().ids != prompt(index=1).ids
    assert prompt().ids != prompt(seed=1).ids


def test_every_sample_has_its_own_name():
    names = [
        sample(task, 4096, i, encode=letters, bos=None, haystack=[], seed=0).name
        for task in TASKS
        for i in range(5)
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("task", [task for task in TASKS if task.startswith("niah")])
def test_each_answer_of_a_needle_task_stands_in_the_prompt_once(task):
    text, answers = TASKS[task].make(Random(5), 300, 8192, TEXT)
    assert answers and all(text.count(answer) == 1 for answer in answers)


def test_no_key_is_given_twice_even_where_words_are_few(monkeypatch):
    monkeypatch.setattr(ruler_tasks, "words", lambda: tuple("abcdefghij"))
    text, _ = TASKS["niah_multikey_2"].make(Random(0), 80, 8192, [])
    keys = re.findall(r"for (\S+) is:", text)
    assert len(keys) == 81 == len(set(keys))


def test_coded_words_follow_zipfs_law_with_exponent_two():
    text, answers = TASKS["fwe"].make(Random(0), 10_000, 32_768, [])
    counts = Counter(text.split())
    assert [counts[word] for word in ("...", *answers)] == [6079, 1519, 675, 379]


def test_a_length_without_room_is_refused():
    with pytest.raises(TooShort, match="too long"):
        sample("niah_single_1", 150, 0, encode=letters, bos=None, haystack=[], seed=0)


def test_no_word_of_the_list_hides_in_another():
    listed = words()
    assert len(listed) > 3000 and len(set(listed)) == len(listed)
    inside = {
        w[i:j] for w in listed for i in range(len(w)) for j in range(i + 4, len(w) + 1) if j - i < len(w)
    }
    assert not inside & set(listed)


@pytest.mark.parametrize("length", [1024, 4096, 100_000])
@pytest.mark.parametrize("more", [0, 1, 300])
def test_counted_words_have_no_rival(length, more):
    """cwe: the ten answers are each oftener than any other word; fwe: so are the three after the dots."""
    for task in ("cwe", "fwe"):
        text, answers = TASKS[task].make(Random(7), TASKS[task].least + more, length, [])
        body = text[text.rindex("coded words. " if task == "fwe" else "often.\n") : text.rindex("Question")]
        counts = Counter(w for w in body.split() if len(w) == 6 or (task == "cwe" and w.isalpha()))
        others = [n for word, n in counts.items() if word not in answers]
        assert min(counts[a] for a in answers) > max(others)
