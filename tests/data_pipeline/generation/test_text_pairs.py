"""Pairs of source and target from aligned files, tables and TFDS, and their errors."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.errors import InputError
from data_pipeline.generation import (
    TextPair,
    read_pair_table,
    read_parallel_text,
    read_tfds_pairs,
)

# `str.splitlines` and maybe Python's text files split at these; here none of them ends a line.
INSIDE = "a\x0bb\x0cc\x1cd\x1ee\x85f\u2028g\u2029h\ri"


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_lines_are_aligned_whatever_is_inside_them(tmp_path):
    sources = write(tmp_path, "a.en.gz", gzip.compress(f"{INSIDE}\n\n  x \r\n\ny".encode()))
    targets = write(tmp_path, "a.de", f"\ufeffA\n \n{INSIDE}\nonly a target\nY\n")
    assert read_parallel_text(sources, targets) == [
        TextPair("0", INSIDE, "A"),
        TextPair("2", "  x ", INSIDE),
        TextPair("3", "", "only a target"),
        TextPair("4", "y", "Y"),
    ]
    alone = read_parallel_text(sources, None)
    assert [pair.source for pair in alone] == [INSIDE, "", "  x ", "", "y"]
    assert {pair.target for pair in alone} == {None}


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("A\nB\nC\n", "A\n\n", r"a.en has 3 lines and \S*a.de has 2: line n"),
        ("A\nB\n", "A\n \n", r"a.de:2: the target is empty, its source is 'B'"),
        ("\n\n", " \n\t\n", r"a.en and \S*a.de have nothing but empty lines"),
        ("A\n", "", r"a.de is empty"),
        ("A\n", b"caf\xe9\n", r"a.de:1: byte 4 \(0xe9\) is not UTF-8"),
    ],
)
def test_files_that_are_not_aligned(tmp_path, source, target, message):
    with pytest.raises(InputError, match=message):
        read_parallel_text(write(tmp_path, "a.en", source), write(tmp_path, "a.de", target))


TABLE = "key\tsummary\tarticle\n7\tRain.\tIt\u2028rained.\n8\t\t \n9\tSnow.\t\n"


def test_tables(tmp_path):
    path = write(tmp_path, "a.tsv", TABLE)
    expected = [TextPair("7", "It\u2028rained.", "Rain."), TextPair("9", "", "Snow.")]
    assert read_pair_table(path, "article", "summary", "key") == expected
    assert read_pair_table(path, "article", None, None) == [
        TextPair("0", "It\u2028rained.", None),
        TextPair("1", " ", None),
        TextPair("2", "", None),
    ]
    lines = '{"article": "It rained.", "summary": "Rain.\\nMuch."}\n'
    found = read_pair_table(write(tmp_path, "a.jsonl", lines), "article", "summary", None)
    assert found == [TextPair("0", "It rained.", "Rain.\nMuch.")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("6\t\tText.\n", "a.tsv:5: the target is empty, its source is 'Text.'"),
        ("7\tB\tA\n", "a.tsv:5: the id '7' is repeated"),
        (" \tB\tA\n", "a.tsv:5: key is empty"),
        ("6\tB\n", "a.tsv:5: expected 3 columns, found 2"),
    ],
)
def test_errors_of_tables_name_file_and_line(tmp_path, row, message):
    with pytest.raises(InputError, match=message):
        read_pair_table(write(tmp_path, "a.tsv", TABLE + row), "article", "summary", "key")


def test_a_table_without_pairs_or_columns(tmp_path):
    path = write(tmp_path, "a.tsv", "article\tsummary\n \t \n")
    with pytest.raises(InputError, match=r"a.tsv has no row with text"):
        read_pair_table(path, "article", "summary", None)
    with pytest.raises(InputError, match=r"a.tsv:1: no column 'title' among 'article', 'summary'"):
        read_pair_table(path, "article", "title", None)


def prepare_tfds(tmp_path, examples):
    """Write a version of a data set with a translation, nested and not, and return its place."""
    import tensorflow_datasets as tfds

    directory = tmp_path / "pairs/1.0.0"
    directory.mkdir(parents=True)
    languages = tfds.features.Translation(languages=("de", "en"))
    features = tfds.features.FeaturesDict(
        {"translation": languages, "title": tfds.features.Text(), "number": np.int32}
    )
    identity = tfds.core.DatasetIdentity("pairs", "1.0.0", str(directory), __name__)
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=2)
    writer.initialize_splits(["train"])
    writer.add_examples({"train": examples})
    writer.close_all()
    return directory


def test_prepared_tfds_data_sets(tmp_path):
    def example(de, en):
        return {"translation": {"de": de, "en": en}, "title": f"T{en}", "number": 1}

    texts = [("Hund\u2028é", "Dog"), ("", ""), ("", "Cat"), ("Schnee", "Snow"), ("Eis", "Ice")]
    place = prepare_tfds(tmp_path, [example(*pair) for pair in texts])
    pairs = [TextPair(str(number), de, en) for number, (de, en) in enumerate(texts)]
    expected = [pair for pair in pairs if pair.id != "1"]
    options = ("train", "translation/de", "translation/en")
    assert read_tfds_pairs(place, *options) == expected
    assert read_tfds_pairs("pairs", *options, str(tmp_path)) == expected
    titles = read_tfds_pairs(place, "train", "title", None)
    assert [pair.source for pair in titles] == [f"T{en}" for _, en in texts]
    for arguments, message in (
        (
            ("train", "translation/de", "number"),
            r"pairs/1.0.0 has no text 'number' among 'title', 'translation/de', 'translation/en'",
        ),
        (("train", "translation", None), "has no text 'translation' among"),
        (("test", "title", None), "the data set has no split test, only train"),
        (
            ("train", "translation/en", "translation/de"),
            "pairs/1.0.0, split train, example 2: the target is empty, its source is 'Cat'",
        ),
    ):
        with pytest.raises(InputError, match=message):
            read_tfds_pairs(place, *arguments)
    missing = Path(tmp_path, "none")
    with pytest.raises(InputError, match="none: no such TensorFlow data set"):
        read_tfds_pairs(missing, *options)
