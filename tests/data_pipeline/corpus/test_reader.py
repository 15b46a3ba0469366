"""Corpus directories are read as they were written, and damage is named."""

import itertools
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from tiny_corpora import encode_documents, write_corpus

from data_pipeline import remote
from data_pipeline.corpus.metadata import CorpusError
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.corpus.writer import SplitWriter
from data_pipeline.errors import InputError
from data_pipeline.tokenizers.wordpiece import WordPieceTokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
TRAIN = [[[5, 6], [7]], [[8, 9, 10]], [[11], [12], [5, 5]], [[6]]]
VALIDATION = [[[9, 9]]]


def write_sample(path: Path, max_shard_bytes: int = 60) -> Path:
    tokenizer = WordPieceTokenizer(TOKENS)
    splits = {"train": TRAIN, "validation": VALIDATION}
    write_corpus(path, splits, tokenizer, max_shard_bytes=max_shard_bytes)
    return path


def read_documents(split):
    documents, first = [], 0
    for shard in split.shards:
        for begin, end in zip(shard.document_offsets, shard.document_offsets[1:], strict=False):
            offsets = shard.sentence_offsets[begin : end + 1].astype(np.int64) + first
            documents.append(
                [split.read(np.arange(*pair)).tolist() for pair in itertools.pairwise(offsets)]
            )
        first += len(shard.tokens)
    return documents


def test_documents_come_back_from_several_shards(tmp_path):
    corpus = open_corpus(write_sample(tmp_path / "corpus"))
    train = corpus.splits["train"]
    assert len(train.shards) > 1
    assert all(sum(array.nbytes for array in shard) <= 60 for shard in train.shards)
    assert read_documents(train) == TRAIN
    assert read_documents(corpus.splits["validation"]) == VALIDATION
    assert (train.num_documents, train.num_sentences, train.num_tokens) == (4, 7, 11)
    assert corpus.metadata.splits["train"]["tokens"] == 11
    assert corpus.metadata.sources[0].counts["train"] == {
        "documents": 4,
        "sentences": 7,
        "tokens": 11,
    }
    assert corpus.load_tokenizer().tokens == tuple(TOKENS)


def test_tokens_are_read_at_any_addresses(tmp_path):
    train = open_corpus(write_sample(tmp_path / "corpus")).splits["train"]
    flat = np.array([5, 6, 7, 8, 9, 10, 11, 12, 5, 5, 6])
    addresses = np.array([10, 0, 3, 3, 9, 6])
    assert train.read(addresses).tolist() == flat[addresses].tolist()
    assert train.read(addresses).dtype == np.int32
    for outside in (-1, 11):
        with pytest.raises(IndexError, match="from 0 to 10"):
            train.read(np.array([outside]))


def test_large_vocabularies_are_stored_in_four_bytes(tmp_path):
    tokenizer = WordPieceTokenizer([*TOKENS, *map(str, range(70_000))])
    write_corpus(tmp_path / "corpus", {"train": [[[70_000, 5]]]}, tokenizer)
    train = open_corpus(tmp_path / "corpus").splits["train"]
    assert train.shards[0].tokens.dtype == np.uint32
    assert train.read(np.arange(2)).tolist() == [70_000, 5]


def test_fingerprint_follows_the_content_alone(tmp_path):
    fingerprints = [
        open_corpus(write_sample(tmp_path / name, size)).metadata.fingerprint
        for name, size in (("one", 60), ("two", 60), ("other", 70))
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_writing_continues_from_a_position(tmp_path):
    """Text written after the position is removed, later shards too."""

    def files(path):
        return {f.relative_to(path): f.read_bytes() for f in path.rglob("*.bin")}

    whole = SplitWriter(tmp_path / "whole", 13, max_shard_bytes=60)
    whole.append(encode_documents(TRAIN))
    whole.close()
    for before in range(len(TRAIN) + 1):
        path = tmp_path / f"cut-{before}"
        writer = SplitWriter(path, 13, max_shard_bytes=60)
        writer.append(encode_documents(TRAIN[:before]))
        position = writer.position()
        writer.append(encode_documents([[[9]] for _ in range(20)]))
        writer.close()
        writer = SplitWriter(path, 13, max_shard_bytes=60, position=position)
        writer.append(encode_documents(TRAIN[before:]))
        writer.close()
        assert files(path) == files(tmp_path / "whole")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def set_version(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99}))


@pytest.mark.parametrize(
    ("file", "harm", "message"),
    [
        ("metadata.json", Path.unlink, "has no metadata.json"),
        ("metadata.json", lambda path: path.write_text("{"), "not the metadata of a corpus"),
        ("metadata.json", set_version, "format version 99, and this program reads 1"),
        ("train/shard-00000/tokens.bin", flip_a_bit, "SHA-256 of train/shard-00000/tokens.bin"),
        ("train/shard-00001/tokens.bin", Path.unlink, "train/shard-00001/tokens.bin is missing"),
        (
            "tokenizer/vocab.txt",
            lambda path: path.write_text("a"),
            "tokenizer/vocab.txt has 1 byte",
        ),
    ],
)
def test_error_names_damaged_file(tmp_path, file, harm, message):
    path = write_sample(tmp_path / "corpus")
    harm(path / file)
    with pytest.raises(CorpusError, match=message) as error:
        open_corpus(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_error_names_missing_directory(tmp_path):
    with pytest.raises(CorpusError, match="there is no such directory"):
        open_corpus(tmp_path / "nowhere")


def test_remote_corpus_is_staged_once_and_checked(tmp_path, monkeypatch):
    """A directory stands for the store; damaged files are rejected and not kept."""
    store = write_sample(tmp_path / "store")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        remote, "open_remote", lambda url: epath.Path(url.replace("gs://bucket", str(store)))
    )
    tokens = store / "train/shard-00000/tokens.bin"
    whole = tokens.read_bytes()
    flip_a_bit(tokens)
    with pytest.raises(ValueError, match=r"gs://bucket/train/shard-00000/tokens\.bin does not"):
        open_corpus("gs://bucket")
    tokens.write_bytes(whole)
    corpus = open_corpus("gs://bucket")
    assert tmp_path / "cache" in corpus.path.parents
    shutil.rmtree(store / "train")  # The cached copy serves from here on.
    assert read_documents(open_corpus("gs://bucket").splits["train"]) == TRAIN


def test_published_corpus_can_be_staged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        remote,
        "open_remote",
        lambda url: epath.Path(url.replace("gs://bucket", str(tmp_path / "store"))),
    )
    local = write_sample(tmp_path / "corpus")
    remote.publish(local, "gs://bucket/corpus", "metadata.json")
    staged = open_corpus("gs://bucket/corpus")
    assert staged.metadata == open_corpus(local).metadata


@pytest.mark.parametrize("url", ["s3://bucket/corpus", "hdfs://host/corpus", "foo://corpus"])
def test_a_store_without_its_library_is_named(url: str) -> None:
    remote._find_fault.cache_clear()
    with pytest.raises(InputError, match=rf"{url} cannot be reached: .*{url.partition(':')[0]}"):
        remote.open_path(url)


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()

    class Slow:
        def __init__(self, url: str) -> None:
            assert url == "gs://bucket"

        def exists(self) -> bool:
            return waits.wait(60)

    remote._find_fault.cache_clear()
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(remote.epath, "Path", Slow)
    with pytest.raises(InputError, match=r"gs://bucket/corpus cannot be reached: it does not answ"):
        open_corpus("gs://bucket/corpus")
    waits.set()
    remote._find_fault.cache_clear()
