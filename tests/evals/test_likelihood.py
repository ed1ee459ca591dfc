from random import Random

import pytest
from byte_model import ByteModel
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.evals import likelihood
from ropewalk.evals.likelihood import encode_pair, log_likelihoods


def believes(before, token):
    """A belief that depends on every token before, and on their number."""
    return -(hash((tuple(before), token)) % 1000) / 64


PAIRS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 255), min_size=1, max_size=12),
        st.lists(st.integers(0, 255), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None)
@given(PAIRS)
def test_batches_of_unequal_pairs_score_as_each_alone(pairs):
    found = log_likelihoods(ByteModel(log_p=believes), pairs)
    for (context, rest), value in zip(pairs, found):
        assert value == sum(believes(context + rest[:i], token) for i, token in enumerate(rest))


def test_small_batches_change_nothing(monkeypatch):
    random = Random(0)
    pairs = [(random.choices(range(256), k=random.randint(1, 40)), [1, 2, 3]) for _ in range(50)]
    whole = log_likelihoods(ByteModel(log_p=believes), pairs)
    monkeypatch.setattr(likelihood, "TOKENS", 64)
    model = ByteModel(log_p=believes)
    assert log_likelihoods(model, pairs) == whole
    assert max(b * t for b, t in model.calls) <= 64 and len(model.calls) > 10


def test_where_rotations_follow_the_length_no_pair_is_filled_up():
    random = Random(0)
    pairs = [(random.choices(range(256), k=random.randint(1, 9)), [1, 2, 3]) for _ in range(50)]
    model = ByteModel(log_p=believes)
    model.length_dependent = True
    assert log_likelihoods(model, pairs) == log_likelihoods(ByteModel(log_p=believes), pairs)
    assert sorted({t for _, t in model.calls}) == sorted({len(a) + 3 for a, _ in pairs})
    assert len(model.calls) == len({t for _, t in model.calls})


def test_equal_pairs_are_computed_once():
    model = ByteModel(log_p=believes)
    log_likelihoods(model, [([1, 2], [3])] * 5)
    assert model.calls == [(1, 3)]


def test_a_pair_longer_than_the_window_loses_its_beginning():
    found = log_likelihoods(ByteModel(log_p=believes), [([9] * 30 + [1, 2], [3, 4])], window=4)
    assert found == [believes([1, 2], 3) + believes([1, 2, 3], 4)]


def test_pairs_are_split_as_lm_eval_splits_them():
    """The continuation is what the whole text has behind the context's tokens; blanks go along with it."""
    model = ByteModel()
    assert encode_pair(model, "a", " b") == ([256, 97], [32, 98])
    assert encode_pair(model, "a ", "b") == ([256, 97], [32, 98])
    assert encode_pair(ByteModel(bos=None), "a", " b") == ([97], [32, 98])
    assert encode_pair(model, "", "b") == ([256], [98])
    with pytest.raises(ValueError, match="no BOS"):
        encode_pair(ByteModel(bos=None), "", "b")
