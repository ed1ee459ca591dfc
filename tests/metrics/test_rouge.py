import pytest

pytest.importorskip("rouge_score", reason="the extra `summarization` is not installed")

from ropewalk.metrics.rouge import rouge


def test_a_text_against_itself_scores_one_and_against_other_words_zero():
    text = "The report reviews rope making in the navy. It finds tar in every yard."
    assert rouge(text, text) == {"rouge1": 1.0, "rouge2": 1.0, "rougeL": 1.0}
    assert rouge(text, "Completely different vocabulary here") == {"rouge1": 0, "rouge2": 0, "rougeL": 0}


def test_scores_equal_a_count_by_hand():
    """reference 6 words, summary 5: unigrams 4 shared, bigrams 2 (the cat, on the), subsequence 4."""
    found = rouge("the cat sat on the mat", "the cat on the chair")
    assert found["rouge1"] == pytest.approx(2 * 4 / (6 + 5))
    assert found["rouge2"] == pytest.approx(2 * 2 / (5 + 4))
    assert found["rougeL"] == pytest.approx(2 * 4 / (6 + 5))


def test_words_are_stemmed():
    assert rouge("ropes twisted", "rope twisting")["rouge1"] == 1.0


def test_an_empty_summary_scores_zero():
    assert rouge("some words", "")["rougeL"] == 0.0
