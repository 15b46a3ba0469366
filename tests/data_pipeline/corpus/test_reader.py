"""Corpus directories are read as they were written, and damage is named."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import operator
import resource
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from memory_stores import memory_stores
from tiny_corpora import write_corpus

from albert_jax.durable_files import hash_file
from data_pipeline import remote, verification
from data_pipeline.cache import cache_directory, host_lock
from data_pipeline.corpus.metadata import (
    CorpusError,
    CorpusMetadata,
    SourceMetadata,
    fingerprint_content,
)
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.corpus.sentence_index import SentenceIndex
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
    for directory in (corpus.path / "train").iterdir():
        assert sum(file.stat().st_size for file in directory.iterdir()) <= 60
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
        ("metadata.json", set_version, "format version 99, and this program reads 1 to 3"),
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


def test_files_that_the_metadata_does_not_name(tmp_path):
    path = write_sample(tmp_path / "corpus")
    (path / "train" / ".nfs0001").touch()
    open_corpus(path)
    (path / "tokenizer" / "spiece.model").touch()
    with pytest.raises(CorpusError, match=r"does not name tokenizer/spiece\.model"):
        open_corpus(path)


def leaves(value, place=()):
    """Yield the place of each value in parsed JSON that holds no others."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, dict | list) and inner:
            yield from leaves(inner, (*place, key))
        yield (*place, key)


def changes(value):
    """Yield values that differ from a value of parsed JSON a little, or in their type."""
    yield from (None, [value], {"a": value}, "0")
    if isinstance(value, str):
        yield value[:-1] + chr(ord(value[-1]) ^ 1) if value else "a"
    elif isinstance(value, int | float):
        yield from (value + 1, value - 7, -value - 1, 0 if value else 1, 10**400, str(value))
    else:
        yield type(value)()


def changed(fields, place, *value):
    """Return a copy of parsed JSON with another value at a place, or without any."""
    copy = json.loads(json.dumps(fields))
    at = copy
    for key in place[:-1]:
        at = at[key]
    if value:
        at[place[-1]] = value[0]
    else:
        del at[place[-1]]
    return copy


def write_weighted(path: Path, **weights: float) -> Path:
    """Write the sample with sources of these weights, of which the first has all of the text."""
    metadata = open_corpus(write_sample(path)).metadata
    (only,) = metadata.sources
    none = {split: dict.fromkeys(counts, 0) for split, counts in only.counts.items()}
    counts = [only.counts] + [none] * (len(weights) - 1)
    dataclasses.replace(
        metadata,
        sources=tuple(map(SourceMetadata, weights, weights.values(), counts)),
        settings={"sources": [{"name": n, "weight": w} for n, w in weights.items()]},
        fingerprint=fingerprint_content(metadata.files, weights),
    ).save(path)
    return path


def as_first_format(path: Path) -> dict:
    """Rewrite a corpus's metadata in the earlier format, and return its fields."""
    file = path / "metadata.json"
    fields = json.loads(file.read_text())
    del fields["seals"]
    lines = "".join(f"{record['sha256']} {name}\n" for name, record in fields["files"].items())
    fields |= {"format_version": 1, "fingerprint": hashlib.sha256(lines.encode()).hexdigest()}
    file.write_text(json.dumps(fields))
    return fields


def test_no_value_of_the_metadata_can_be_changed(tmp_path):
    path = write_weighted(tmp_path / "corpus", a=1.0, b=2.0)
    fields = json.loads((path / "metadata.json").read_text())
    CorpusMetadata.from_json(json.dumps(fields))
    tried = 0
    for place in leaves(fields):
        value = functools.reduce(operator.getitem, place, fields)
        several = [changed(fields, place)]
        several += [changed(fields, place, other) for other in changes(value) if other != value]
        for damaged in several:
            with pytest.raises(CorpusError) as error:
                CorpusMetadata.from_json(json.dumps(damaged))
            assert "\n" not in str(error.value)
            tried += 1
    assert tried > 500


def test_a_changed_weight_is_named(tmp_path):
    path = write_weighted(tmp_path / "corpus", a=1.0, b=2.0)
    fields = json.loads((path / "metadata.json").read_text())
    for several in (fields, as_first_format(path)):
        damaged = changed(several, ("sources", 0, "weight"), 9.0)
        with pytest.raises(
            CorpusError, match=r"weight of source a is 9\.0, and it was built with 1"
        ):
            CorpusMetadata.from_json(json.dumps(damaged))
    damaged = changed(changed(fields, ("sources", 0, "weight"), 9.0), ("settings",), {})
    with pytest.raises(CorpusError, match="sources has changed since it was written"):
        CorpusMetadata.from_json(json.dumps(damaged))


def test_weights_are_part_of_the_fingerprint(tmp_path):
    def read(name: str, **weights: float) -> CorpusMetadata:
        return open_corpus(write_weighted(tmp_path / name, **weights)).metadata

    light, heavy = read("light", a=1.0, b=2.0), read("heavy", a=1.0, b=9.0)
    assert light.fingerprint != heavy.fingerprint
    assert light.unsealed_fingerprint is heavy.unsealed_fingerprint is None
    assert heavy.weights == {"a": 1.0, "b": 9.0}


def test_a_corpus_of_before_is_read_and_checked_by_its_numbers(tmp_path):
    path = write_sample(tmp_path / "corpus")
    fields = as_first_format(path)
    corpus = open_corpus(path)
    assert read_documents(corpus.splits["train"]) == TRAIN
    assert corpus.metadata.fingerprint == corpus.metadata.unsealed_fingerprint
    assert corpus.metadata.fingerprint == fields["fingerprint"]
    one_file = "train/shard-00000/tokens.bin"
    for place, value in (
        (("files",), {}),
        (("fingerprint",), "0"),
        (("files", one_file, "sha256"), "0" * 64),
        (("splits", "train", "shards"), 1),
        (("splits", "train", "tokens"), 10),
        (("sources", 0, "counts", "train", "documents"), 3),
        (("sources", 0, "weight"), 0),
        (("sources", 0, "weight"), float("nan")),
        (("vocab_size",), 70_000),
        (("vocab_size",), fields["vocab_size"] + 1),
        (("seals",), {}),
        (("format_version",), 2),
        (("format_version",), True),
    ):
        (path / "metadata.json").write_text(json.dumps(changed(fields, place, value)))
        with pytest.raises(CorpusError):
            open_corpus(path)
    del fields["files"][one_file]
    (path / "metadata.json").write_text(json.dumps(fields))
    with pytest.raises(CorpusError, match="files of text for"):
        open_corpus(path)


def test_unequal_weights_of_a_corpus_of_before_count(tmp_path):
    former = []
    for name, weight in (("light", 2.0), ("heavy", 9.0)):
        path = write_weighted(tmp_path / name, a=1.0, b=weight)
        as_first_format(path)
        former.append(open_corpus(path).metadata)
    light, heavy = former
    assert light.fingerprint != heavy.fingerprint
    assert light.unsealed_fingerprint == heavy.unsealed_fingerprint


@contextlib.contextmanager
def most_descriptors(limit: int):
    """Set the number of descriptors that this process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_many_shards_are_read_with_few_descriptors(tmp_path):
    documents = [[[5 + n % 8] * 3, [5 + n // 8 % 8]] for n in range(80)]
    path = tmp_path / "corpus"
    write_corpus(path, {"train": documents}, WordPieceTokenizer(TOKENS), max_shard_bytes=30)
    used = open_descriptors()
    with most_descriptors(used + 130):
        train = open_corpus(path).splits["train"]
        assert len(train.shards) == 80
        flat = np.array([token for sentence in documents for part in sentence for token in part])
        order = np.random.default_rng(0).permutation(len(flat))
        assert train.read(order).tolist() == flat[order].tolist()
        index = SentenceIndex(train)
        assert index.addresses(np.arange(161)).tolist() == [
            *itertools.chain.from_iterable((4 * n, 4 * n + 3) for n in range(80)),
            320,
        ]
        assert index.first_sentences(np.array([80, 7, 0])).tolist() == [160, 14, 0]
        assert open_descriptors() - used <= 64
    del train, index
    assert open_descriptors() == used


@pytest.mark.slow
def test_two_thousand_shards_open_in_two_seconds(tmp_path):
    path = tmp_path / "corpus"
    documents = [[[5, 6, 7], [8]]] * 2000
    write_corpus(path, {"train": documents}, WordPieceTokenizer(TOKENS), max_shard_bytes=30)
    started = time.process_time()  # what other processes do meanwhile does not count
    assert len(open_corpus(path, verify=False).splits["train"].shards) == 2000
    assert time.process_time() - started < 2


def test_a_corpus_that_is_replaced_is_not_mixed_with_the_new_one(tmp_path):
    path = write_sample(tmp_path / "corpus")
    train = open_corpus(path).splits["train"]
    first = train.read(np.array([0]))
    path.rename(tmp_path / "replaced")
    write_sample(path, max_shard_bytes=70)
    assert train.read(np.array([0])) == first
    flat = [token for document in TRAIN for sentence in document for token in sentence]
    assert train.read(np.arange(len(flat))).tolist() == flat
    train = open_corpus(path).splits["train"]
    shutil.rmtree(path)
    with pytest.raises(InputError, match=r"shard-00000/tokens\.bin is gone"):
        train.read(np.array([0]))


def test_files_are_hashed_once_per_host_until_they_change(tmp_path, monkeypatch):
    path = write_sample(tmp_path / "corpus")
    files = json.loads((path / "metadata.json").read_text())["files"]
    hashed = []
    monkeypatch.setattr(
        verification, "hash_file", lambda file: hashed.append(file) or hash_file(file)
    )

    def count() -> int:
        hashed.clear()
        open_corpus(path)
        return len(hashed)

    assert count() == count() == len(files)  # just written: a change might not show
    monkeypatch.setattr(verification, "_YOUNG_SECONDS", -60)
    assert (count(), count()) == (len(files), 0)
    (path / "train/shard-00000/tokens.bin").touch()
    assert (count(), count()) == (1, 0)
    monkeypatch.setattr(verification, "_VALID_SECONDS", 0)
    assert count() == len(files)
    monkeypatch.setattr(verification, "_VALID_SECONDS", 3600)
    for content in ("{", "[]", json.dumps(dict.fromkeys(files, "soon"))):
        for marker in (cache_directory() / "verified").iterdir():
            marker.write_text(content)
        assert count() == len(files)
    flip_a_bit(path / "train/shard-00000/tokens.bin")
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"SHA-256 of train/shard-00000/tokens\.bin"):
            open_corpus(path)


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from data_pipeline.cache import host_lock\n"
        "with host_lock(Path(sys.argv[1]), 'testing'): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: host_lock(tmp_path, "testing").__enter__())
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        holder.kill()
        holder.communicate()
        waiting.result(timeout=20)


def test_without_a_cache_directory_each_process_verifies(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    open_corpus(write_sample(tmp_path / "corpus"))
    assert "No lock while verifying the files of" in caplog.text
    assert "Each process verifies" in caplog.text


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
    flip_a_bit(corpus.path / "train/shard-00000/tokens.bin")  # A damaged copy is mended.
    (corpus.path / "train/shard-00001/tokens.bin").unlink()
    assert read_documents(open_corpus("gs://bucket").splits["train"]) == TRAIN
    shutil.rmtree(store / "train")  # The cached copy serves from here on.
    assert read_documents(open_corpus("gs://bucket").splits["train"]) == TRAIN
    tokens = corpus.path / "train/shard-00000/tokens.bin"
    flip_a_bit(tokens)
    with pytest.raises(InputError, match=r"train/shard-00000/tokens\.bin is missing"):
        open_corpus("gs://bucket")


def test_processes_that_stage_at_once_copy_each_file_once(tmp_path, monkeypatch):
    store = write_sample(tmp_path / "store")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "open_remote", lambda _: epath.Path(store))
    copied = []
    copy = remote._copy_files
    monkeypatch.setattr(remote, "_copy_files", lambda *all: copied.extend(all[2]) or copy(*all))
    with ThreadPoolExecutor(4) as pool:
        corpora = list(pool.map(open_corpus, ["gs://bucket"] * 4))
    assert {corpus.metadata.fingerprint for corpus in corpora} == {
        open_corpus(store).metadata.fingerprint
    }
    assert len(copied) == len(set(copied)) == len(corpora[0].metadata.files)


def test_published_corpus_can_be_staged(tmp_path, monkeypatch):
    """This works over another corpus, too, of which only hidden files are left."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    local = write_sample(tmp_path / "corpus")
    with memory_stores(monkeypatch):
        store = epath.Path("gs://bucket/corpus")
        for name in ("metadata.json", "train/shard-00009/tokens.bin", ".lock"):
            (store / name).write_text("of another one")
        remote.publish(local, str(store), "metadata.json")
        assert open_corpus(str(store)).metadata == open_corpus(local).metadata
        assert not (store / "train/shard-00009").exists()
        assert (store / ".lock").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/corpus", r"s3:// needs `pip install 'albert-jax\[s3\]'`"),
        ("gs://bucket/corpus", r"gs:// needs `pip install 'albert-jax\[gcs\]'`"),
        ("hdfs://host/corpus", "no file system for hdfs:// is known, only gs, s3"),
    ],
)
def test_a_store_without_its_library_is_named(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"{url} cannot be reached: {message}"):
        remote.open_path(url)


def test_a_store_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.2)
    with memory_stores(monkeypatch) as store:
        monkeypatch.setattr(store, "info", lambda self, path: waits.wait(60))
        with pytest.raises(
            InputError, match=r"gs://bucket/corpus cannot be reached: it does not answ"
        ):
            open_corpus("gs://bucket/corpus")
        waits.set()


def test_what_a_store_answers_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, path: str) -> None:
        raise PermissionError("Forbidden")

    with memory_stores(monkeypatch) as store:
        monkeypatch.setattr(store, "info", refuse)
        with pytest.raises(InputError, match="gs://b/c cannot be reached: PermissionError: Forb"):
            open_corpus("gs://b/c")
