import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.data.multiple_choice import Columns, questions
from ropewalk.errors import UserError


def table(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


BOOLQ = {"question": "is hemp a plant", "passage": "Hemp is a plant.", "answer": True}
PIQA = {"goal": "Tie a rope", "sol1": "knot it", "sol2": "burn it up", "label": 0}
WINO = {
    "sentence": "The rope beat the yarn as _ was strong.",
    "option1": "rope",
    "option2": "yarn",
    "answer": "1",
}
RACE = [
    {
        "example_id": article,
        "article": article,
        "question": question,
        "options": list(options),
        "answer": answer,
    }
    for article, question, options, answer in (
        ("A.", "Who?", "abcd", "B"),
        ("A.", "It is  _  .", "efgh", "D"),
        ("A.", "Why?", "ijkl", "C"),
        ("B.", "When?", "mnop", "A"),
    )
]


def test_boolq_is_asked_as_lm_eval_asks_it(tmp_path):
    (question,) = questions(table(tmp_path / "b.parquet", [BOOLQ]), "boolq")
    context = "Hemp is a plant.\nQuestion: is hemp a plant?\nAnswer:"
    assert question.pairs == ((context, " no"), (context, " yes"))
    assert question.answer == 1


def test_piqa_is_asked_as_lm_eval_asks_it(tmp_path):
    (question,) = questions(table(tmp_path / "p.parquet", [PIQA]), "piqa")
    context = "Question: Tie a rope\nAnswer:"
    assert question.pairs == ((context, " knot it"), (context, " burn it up"))
    assert question.lengths == (7, 10) and question.answer == 0


def test_winogrande_scores_what_follows_the_filled_blank(tmp_path):
    (question,) = questions(table(tmp_path / "w.parquet", [WINO]), "winogrande")
    assert question.pairs == (
        ("The rope beat the yarn as rope", " was strong."),
        ("The rope beat the yarn as yarn", " was strong."),
    )
    assert question.answer == 0


def test_race_asks_the_last_problem_of_an_article_after_the_solved_ones(tmp_path):
    first, second = questions(table(tmp_path / "r.parquet", RACE), "race-middle")
    context = "Article: A.\n\nQuestion: Who?\nAnswer: b\nIt is h\nWhy?"
    assert first.pairs[2] == (context, " k") and first.answer == 2
    assert second.pairs[0] == ("Article: B.\n\nWhen?", " m")


def test_race_grouped_by_article_gives_the_same_questions(tmp_path):
    keys = ("question", "options", "answer")
    problems = {a: [{k: row[k] for k in keys} for row in RACE if row["article"] == a] for a in ("A.", "B.")}
    grouped = [{"article": a, "problems": str(found)} for a, found in problems.items()]
    by_article = questions(table(tmp_path / "g.parquet", grouped), "race-high")
    assert by_article == questions(table(tmp_path / "r.parquet", RACE), "race-high")


@pytest.mark.parametrize("answer", [1, "1", "B", "b", "tar"])
def test_a_file_of_ones_own_is_read_by_its_columns(tmp_path, answer):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"q": "Black?", "x": "hemp", "y": "tar", "right": answer}) + "\n")
    (question,) = questions(str(path), "own", Columns("q", ("x", "y"), "right"))
    assert question.pairs == (("Black?", " hemp"), ("Black?", " tar")) and question.answer == 1


def test_choices_may_be_a_list_in_one_column(tmp_path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps([{"q": "Black?", "c": ["hemp", "tar", "sky"], "right": 2}]))
    (question,) = questions(str(path), "own", Columns("q", ("c",), "right"))
    assert len(question.pairs) == 3 and question.answer == 2


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"goal": "x", "sol1": "a", "sol2": "b"}], "no column 'label'"),
        ([{**PIQA, "label": 2}], "answer 2 of 2 choices"),
        ([{**PIQA, "label": "none"}], "no question of piqa"),
        ([{**PIQA, "sol1": " "}], "empty prompt or choice"),
    ],
)
def test_a_row_that_is_no_question_is_refused_in_one_line(tmp_path, rows, said):
    with pytest.raises(UserError, match=said):
        questions(table(tmp_path / "p.parquet", rows), "piqa")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.jsonl", None, "no file"),
        ("text.txt", "x", "unknown kind .txt"),
        ("empty.jsonl", "", "holds no rows"),
        ("cut.jsonl", '{"goal": ', "line 1 is not JSON"),
        ("array.json", "[1, 2]", "row 1 is int"),
        ("cut.parquet", "PAR1 and nothing", "not a readable Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        questions(str(tmp_path / name), "piqa")
