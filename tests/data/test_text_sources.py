"""Text from every kind of source, and one clear line for every kind that cannot be read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ropewalk.data import formats
from ropewalk.data.formats import PACKED, Lines
from ropewalk.data.mixture import SAMPLE, open_mixture, parse_mixture
from ropewalk.data.order import Order
from ropewalk.data.text import describe, documents, shards, whole_documents
from ropewalk.errors import UserError


def texts(*sources, column=None):
    return [document.text for document in documents([str(s) for s in sources], column)]


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    table = pa.table({"id": [1, 2, 3, 4], "body": ["one", None, "", "four"]})
    pq.write_table(table, path, row_group_size=3)
    return path


def test_every_kind_gives_its_documents_in_order(tmp_path, parquet):
    (tmp_path / "a.txt").write_bytes(b"eins\r\nzwei")
    (tmp_path / "b.jsonl").write_text('{"text": "x"}\n\n{"text": null}\n{"text": "y"}')
    assert texts(tmp_path / "a.txt", tmp_path / "b.jsonl", parquet) == ["eins\nzwei", "x", "y", "one", "four"]
    assert texts(tmp_path) == ["eins\nzwei", "x", "y", "one", "four"]


def test_a_row_group_is_a_shard_so_that_no_file_is_read_whole(parquet):
    assert [shard.count() for shard in shards([str(parquet)])] == [3, 1]


def test_lines_cut_at_any_byte_give_every_line_once(tmp_path):
    path = tmp_path / "lines.jsonl"
    wanted = [f"text {i} äö" for i in range(30)]
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in wanted))
    size = path.stat().st_size
    for step in (1, 7, 50, 1000):
        found = []
        for start in range(0, size, step):
            for block in Lines(path, "lines", start, min(size, start + step), None).blocks():
                found += [document.text for document in block]
        assert found == wanted, step


def test_a_large_text_file_is_cut_at_line_ends_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "BLOCK", 100)
    monkeypatch.setattr(formats, "PART", 100)
    path = tmp_path / "long.txt"
    path.write_text("".join(f"line {i}\n" for i in range(200)))
    found = texts(path)
    assert len(found) > 5
    assert "".join(found) == path.read_text()
    assert all(part.endswith("\n") for part in found)


@pytest.mark.parametrize("text", ["word and word " * 50, "äöü€😀" * 100, "\n\n" + "x" * 700])
def test_a_large_text_file_without_line_ends_is_cut_at_spaces_or_between_characters(
    tmp_path, monkeypatch, text
):
    monkeypatch.setattr(formats, "BLOCK", 100)
    monkeypatch.setattr(formats, "PART", 101)
    (tmp_path / "long.txt").write_text(text, encoding="utf-8")
    found = texts(tmp_path / "long.txt")
    assert len(found) > 5
    assert "".join(found) == text


def test_the_parts_of_a_large_file_are_one_document_again_and_unread_parts_are_passed_over(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(formats, "BLOCK", 100)
    monkeypatch.setattr(formats, "PART", 100)
    long = "".join(f"line {i}\n" for i in range(200))
    (tmp_path / "a.txt").write_text("short")
    (tmp_path / "b.txt").write_text(long)
    (tmp_path / "c.txt").write_text(long[:900])
    (tmp_path / "d.txt").write_text("short too")
    found = {name: "".join(parts) for name, parts in whole_documents(documents([str(tmp_path)]))}
    assert found == {"a.txt": "short", "b.txt": long, "c.txt": long[:900], "d.txt": "short too"}
    assert describe([str(tmp_path)])[0]["documents"] == 4
    heads = [(name, len(next(parts))) for name, parts in whole_documents(documents([str(tmp_path)]))]
    assert [name for name, _ in heads] == ["a.txt", "b.txt", "c.txt", "d.txt"]


def test_a_description_names_hashes_and_counts(tmp_path, parquet):
    (tmp_path / "a.txt").write_text("abc")
    assert describe([str(tmp_path / "a.txt"), str(parquet)]) == [
        {
            "name": "a.txt",
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "documents": 1,
        },
        {"name": "rows.parquet", "sha256": describe([str(parquet)])[0]["sha256"], "documents": 4},
    ]


def test_two_files_of_one_name_keep_their_paths_in_a_description(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
    paths = [str(tmp_path / name / "a.txt") for name in ("x", "y")]
    assert [block["name"] for block in describe(paths)] == paths


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no.txt", None, "no data file"),
        ("empty.txt", b"", "is empty"),
        ("book.docx", b"x", "unknown kind .docx"),
        ("binary.txt", b"a\0b", "is binary"),
        ("bad.jsonl", b'{"text": "a"}\n{"text"', "line at byte 14 is not a JSON object"),
        ("list.jsonl", b"[1]\n", "line at byte 0 is not a JSON object"),
        ("columns.jsonl", b'{"a": "x", "b": "y"}\n', "several columns of text (a, b)"),
        ("number.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line at byte 14: column 'text' is int, not text"),
        ("bad.parquet", b"PAR1nothing", "not a readable Parquet file"),
        ("packed.txt.gz", b"x", "unknown kind .gz; unpack it first"),
        ("packed.jsonl.gz", b"not at all", "is damaged, or not what its name says (zlib inflate failed"),
        ("packed.jsonl.zst", b"not at all", "is damaged, or not what its name says (ZSTD decompress failed"),
        ("chat.jsonl", b'{"messages": [{"content": "x"}]}\n', "no column of text; columns: messages"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(tmp_path, name, content, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        texts(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def packed(path, lines):
    """A JSON-lines file, packed as its name says."""
    pack = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
        ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    }[path.suffix]
    encoded = [json.dumps(line).encode() + b"\n" for line in lines]
    half = len(encoded) // 2  # in two frames, as parallel packers write them
    path.write_bytes(pack(b"".join(encoded[:half])) + pack(b"".join(encoded[half:])))
    return path


@pytest.mark.parametrize("ending", PACKED)
def test_packed_lines_are_what_they_are_unpacked(tmp_path, monkeypatch, ending):
    """Also in blocks, in a directory, and from the middle on."""
    monkeypatch.setattr("ropewalk.data.formats.BLOCK", 200)
    rows = [{"text": f"document {number} " + "x" * number} for number in range(40)]
    path = packed(tmp_path / f"a.jsonl{ending}", [*rows[:7], {"text": ""}, *rows[7:]])
    wanted = [row["text"] for row in rows]
    assert texts(path) == wanted and texts(tmp_path) == wanted
    (shard,) = shards([str(path)])
    assert len(list(shard.blocks())) > 3
    assert describe([str(path)])[0]["documents"] is None
    order = Order([shard], seed=3)
    found = [next(order) for _ in range(60)]
    assert sorted(document.text for _, document in found[:40]) == sorted(wanted)
    later = Order([shard], seed=3)
    place, document = found[25]
    assert later.find(place) == document


@pytest.mark.parametrize("ending", PACKED)
def test_a_packed_file_that_is_cut_off_is_said(tmp_path, ending):
    path = packed(tmp_path / f"a.jsonl{ending}", [{"text": str(number)} for number in range(1000)])
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match="is damaged"):
        texts(path)


def test_the_line_of_a_packed_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"line 2: column 'text' is int"):
        texts(packed(tmp_path / "a.jsonl.xz", [{"text": "x"}, {"text": 3}]))


def test_a_missing_column_names_those_that_there_are(parquet):
    with pytest.raises(UserError, match=r"no text column 'text'; columns: id, body \(text: body\)"):
        texts(parquet, column="text")


def test_an_empty_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="no text in directory"):
        texts(tmp_path)


def test_what_a_directory_leaves_out_is_said_once(tmp_path, capsys):
    for name in ("a.txt", "b.txt.gz", "c.csv", "d.csv", ".hidden.csv", "LICENSE"):
        (tmp_path / name).write_text("x")
    assert texts(tmp_path) == ["x"] and texts(tmp_path) == ["x"]
    said = capsys.readouterr().out.replace("\n", " ")
    assert said.count("left out (1 (none), 2 .csv, 1 .gz)") == 1


@pytest.mark.parametrize("kind", ["dictionary", "view", "large"])
def test_text_of_every_arrow_type_is_text(tmp_path, kind):
    """pandas writes categories, polars views."""
    types = {"dictionary": pa.dictionary(pa.int32(), pa.string()), "view": pa.string_view()}
    column = pa.array(["one", "two", "one"]).cast(types.get(kind, pa.large_string()))
    pq.write_table(pa.table({"id": [1, 2, 3], "text": column}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["one", "two", "one"]


def test_text_shorter_than_one_window_is_refused_with_both_numbers(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("twelve bytes")
    with pytest.raises(UserError, match="12 tokens in all, the window is 100"):
        open_mixture(parse_mixture([str(path)]), lambda text: [ord(c) for c in text], 100)


@pytest.mark.parametrize(
    ("lengths", "tokens", "document"),
    [
        ([30, 50, 40], 120, 40),
        ([200], 200, None),  # one tells nothing of others
        ([100, SAMPLE], SAMPLE + 100, None),  # the second is not read to its end
        ([100, 300, SAMPLE], SAMPLE + 400, 200),
    ],
)
def test_how_much_text_there_is_and_how_long_its_documents_are(tmp_path, lengths, tokens, document):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * length}) + "\n" for length in lengths))
    _, (amount,) = open_mixture(parse_mixture([str(path)]), lambda text: [ord(c) for c in text], 100)
    assert amount.document == document
    assert amount.tokens == pytest.approx(tokens, rel=0.01)  # by the file's size where it is not read whole


@pytest.mark.parametrize("reader", [describe, lambda sources: list(documents(sources))])
def test_a_broken_parquet_file_is_one_line_however_it_is_met(tmp_path, reader):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(UserError, match=r"broken\.parquet is not a readable Parquet file"):
        reader([str(broken)])


@pytest.mark.parametrize("name", ["test/set.jsonl.gz", "set.jsonl", "deep/er/set.txt"])
def test_one_file_of_a_hub_data_set_is_streamed_packed_or_not(tmp_path, monkeypatch, name):
    """As of a data set whose loading script is code, which is never run. Here a directory stands for it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "owner" / "set" / name
    path.parent.mkdir(parents=True)
    written = (
        "one\ntwo\n" if name.endswith("txt") else '{"text": "one", "meta": 1}\n{"text": "two", "meta": 2}\n'
    )
    path.write_bytes(gzip.compress(written.encode()) if name.endswith("gz") else written.encode())
    assert texts(f"hub:owner/set/{name}") == ["one", "two"]


def test_a_file_of_a_hub_data_set_is_asked_of_the_hub(monkeypatch):
    import datasets

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append((a, k)) or [{"text": "x"}])
    assert texts("hub:owner/set/test/a.jsonl.gz") == ["x"]
    assert asked[0][0] == ("json",) and asked[0][1]["data_files"] == "hf://datasets/owner/set/test/a.jsonl.gz"


def test_a_file_of_a_hub_data_set_of_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match=r"a\.exe is of unknown kind"):
        texts("hub:owner/set/a.exe")
