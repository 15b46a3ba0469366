"""Labeled texts from tsv, csv and jsonl, and their errors."""

import csv
import gzip
import io
import json

import pytest

from data_pipeline.errors import InputError
from data_pipeline.finetuning.examples import TextExample
from data_pipeline.finetuning.labeled_text import TextColumns, discover_labels, read_labeled_text
from data_pipeline.sources.tables import format_tsv

COLUMNS = TextColumns("body", "answer", "mood", "key")
LABELS = ("neg", "pos")
# The same two examples in every format.
EXAMPLES = [TextExample("a", 'One, "two".', "x", 1), TextExample("b", "Three\u2028four", "y", 0)]
FILES = {
    "a.tsv": 'key\tmood\tbody\tanswer\na\tpos\tOne, "two".\tx\n\nb\tneg \tThree\u2028four\ty\n',
    "a.csv": 'mood,key,body,answer\r\npos,a,"One, ""two"".",x\r\nneg,b,Three\u2028four,y\r\n',
    "a.jsonl": "".join(
        json.dumps({"key": id, "body": text, "answer": pair, "mood": LABELS[label]}) + "\n"
        for id, text, pair, label in EXAMPLES
    ),
}


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", FILES)
def test_long_cells_and_a_byte_order_mark_are_read(tmp_path, name):
    long = "word " * 40_000
    path = write(tmp_path, name, "\ufeff" + FILES[name].replace("Three", long))
    first, second = read_labeled_text(path, COLUMNS, LABELS)
    assert (first, second.text_a) == (EXAMPLES[0], f"{long}\u2028four")


def test_a_table_keeps_its_cells_whatever_they_hold():
    rows = [
        ["id", "label"],
        ["1", "a\tb"],
        ["2", 'a\n"b"'],
        ["3", "a\r"],
        ["4", ""],
        ["5", "plain"],
    ]
    text = format_tsv(rows)
    assert text.endswith("\n5\tplain\n"), "as it was where nothing is special"
    assert list(csv.reader(io.StringIO(text, newline=""), delimiter="\t")) == rows


@pytest.mark.parametrize("name", FILES)
def test_all_formats_plain_and_compressed(tmp_path, name):
    path = write(tmp_path, name, FILES[name])
    assert discover_labels(path, "mood") == LABELS
    assert read_labeled_text(path, COLUMNS, LABELS) == EXAMPLES
    packed = write(tmp_path, f"{name}.gz", gzip.compress(FILES[name].encode()))
    assert read_labeled_text(packed, COLUMNS, LABELS) == EXAMPLES


def test_only_named_columns_are_read(tmp_path):
    path = write(tmp_path, "a.tsv", FILES["a.tsv"])
    assert read_labeled_text(path, TextColumns("body", label=None), ()) == [
        TextExample("0", 'One, "two".', None, None),
        TextExample("1", "Three\u2028four", None, None),
    ]


def test_a_csv_cell_over_several_lines(tmp_path):
    path = write(tmp_path, "a.csv", 'text,label\n"One.\nTwo.",1\nThree.,x\n')
    with pytest.raises(InputError, match=r"a.csv:4: label 'x' is none of 0, 1"):
        read_labeled_text(path, TextColumns(), ("0", "1"))
    path = write(tmp_path, "a.csv", 'text,label\n"One.\nTwo.",1\n')
    assert read_labeled_text(path, TextColumns(), ("0", "1"))[0].text_a == "One.\nTwo."


def test_json_values_other_than_text(tmp_path):
    path = write(tmp_path, "a.jsonl", '{"text": "A", "label": 10}\n{"text": "B", "label": 9}\n')
    assert discover_labels(path, "label") == ("9", "10")
    examples = read_labeled_text(path, TextColumns(), ("9", "10"))
    assert [example.label for example in examples] == [1, 0]
    assert [example.label for example in read_labeled_text(path, TextColumns(), ())] == [10.0, 9.0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "body\tlabel\nA\t1\n", "a.tsv:1: no column 'text' among 'body', 'label'"),
        ("a.tsv", "text\tlabel\ttext\n", "a.tsv:1: more than one column 'text'"),
        ("a.tsv", "text\tlabel\nA\t1\tx\n", "a.tsv:2: expected 2 columns, found 3"),
        ("a.tsv", "text\tlabel\nA\t1\n \t0\n", "a.tsv:3: text is empty"),
        ("a.tsv", "text\tlabel\nA\t1\nB\tmaybe\n", "a.tsv:3: label 'maybe' is none of 0, 1"),
        ("a.tsv", "text\tlabel\n", "a.tsv has no row"),
        ("a.tsv", "", "a.tsv is empty"),
        ("a.tsv", b"text\tlabel\ncaf\xe9\t1\n", r"a.tsv:2: byte 4 \(0xe9\) is not UTF-8"),
        ("a.tsv", b"text\tlabel\nA\0\t1\n", "a.tsv:2: a zero byte"),
        ("a.csv", 'text,label\nA,1\n"B,0\n', "a.csv:3: this is not csv"),
        ("a.csv", "text,label\nA\n", "a.csv:2: expected 2 columns, found 1"),
        ("a.jsonl", '{"text": "A", "label": 1}\n{"text": "B"}\n', "a.jsonl:2: no column 'label'"),
        ("a.jsonl", '{"text": "A"', "a.jsonl:1: this is not JSON"),
        ("a.jsonl", "[1]\n", "a.jsonl:1: expected a JSON object"),
        ("a.jsonl", '{"text": "\\ud800", "label": 1}\n', r"a.jsonl:1: '\\ud800' is not Unicode"),
        ("a.jsonl", '{"text": null, "label": 1}\n', "a.jsonl:1: text is empty"),
        ("a.txt", "text\tlabel\n", r"a.txt: the name must end in .tsv, .csv, .jsonl"),
    ],
)
def test_errors_name_file_and_line(tmp_path, name, content, message):
    path = write(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as error:
        read_labeled_text(path, TextColumns(), ("0", "1"))
    assert "\n" not in str(error.value)


def test_ids_and_scores(tmp_path):
    path = write(tmp_path, "a.tsv", "text\tlabel\tid\nA\t1\t7\nB\t2.5\t7\n")
    with pytest.raises(InputError, match=r"a.tsv:3: the id '7' is repeated"):
        read_labeled_text(path, TextColumns(id="id"), ())
    path = write(tmp_path, "a.tsv", "text\tlabel\tid\nA\t1\t \n")
    with pytest.raises(InputError, match=r"a.tsv:2: id is empty"):
        read_labeled_text(path, TextColumns(id="id"), ())
    for score, message in (("many", "expected a number"), ("inf", "expected a finite number")):
        path = write(tmp_path, "a.tsv", f"text\tlabel\nA\t{score}\n")
        with pytest.raises(InputError, match=f"a.tsv:2: {message}"):
            read_labeled_text(path, TextColumns(), ())


def test_discovery_of_labels(tmp_path):
    for content, message in (
        ("label\na\n\nb\n \n", "a.tsv:5: label is empty"),
        ("label\na\na\n", "at least two different labels, found 'a'"),
        ("label\n", "at least two different labels, found none"),
        ("text\na\n", "a.tsv:1: no column 'label' among 'text'"),
    ):
        with pytest.raises(InputError, match=message):
            discover_labels(write(tmp_path, "a.tsv", content), "label")
    path = write(tmp_path, "a.tsv", "label\nb\n10\n9\nb\n")
    assert discover_labels(path, "label") == ("10", "9", "b")
