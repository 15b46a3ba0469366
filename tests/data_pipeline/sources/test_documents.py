"""Documents of every format, and errors that name file and line."""

import bz2
import functools
import gzip
import json
import lzma
import textwrap

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline.errors import InputError
from data_pipeline.sources import docstrings as installed_documentation
from data_pipeline.sources import documents as sources
from data_pipeline.sources.docstrings import extract_prose, find_documented_files
from data_pipeline.sources.documents import FileEnd, Source, SourceFormat
from data_pipeline.sources.text_files import EncodingErrors, InputFile, ReadingProgress

TWO_DOCUMENTS = "One.\n  Two. \n\n\nThree.\n"
CUT_GZIP = gzip.compress(b"One.\n" * 999, mtime=0)[:-12]
COMPRESSORS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": functools.partial(pyarrow.compress, codec="zstd", asbytes=True),
}


def read(tmp_path, name, content, **fields):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Source("test", inputs=(str(path),), **fields)
    progress = ReadingProgress()
    documents = list(source.read(source.find_inputs(), progress))
    assert progress.bytes_read == path.stat().st_size
    return documents


@pytest.mark.parametrize(("suffix", "compress"), [("", bytes), *COMPRESSORS.items()])
def test_text_plain_and_compressed(tmp_path, suffix, compress):
    content = compress(b"\xef\xbb\xbf" + TWO_DOCUMENTS.replace("\n", "\r\n").encode())
    documents = read(tmp_path, f"a.txt{suffix}", content, format=SourceFormat.TEXT)
    assert documents == [["One.", "Two."], ["Three."]]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_no_damage_of_a_compressed_file_is_its_end(tmp_path, suffix):
    """Streams may follow each other; of two the second is cut, or damaged where it begins."""
    text = "".join(f"{number} {number**9}.\n" for number in range(9000)).encode()
    stream = COMPRESSORS[suffix](text)
    [document] = read(tmp_path, f"a{suffix}", 2 * stream, format=SourceFormat.TEXT)
    assert "\n".join(document) + "\n" == 2 * text.decode()
    wrong = bytes([stream[1] ^ 1]) + stream[2:]
    faults = [stream[:-at] for at in (1, 5, 400, len(stream) // 2, len(stream) - 5)]
    for second in (*faults, stream[:1] + wrong, b"No stream.\n"):
        with pytest.raises(InputError, match=f"a{suffix} is damaged after line"):
            read(tmp_path, f"a{suffix}", stream + second, format=SourceFormat.TEXT)


def test_streams_of_xz_may_have_padding_between_them(tmp_path):
    stream = lzma.compress(TWO_DOCUMENTS.encode())
    content = stream + bytes(4) + stream + bytes(8)
    documents = read(tmp_path, "a.xz", content, format=SourceFormat.TEXT)
    assert documents == [["One.", "Two."], ["Three.", "One.", "Two."], ["Three."]]


def test_a_file_end_ends_a_document_unless_as_released(tmp_path):
    for number, text in enumerate(("One.\n", "Two.\n\n", "\nThree.")):
        (tmp_path / f"{number}.txt").write_text(text)
    expected = {
        FileEnd.ENDS_DOCUMENT: [["One."], ["Two."], ["Three."]],
        FileEnd.CONTINUES: [["One.", "Two."], ["Three."]],
    }
    for file_end, documents in expected.items():
        source = Source(
            "test", SourceFormat.SENTENCES, (str(tmp_path / "*.txt"),), file_end=file_end
        )
        assert list(source.read(source.find_inputs(), ReadingProgress())) == documents


def test_jsonl(tmp_path):
    lines = [{"body": "One.\nTwo.", "id": 1}, {"body": "  "}, {"body": "Three \u2028 four."}]
    content = "\n".join(map(json.dumps, lines)) + "\n\n"
    documents = read(tmp_path, "a.jsonl", content, format=SourceFormat.JSONL, text_column="body")
    assert documents == [["One.", "Two."], ["Three \u2028 four."]]


def test_parquet(tmp_path):
    table = pyarrow.table({"text": ["One.\n\nTwo.", None, "Three."] * 200, "id": [1, 2, 3] * 200})
    pyarrow.parquet.write_table(table, tmp_path / "table")
    content = (tmp_path / "table").read_bytes()
    documents = read(tmp_path, "a.parquet", content, format=SourceFormat.PARQUET)
    assert documents == [["One.", "Two."], ["Three."]] * 200
    for fields, message in (
        ({"text_column": "body"}, "no column 'body' among 'text', 'id'"),
        ({"text_column": "id"}, "column 'id' holds int64, not text"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, "a.parquet", content, format=SourceFormat.PARQUET, **fields)
    for suffix, compress in {"": bytes, **COMPRESSORS}.items():
        name, whole = f"a.parquet{suffix}", compress(content)
        assert len(read(tmp_path, name, whole, format=SourceFormat.PARQUET)) == 400
        with pytest.raises(InputError, match="not a complete Parquet file"):
            read(tmp_path, name, whole[:-9], format=SourceFormat.PARQUET)


def test_wikiextractor_blocks_and_json(tmp_path):
    content = textwrap.dedent("""\
        <doc id="1" url="u" title="Salt &amp; pepper">
        Salt &amp; pepper

        First paragraph.
        History.

        </doc>
        <doc id="2" url="u" title="Empty, or "empty"">
        Empty, or "empty"
        </doc>
        {"id": "3", "title": "Three", "text": "Three\\n\\nThird article.\\nMore."}
    """)
    documents = read(tmp_path, "wiki_00", content, format=SourceFormat.WIKIEXTRACTOR)
    assert documents == [["First paragraph.", "History."], ["Third article.", "More."]]


def test_prepared_tfds_data_set(tmp_path):
    """Data sets written by TFDS are read; missing ones are not downloaded."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "id": np.int64})
    examples = [{"text": f"Sentence {n}.\nAnother.", "id": n} for n in range(20)]
    (tmp_path / "notes" / "1.0.0").mkdir(parents=True)
    identity = tfds.core.DatasetIdentity("notes", "1.0.0", str(tmp_path / "notes/1.0.0"), __name__)
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=7)
    writer.initialize_splits(["train"])
    writer.add_examples({"train": examples})
    writer.close_all()
    source = Source("test", SourceFormat.TFDS, ("notes",), tfds_data_dir=str(tmp_path))
    progress = ReadingProgress()
    files = source.find_inputs()
    assert list(source.read(files, progress)) == [[f"Sentence {n}.", "Another."] for n in range(20)]
    assert progress.bytes_read == files[0].size > 0
    for fields, message in (
        ({"inputs": ("absent_data_set",)}, "no such TensorFlow data set"),
        ({"text_column": "id"}, "has no such text; its texts are text"),
    ):
        wrong = Source(
            "test",
            SourceFormat.TFDS,
            **({"inputs": ("notes",), "tfds_data_dir": str(tmp_path)} | fields),
        )
        with pytest.raises(InputError, match=message):
            list(wrong.read(wrong.find_inputs(), ReadingProgress()))


def test_docstrings_of_installed_packages(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "tests").mkdir(parents=True)
    (package / "tests" / "test_a.py").write_text('"""A test that nobody wants to read about."""\n')
    (package / "b.py").write_text("x = 1\n")
    (package / "a.py").write_text(
        textwrap.dedent('''\
        """The module explains itself in one sentence of several words."""
        class Stack:
            """A stack keeps what was put on it last on top."""
            def push(self, item):
                """Puts an item on top of all the others."""
        async def run():
            """Short."""
        def sort(items):
            """Sorts the given items from the smallest to
            the largest one in place.

            >>> sort([2, 1])
            [1, 2]
            """
        ''')
    )
    (package / "METADATA").write_text(
        "Name: x\nVersion: 1\n\n# Title\n\nThis *package* does a few useful things.\n"
    )
    (package / "broken.py").write_text('"""This file is no Python at all, sadly."""\ndef (:\n')
    monkeypatch.setattr(installed_documentation.sysconfig, "get_path", lambda _: str(tmp_path))
    source = Source("docs", SourceFormat.DOCSTRINGS)
    files = source.find_inputs()
    assert [file.name.rsplit("/", 1)[1] for file in files] == [
        "METADATA",
        "a.py",
        "b.py",
        "broken.py",
    ]
    assert list(source.read(files, ReadingProgress())) == [
        ["This *package* does a few useful things."],
        ["The module explains itself in one sentence of several words."],
        [
            "A stack keeps what was put on it last on top.",
            "Puts an item on top of all the others.",
        ],
        ["Sorts the given items from the smallest to the largest one in place."],
    ]


def test_prose_is_separated_from_code_and_lists():
    text = textwrap.dedent("""\
        Adds ``x`` to the :class:`~queue.Queue`, see
        `the guide <https://example.org>`_ for **all** the details.

        Args:
          x: what to put at the end of the
            queue, of any kind.
          y: too short.

        ======  =====
        Header  value
        ======  =====

        For example, the following lines put three items::

            queue.put(1) and then wait for a while
            queue.put(2)

        - A list item that is long enough to be kept here.
        - Another list item that is long enough to keep.

        ```python
        this is code that looks like words in a row
        ```
    """)
    assert extract_prose(text) == [
        "Adds x to the queue.Queue, see the guide for all the details.",
        "x: what to put at the end of the queue, of any kind.",
        "For example, the following lines put three items",
        "A list item that is long enough to be kept here.",
        "Another list item that is long enough to keep.",
    ]


def test_this_environment_has_documented_files():
    files = find_documented_files()
    assert any(file.name.endswith("numpy/__init__.py") for file in files)
    assert all(isinstance(file, InputFile) and file.size for file in files)


@pytest.mark.parametrize(
    ("choice", "lines", "counts"),
    [
        (EncodingErrors.REPLACE, ["fine.", "caf\ufffd.", "end."], (1, 0)),
        (EncodingErrors.SKIP, ["fine.", "end."], (0, 1)),
    ],
)
def test_bad_utf8_is_replaced_or_skipped_and_counted(tmp_path, choice, lines, counts):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"fine.\ncaf\xe9.\nend.\n")
    source = Source("test", SourceFormat.TEXT, (str(path),), encoding_errors=choice)
    progress = ReadingProgress()
    assert list(source.read(source.find_inputs(), progress)) == [lines]
    assert (progress.replaced_lines, progress.skipped_lines) == counts


@pytest.mark.parametrize(
    ("name", "content", "format", "message"),
    [
        ("latin.txt", b"fine.\ncaf\xe9.\n", "text", r"latin.txt:2: byte 4 \(0xe9\) is not UTF-8"),
        ("zero.txt", b"fine.\n\0\1\n", "text", "zero.txt:2: a zero byte"),
        ("empty.txt", b"", "text", "empty.txt is empty"),
        (
            "mac.txt",
            b"One.\r\rTwo.\r",
            "text",
            "mac.txt: its lines end with carriage returns alone",
        ),
        ("cut.txt.gz", CUT_GZIP, "text", "cut.txt.gz is damaged"),
        ("no.txt.gz", b"One.\n", "text", "no.txt.gz is damaged after line 0"),
        ("no.txt.xz", b"One.\n", "text", "no.txt.xz is damaged after line 0"),
        ("no.txt.zst", b"One.\n", "text", "no.txt.zst is damaged after line 0"),
        ("a.jsonl", b'{"text": "One."}\n{"text"\n', "jsonl", "a.jsonl:2: this is not JSON"),
        ("a.jsonl", b'{"title": "One."}\n', "jsonl", "a.jsonl:1: no field 'text' among 'title'"),
        ("a.jsonl", b'{"text": 3}\n', "jsonl", "a.jsonl:1: 'text' is not text"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "jsonl", "a.jsonl:1: .* is not Unicode text"),
        ("a.jsonl", b"[1]\n", "jsonl", "a.jsonl:1: expected a JSON object"),
        ("wiki", b"<doc id=1>\nOne.\n", "wikiextractor", "wiki:1: this <doc> is not closed"),
        (
            "wiki",
            b'<doc id="1" url="u" title="A">\n' * 2 + b"</doc>\n",
            "wikiextractor",
            "wiki:1: this <doc> is not closed",
        ),
        ("wiki", b"\nOne.\n", "wikiextractor", "wiki:2: expected <doc ...> or a JSON object"),
    ],
)
def test_errors_are_one_line(tmp_path, name, content, format, message):
    with pytest.raises(InputError, match=message) as error:
        read(tmp_path, name, content, format=SourceFormat(format))
    assert "\n" not in str(error.value)


def test_missing_files_and_directories(tmp_path):
    for pattern, message in ((tmp_path / "*.txt", "no file matches"), (tmp_path, "is a directory")):
        with pytest.raises(InputError, match=message) as error:
            Source("test", SourceFormat.TEXT, (str(pattern),)).find_inputs()
        assert str(error.value).startswith(f"--input={pattern}: ")


def test_long_documents_are_cut_between_paragraphs(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_DOCUMENT_CHARACTERS", 10)
    path = tmp_path / "a.txt"
    path.write_text("aaaa\nbbbb\ncccc\ndddddddddddd\n\nee\n\n" + "ffff\n" * 9)
    source = Source("test", SourceFormat.TEXT, (str(path),))
    progress = ReadingProgress()
    documents = list(source.read(source.find_inputs(), progress))
    assert documents == [
        ["aaaa", "bbbb"],
        ["cccc"],
        ["dddddddddddd"],
        ["ee"],
        *4 * [["ffff"] * 2],
        ["ffff"],
    ]
    assert progress.cut_documents > 0
