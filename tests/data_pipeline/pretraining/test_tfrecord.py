"""The released record features: written, and imported with their masks."""

import itertools
import resource

import numpy as np
import pytest
import tensorflow as tf
from tiny_corpora import make_corpus, random_lengths

from albert_jax.batch import PretrainingBatch
from data_pipeline.config import DataConfig, WordStartRule
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import PretrainingDataset, load_vocabulary
from data_pipeline.pretraining.records import RecordDataset
from data_pipeline.pretraining.tfrecord import import_records, write_records

BATCH, STEPS = 16, 3
CONFIG = DataConfig(max_seq_length=32, max_predictions_per_seq=6)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write batches of a corpus to two files."""
    path = tmp_path_factory.mktemp("tfrecord")
    corpus = make_corpus(path / "corpus", random_lengths(80, seed=0))
    dataset = PretrainingDataset(corpus, CONFIG, seed=1, global_batch_size=BATCH)
    batches = list(itertools.islice(dataset.batches(start_step=0), STEPS))
    vocabulary = load_vocabulary(corpus, WordStartRule.SPACE)
    files = [path / "a.tfrecord", path / "b.tfrecord"]
    assert write_records(batches, files, vocabulary=vocabulary) == BATCH * STEPS
    return batches, files, vocabulary


def test_features_are_the_released_ones(written):
    batches, files, vocabulary = written
    serialized = next(iter(tf.data.TFRecordDataset(str(files[1])))).numpy()
    features = tf.train.Example.FromString(serialized).features.feature
    row = {name: array[1] for name, array in batches[0].items()}  # rows alternate between the files
    integers = {name: list(feature.int64_list.value) for name, feature in features.items()}
    assert {name: len(values) for name, values in integers.items()} == {
        "input_ids": 32,
        "input_mask": 32,
        "segment_ids": 32,
        "token_boundary": 32,
        "masked_lm_positions": 6,
        "masked_lm_ids": 6,
        "masked_lm_weights": 0,
        "next_sentence_labels": 1,
    }
    assert integers["input_ids"] == row["input_ids"].tolist()
    assert integers["input_mask"] == (row["sequence_ids"] > 0).tolist()
    assert integers["segment_ids"] == row["token_type_ids"].tolist()
    assert integers["next_sentence_labels"] == row["sentence_order_labels"].tolist()
    assert list(features["masked_lm_weights"].float_list.value) == row["masked_lm_weights"].tolist()
    original = dict(zip(integers["masked_lm_positions"], integers["masked_lm_ids"], strict=True))
    for position, (token, mark) in enumerate(
        zip(integers["input_ids"], integers["token_boundary"], strict=True)
    ):
        token = original.get(position, token) or token
        if not integers["input_mask"][position]:
            assert mark == 0
        else:
            assert mark == (token in (2, 3) or vocabulary.word_starts[token])


def test_imported_records_are_the_batches_they_were_written_from(written, tmp_path):
    batches, files, _ = written
    assert import_records(files, tmp_path / "records") == BATCH * STEPS
    dataset = RecordDataset(tmp_path / "records", CONFIG, seed=5, global_batch_size=BATCH)
    assert dataset.rows_per_epoch == BATCH * STEPS
    epochs = list(itertools.islice(dataset.batches(start_step=0), 2 * STEPS))
    for batch in epochs:
        PretrainingBatch.from_numpy(batch)

    def rows(parts: list[dict]) -> list[tuple]:
        names = sorted(parts[0])
        compared = [name for name in names if name != "sentence_order_weights"]
        return [
            tuple(tuple(part[name][row].tolist()) for name in compared)
            for part in parts
            for row in range(BATCH)
        ]

    assert sorted(rows(epochs[:STEPS])) == sorted(rows(batches))
    assert sorted(rows(epochs[STEPS:])) == sorted(rows(batches))
    assert rows(epochs[:STEPS]) != rows(epochs[STEPS:])
    (later,) = itertools.islice(dataset.batches(start_step=4, rows=np.array([3, 9])), 1)
    for name in later:
        np.testing.assert_array_equal(later[name], epochs[4][name][[3, 9]])


def test_bad_records_are_an_error_of_one_line(written, tmp_path):
    batches, files, vocabulary = written
    target = tmp_path / "records"

    def assert_rejected(message: str, path) -> None:
        with pytest.raises(InputError, match=message) as caught:
            import_records([path], target)
        assert "\n" not in str(caught.value)
        assert list(tmp_path.glob("records*")) == []

    assert_rejected("does not exist", tmp_path / "missing")
    (tmp_path / "empty").touch()
    assert_rejected("is empty", tmp_path / "empty")
    (tmp_path / "text").write_text("no record at all " * 10)
    assert_rejected("is not a record file, or damaged", tmp_path / "text")
    content = bytearray(files[0].read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped").write_bytes(content)
    assert_rejected("damaged after record", tmp_path / "flipped")

    serialized = next(iter(tf.data.TFRecordDataset(str(files[0])))).numpy()

    def write_changed(name: str, change) -> None:
        example = tf.train.Example.FromString(serialized)
        change(example.features.feature)
        with tf.io.TFRecordWriter(str(tmp_path / name)) as writer:
            writer.write(serialized)
            writer.write(example.SerializeToString())

    write_changed("short", lambda features: features["input_ids"].int64_list.value.pop())
    assert_rejected("a record from 0 on differs", tmp_path / "short")

    def swap_segments(features) -> None:
        features["segment_ids"].int64_list.value[0] = 1

    write_changed("segments", swap_segments)
    assert_rejected("record 1: segment_ids", tmp_path / "segments")
    with tf.io.TFRecordWriter(str(tmp_path / "other")) as writer:
        writer.write(tf.train.Example().SerializeToString())
    assert_rejected("no feature input_ids", tmp_path / "other")

    with pytest.raises(InputError, match="exists already"):
        write_records(batches, files, vocabulary=vocabulary)
    packed = batches[0] | {"sentence_order_labels": np.zeros((BATCH, 2), np.int32)}
    with pytest.raises(InputError, match="unpacked"):
        write_records([packed], [tmp_path / "packed"], vocabulary=vocabulary)
    assert not list(tmp_path.glob("packed*"))
    import_records(files, target)
    with pytest.raises(InputError, match="exists already"):
        import_records(files, target)
    (target / "tokens.bin").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        RecordDataset(target, CONFIG, seed=0, global_batch_size=2)


def test_record_files_that_cannot_be_written_are_an_error_of_one_line(written, tmp_path):
    batches, _, vocabulary = written
    nested = tmp_path / "new" / "folder" / "a.tfrecord"
    assert write_records(batches, [nested], vocabulary=vocabulary) > 0
    assert [path.name for path in nested.parent.iterdir()] == [nested.name]

    (tmp_path / "file").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for place, limit, reason in (
        ("file/a.tfrecord", soft, "File exists"),
        ("file/folder/a.tfrecord", soft, "Not a directory"),
        ("full/a.tfrecord", 2000, "File too large"),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(InputError, match=f"cannot write .*{place}: .*{reason}"):
                write_records(batches, [tmp_path / place], vocabulary=vocabulary)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "full").iterdir())
