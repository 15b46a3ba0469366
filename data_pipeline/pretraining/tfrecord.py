"""The record features of the released generator: written from batches, imported with their masks.

A record is one pair, already masked: `input_ids`, `input_mask`, `segment_ids`, `token_boundary`
(whole numbers, one for each position), `masked_lm_positions`, `masked_lm_ids` (whole numbers) and
`masked_lm_weights` (numbers, one for each prediction slot), and `next_sentence_labels` (one whole
number; despite its name the sentence order: 0 in order, 1 swapped).
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int64

from data_pipeline.errors import InputError
from data_pipeline.pretraining.mask_selection import Vocabulary
from data_pipeline.pretraining.records import RecordWriter

_POSITION_FEATURES = ("input_ids", "input_mask", "segment_ids")
_SLOT_FEATURES = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
_LABEL = "next_sentence_labels"
_READ_TOGETHER = 1024


def write_records(
    batches: Iterable[Mapping[str, np.ndarray]], paths: list[Path], *, vocabulary: Vocabulary
) -> int:
    """Writes batches of unpacked rows, dealt out to the files in turn; empty rows are left out.

    Args:
        batches: dicts of the fields of `PretrainingBatch`.
        paths: the files to write; none may exist.
        vocabulary: tells which pieces open a word, for `token_boundary`.

    Returns:
        How many records were written.

    Raises:
        InputError: rows are packed, or a file exists already.
    """
    for path in paths:
        if path.exists():
            raise InputError(f"the record file {path} exists already: nothing was written")
    partial = [path.with_name(f"{path.name}.partial") for path in paths]
    writers = [tf.io.TFRecordWriter(str(path)) for path in partial]
    count = 0
    try:
        for batch in batches:
            if batch["sentence_order_labels"].shape[1] != 1:
                raise InputError("records hold one pair each: use --config.data.packing=unpacked")
            boundaries = mark_boundaries(batch, vocabulary)
            for row in np.flatnonzero(batch["sequence_ids"].any(axis=1)):
                example = _to_example(batch, boundaries, row)
                writers[count % len(writers)].write(example.SerializeToString())
                count += 1
        for writer, finished, path in zip(writers, partial, paths, strict=True):
            writer.close()
            os.replace(finished, path)
    finally:
        for writer, unfinished in zip(writers, partial, strict=True):
            writer.close()
            unfinished.unlink(missing_ok=True)
    return count


def mark_boundaries(
    batch: Mapping[str, np.ndarray], vocabulary: Vocabulary
) -> Bool[np.ndarray, "rows length"]:
    """Where a word opens in the unmasked text, [CLS] and [SEP] included, padding left out."""
    ids = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_lm_weights"])
    ids[row, batch["masked_lm_positions"][row, slot]] = batch["masked_lm_ids"][row, slot]
    special = np.isin(ids, [vocabulary.cls_id, vocabulary.sep_id])
    return (batch["sequence_ids"] > 0) & (special | vocabulary.word_starts[ids])


def _to_example(
    batch: Mapping[str, np.ndarray], boundaries: np.ndarray, row: np.intp
) -> tf.train.Example:
    whole_numbers = {
        "input_ids": batch["input_ids"][row],
        "input_mask": batch["sequence_ids"][row] > 0,
        "segment_ids": batch["token_type_ids"][row],
        "token_boundary": boundaries[row],
        "masked_lm_positions": batch["masked_lm_positions"][row],
        "masked_lm_ids": batch["masked_lm_ids"][row],
        _LABEL: batch["sentence_order_labels"][row],
    }
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=values.astype(np.int64)))
        for name, values in whole_numbers.items()
    }
    weights = tf.train.FloatList(value=batch["masked_lm_weights"][row])
    features["masked_lm_weights"] = tf.train.Feature(float_list=weights)
    return tf.train.Example(features=tf.train.Features(feature=features))


def import_records(paths: list[Path], directory: Path) -> int:
    """Reads record files once into a directory that `RecordDataset` reads at any row.

    The directory appears when all is in it.

    Args:
        paths: the files, in the order of their rows.
        directory: what to write; must not exist.

    Returns:
        How many rows there are.

    Raises:
        InputError: a file is missing, damaged, empty or holds other features; the message names it.
    """
    if directory.exists():
        raise InputError(f"{directory} exists already: nothing was written")
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{directory.name}.partial-", dir=directory.parent))
    try:
        with contextlib.closing(RecordWriter(partial)) as writer:
            for path in paths:
                for first, records in _read_file(path):
                    _append(writer, records, f"{path}: record", first)
            count = writer.finish()
        os.rename(partial, directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _read_file(path: Path) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The records of a file, some at a time, and the number of the first of them."""
    if not path.is_file():
        raise InputError(f"the record file {path} does not exist")
    first = 0
    try:
        features = None
        for serialized in tf.data.TFRecordDataset(str(path)).batch(_READ_TOGETHER):
            features = features or _describe(serialized[0].numpy(), path)
            parsed = tf.io.parse_example(serialized, features)
            yield first, {name: values.numpy() for name, values in parsed.items()}
            first += len(serialized)
    except tf.errors.DataLossError:
        raise InputError(f"{path} is no record file, or damaged after record {first}") from None
    except tf.errors.InvalidArgumentError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: a record from {first} on differs: {reason}") from None
    if not first:
        raise InputError(f"the record file {path} is empty")


def _describe(serialized: bytes, path: Path) -> dict[str, tf.io.FixedLenFeature]:
    """The features and their lengths, taken from the first record."""
    found = tf.train.Example.FromString(serialized).features.feature
    features = {}
    for name in (*_POSITION_FEATURES, *_SLOT_FEATURES, _LABEL):
        kind = "float_list" if name == "masked_lm_weights" else "int64_list"
        values = getattr(found[name], kind).value if name in found else []
        if not values:
            raise InputError(f"{path}: its records have no feature {name} of type {kind}")
        dtype = tf.float32 if kind == "float_list" else tf.int64
        features[name] = tf.io.FixedLenFeature([len(values)], dtype)
    return features


def _append(writer: RecordWriter, records: dict[str, np.ndarray], place: str, first: int) -> None:
    lengths = _leading_ones(records["input_mask"], f"{place} %d: input_mask", first)
    second = records["segment_ids"][:, ::-1]
    padding = records["input_mask"].shape[1] - lengths
    # Read backwards, padding apart, the segments are ones and then zeros.
    shifted = np.take_along_axis(
        second, (np.arange(second.shape[1]) + padding[:, None]) % second.shape[1], axis=1
    )
    seconds = _leading_ones(shifted, f"{place} %d: segment_ids", first)
    writer.append(
        records["input_ids"],
        lengths=lengths,
        first_lengths=lengths - seconds,
        positions=records["masked_lm_positions"],
        ids=records["masked_lm_ids"],
        weights=records["masked_lm_weights"],
        labels=records[_LABEL][:, 0],
    )


def _leading_ones(values: np.ndarray, place: str, first: int) -> Int64[np.ndarray, " rows"]:
    """How many ones each row begins with; the rest must be zeros."""
    counts = values.sum(axis=1)
    wrong = (values != (np.arange(values.shape[1]) < counts[:, None])).any(axis=1)
    if wrong.any():
        raise InputError(
            place % (first + int(wrong.argmax())) + " is not what one pair and padding have"
        )
    return counts
