"""Tables, and data sets that `datasets` saved or cached: texts, columns, splits and faults."""

import csv
import functools
import gzip
import io
import json
import logging
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest

from data_pipeline.errors import InputError
from data_pipeline.sources.documents import Document, Source, SourceFormat
from data_pipeline.sources.text_files import EncodingErrors, ReadingProgress

TEXTS = ['"Hi," he said.\n\n\tMore, here.', "word " * 40_000, "Last one."]
EXPECTED = [['"Hi," he said.', "More, here."], [("word " * 40_000).strip()], ["Last one."]]


def read(format: SourceFormat, *inputs: str, **fields: object) -> list[Document]:
    source = Source("test", format, inputs, **fields)
    files = source.find_inputs()
    progress = ReadingProgress()
    documents = list(source.with_text_column(files).read(files, progress))
    assert progress.bytes_read == sum(file.size for file in files)
    return documents


def as_csv(texts: list[str]) -> bytes:
    written = io.StringIO()
    rows = [("id", "body"), *enumerate(texts), (9, "")]
    csv.writer(written).writerows(rows)
    return b"\xef\xbb\xbf" + written.getvalue().encode()


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("a.csv", bytes),
        ("a.csv.gz", gzip.compress),
        ("a.csv.zst", functools.partial(pyarrow.compress, codec="zstd", asbytes=True)),
    ],
)
def test_csv(tmp_path: Path, name: str, compress: object, caplog: pytest.LogCaptureFixture) -> None:
    """Quoted cells with line ends and quotes, long cells, and a byte order mark."""
    caplog.set_level(logging.INFO, "data_pipeline")
    (tmp_path / name).write_bytes(compress(as_csv(TEXTS)))
    assert read(SourceFormat.CSV, str(tmp_path / name)) == EXPECTED
    assert "test: reading the column 'body', which has the longest texts" in caplog.text
    caplog.clear()
    assert read(SourceFormat.CSV, str(tmp_path / name), text_column="body") == EXPECTED
    assert not caplog.text


def test_the_first_of_several_tables_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "0.csv").write_text("id,body\n")
    (tmp_path / "1.csv").write_text("id,body\n1,One.\n")
    assert read(SourceFormat.CSV, str(tmp_path / "*.csv")) == [["One."]]
    for number, texts in enumerate(([], ["One."])):
        table = pyarrow.table({"id": range(len(texts)), "body": pyarrow.array(texts, "string")})
        pyarrow.parquet.write_table(table, tmp_path / f"{number}.parquet")
    assert read(SourceFormat.PARQUET, str(tmp_path / "*.parquet")) == [["One."]]


def test_tsv_has_plain_quotes_and_prefers_the_column_text(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('longer\ttext\r\nabcdef ghi\t"One.\r\n\nxxxxxxxxxxxx\tTwo, three."\r\n')
    assert read(SourceFormat.TSV, str(file)) == [['"One.'], ['Two, three."']]


@pytest.mark.parametrize(
    ("format", "content", "fields", "message"),
    [
        ("csv", "a,b\n1,x\n", {"text_column": "c"}, r":1: no column 'c' among 'a', 'b'; --text_c"),
        ("csv", "a,b\n1,x\n\n2\n", {}, ":4: expected 2 columns as in the header, found 1$"),
        ("tsv", "a\tb\n1\n", {}, ":2: expected 2 .*found 1; quotes are plain characters in a tsv"),
        ("csv", "a\tb\n1\tx\n", {}, r":1: the columns of a csv are separated by ',', the header"),
        ("tsv", "a,b\n1,x\n", {}, r"--format may be csv \(','\) or tsv"),
        ("csv", 'a,b\n1,"x\n', {}, ":2: this is not csv"),
        ("csv", "a,b\n", {}, "has no rows with text"),
        ("csv", b"a,b\n1,\xff\n", {}, "is not UTF-8; --encoding_errors may be"),
        (
            "csv",
            "a,b\n1,x\n",
            {"text_column": "b", "encoding_errors": EncodingErrors.SKIP},
            "cannot be skipped",
        ),
    ],
)
def test_faults_of_tables_are_named(
    tmp_path: Path, format: str, content: str | bytes, fields: dict[str, object], message: str
) -> None:
    file = tmp_path / f"a.{format}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read(SourceFormat(format), str(file), **fields)


def write_arrow(file: Path, texts: list[str | None]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(
        {"id": list(range(len(texts))), "body": texts, "short": ["x"] * len(texts)}
    )
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def save_to_disk(directory: Path, splits: dict[str, list[str | None]]) -> None:
    """Write what `DatasetDict.save_to_disk` writes, a split in two shards."""
    for split, texts in splits.items():
        shards = [f"data-0000{number}-of-00002.arrow" for number in (0, 1)]
        for name, part in zip(shards, (texts[:1], texts[1:]), strict=True):
            write_arrow(directory / split / name, part)
        state = {"_data_files": [{"filename": name} for name in shards], "_split": None}
        (directory / split / "state.json").write_text(json.dumps(state))
        (directory / split / "dataset_info.json").write_text('{"features": {}}')
    (directory / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))


def test_saved_data_sets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "data_pipeline")
    save_to_disk(tmp_path / "set", {"train": [*TEXTS, None], "test": ["Only.", "This."]})
    directory = str(tmp_path / "set")
    assert read(SourceFormat.HUGGINGFACE, directory) == EXPECTED
    assert "reading the column 'body'" in caplog.text
    assert read(SourceFormat.HUGGINGFACE, directory, split="test") == [["Only."], ["This."]]
    assert read(SourceFormat.HUGGINGFACE, f"{directory}/test") == [["Only."], ["This."]]
    for fields, message in (
        ({"split": "dev"}, "has no split dev, only train, test; see --split"),
        ({"text_column": "id"}, "column 'id' holds int64, not text"),
        ({"text_column": "text"}, "no column 'text' among 'id', 'body', 'short'; --text_column"),
    ):
        with pytest.raises(InputError, match=message):
            read(SourceFormat.HUGGINGFACE, directory, **fields)
    shard = tmp_path / "set/train/data-00001-of-00002.arrow"
    shard.write_bytes(shard.read_bytes()[:-900])
    with pytest.raises(InputError, match=r"00001-of-00002\.arrow is not a complete Arrow file"):
        read(SourceFormat.HUGGINGFACE, directory)
    shard.unlink()
    with pytest.raises(InputError, match="no file matches"):
        read(SourceFormat.HUGGINGFACE, directory)
    with pytest.raises(InputError, match="so `datasets` has not saved a data set there"):
        read(SourceFormat.HUGGINGFACE, str(tmp_path))


def test_cached_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    for configuration, texts in (("en", ["One."]), ("fr", ["Un.", "Deux."])):
        leaf = tmp_path / "Owner___tiny_stories" / configuration / "0.0.0" / "d78d5935"
        leaf.mkdir(parents=True)
        (leaf / "dataset_info.json").write_text('{"splits": {"train": {}}}')
        write_arrow(leaf / "tiny_stories-train.arrow", texts)
        write_arrow(leaf / "cache-0123456789abcdef.arrow", ["Of a map."])
    assert read(SourceFormat.HUGGINGFACE, "Owner/TinyStories/fr") == [["Un."], ["Deux."]]
    for number in range(3):
        write_arrow(leaf / f"tiny_stories-train-0000{number}-of-00003.arrow", [f"No. {number}."])
    (leaf / "tiny_stories-train.arrow").unlink()
    assert len(read(SourceFormat.HUGGINGFACE, "Owner/TinyStories/fr")) == 3
    for left, last in ((2, 2), (1, 0), (0, 1)):
        (leaf / f"tiny_stories-train-0000{last}-of-00003.arrow").unlink()
        of = 3 if left else 1
        with pytest.raises(InputError, match=f"has {left} of the {of} files of the split train"):
            read(SourceFormat.HUGGINGFACE, "Owner/TinyStories/fr")
    with pytest.raises(InputError, match="name one: Owner/TinyStories/en, Owner/TinyStories/fr"):
        read(SourceFormat.HUGGINGFACE, "Owner/TinyStories")
    fetch = (
        r"""`python -c "from datasets import load_dataset; load_dataset\('Owner/Other'\)"` fetch"""
    )
    with pytest.raises(InputError, match=fetch):
        read(SourceFormat.HUGGINGFACE, "Owner/Other")


@pytest.mark.interop
def test_data_sets_of_the_library_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    logging.getLogger("datasets").setLevel(logging.ERROR)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS))
    cached = datasets.load_dataset(
        "json", data_files=str(tmp_path / "a.jsonl"), cache_dir=str(tmp_path / "cache")
    )
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    assert read(SourceFormat.HUGGINGFACE, "json") == EXPECTED
    cached.save_to_disk(str(tmp_path / "all"), num_shards={"train": 2})
    assert read(SourceFormat.HUGGINGFACE, str(tmp_path / "all")) == EXPECTED
    shuffled = cached["train"].select([2, 0])  # an order beside the file, which saving applies
    shuffled.save_to_disk(str(tmp_path / "one"))
    assert read(SourceFormat.HUGGINGFACE, str(tmp_path / "one")) == [EXPECTED[2], EXPECTED[0]]
