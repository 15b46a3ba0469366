"""The released generator's record features: written from batches, imported with their masks.

A record is one masked pair: `input_ids`, `input_mask`, `segment_ids`, `token_boundary` (integers,
one per position), `masked_lm_positions`, `masked_lm_ids` (integers, one per prediction slot),
`masked_lm_weights` (floats, one per slot), and `next_sentence_labels` (one integer; despite its
name the sentence order: 0 in order, 1 swapped).
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from jaxtyping import Bool, Int64

from albert_jax.durable_files import new_directory, new_file
from data_pipeline.errors import InputError
from data_pipeline.pretraining.mask_selection import Vocabulary
from data_pipeline.pretraining.records import RecordWriter

_POSITION_FEATURES = ("input_ids", "input_mask", "segment_ids")
_SLOT_FEATURES = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
_LABEL = "next_sentence_labels"
_READ_TOGETHER = 1024
_HEADER_BYTES, _FOOTER_BYTES = 12, 4  # around a record: its length and checksums
_LARGEST_ID = 2**31 - 1


def write_records(
    batches: Iterable[Mapping[str, np.ndarray]], paths: list[Path], *, vocabulary: Vocabulary
) -> int:
    """Write batches of unpacked rows to the files in turn, without empty rows.

    Args:
        batches: dicts of the fields of `PretrainingBatch`.
        paths: the files to write; none may exist. Missing folders are created.
        vocabulary: the tokens that start a word, for `token_boundary`.

    Returns:
        The number of records written.

    Raises:
        InputError: rows are packed, or a file exists already or cannot be written.
    """
    for path in paths:
        if path.exists():
            raise InputError(f"the record file {path} exists already: nothing was written")
    count = 0
    with contextlib.ExitStack() as stack:
        with _named_errors(paths):
            partial = [stack.enter_context(new_file(path)) for path in paths]
            writers = [stack.enter_context(tf.io.TFRecordWriter(str(path))) for path in partial]
        for batch in batches:
            if batch["sentence_order_labels"].shape[1] != 1:
                raise InputError("a record holds one pair: batches must be unpacked")
            boundaries = mark_boundaries(batch, vocabulary)
            for row in np.flatnonzero(batch["sequence_ids"].any(axis=1)):
                record = _to_example(batch, boundaries, row).SerializeToString()
                with _named_errors(paths):
                    writers[count % len(writers)].write(record)
                count += 1
        with _named_errors(paths):
            for writer in writers:
                writer.close()
    return count


@contextlib.contextmanager
def _named_errors(paths: list[Path]) -> Iterator[None]:
    """Turn errors of writing the files into an InputError that names them."""
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = error.message if isinstance(error, tf.errors.OpError) else error
        raise InputError(f"cannot write {', '.join(map(str, paths))}: {reason}") from error


def mark_boundaries(
    batch: Mapping[str, np.ndarray], vocabulary: Vocabulary
) -> Bool[np.ndarray, "rows length"]:
    """Return True where a word starts in the unmasked text, [CLS] and [SEP] included."""
    ids = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_lm_weights"])
    ids[row, batch["masked_lm_positions"][row, slot]] = batch["masked_lm_ids"][row, slot]
    special = np.isin(ids, [vocabulary.cls_id, vocabulary.sep_id])
    return (batch["sequence_ids"] > 0) & (special | vocabulary.word_starts[ids])


def _to_example(
    batch: Mapping[str, np.ndarray], boundaries: np.ndarray, row: np.intp
) -> tf.train.Example:
    integers = {
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
        for name, values in integers.items()
    }
    weights = tf.train.FloatList(value=batch["masked_lm_weights"][row])
    features["masked_lm_weights"] = tf.train.Feature(float_list=weights)
    return tf.train.Example(features=tf.train.Features(feature=features))


def import_records(paths: list[Path], directory: Path) -> int:
    """Convert record files into a directory in which `RecordDataset` can read any row.

    The directory is either complete or absent.

    Args:
        paths: the files, in the order of their rows.
        directory: the directory to write, which must not exist.

    Returns:
        The number of rows.

    Raises:
        InputError: a file is missing, damaged or empty, or its features differ; the message names
            the file.
    """
    with (
        new_directory(directory, error=InputError) as partial,
        contextlib.closing(RecordWriter(partial)) as writer,
    ):
        for path in paths:
            for first, records in _read_file(path):
                _append(writer, records, path, first)
        return writer.finish()


def _read_file(path: Path) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yield the records of a file in batches, each with the number of its first record."""
    _check_lengths(path)
    first = 0
    try:
        features = None
        for serialized in tf.data.TFRecordDataset(str(path)).batch(_READ_TOGETHER):
            features = features or _describe(serialized[0].numpy(), path)
            parsed = tf.io.parse_example(serialized, features)
            yield first, {name: values.numpy() for name, values in parsed.items()}
            first += len(serialized)
    except tf.errors.DataLossError:
        raise InputError(f"{path} is not a record file, or damaged after record {first}") from None
    except (tf.errors.InvalidArgumentError, DecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path}: a record from {first} on differs: {reason}") from None
    if not first:
        raise InputError(f"the record file {path} is empty")


def _check_lengths(path: Path) -> None:
    """Check that no record claims to be longer than its file, before TensorFlow allocates it."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InputError(f"the record file {path} is not a regular file")
        with path.open("rb") as file:
            position, number = 0, 0
            while header := file.read(_HEADER_BYTES):
                position += _HEADER_BYTES + int.from_bytes(header[:8], "little") + _FOOTER_BYTES
                if position > size:
                    raise InputError(
                        f"{path} is not a record file, or damaged after record {number}"
                    )
                file.seek(position)
                number += 1
    except FileNotFoundError:
        raise InputError(f"the record file {path} does not exist") from None
    except OSError as error:
        raise InputError(f"the record file {path} cannot be read: {error.strerror}") from None


def _describe(serialized: bytes, path: Path) -> dict[str, tf.io.FixedLenFeature]:
    """Describe the features and their lengths, based on the first record."""
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


def _append(writer: RecordWriter, records: dict[str, np.ndarray], path: Path, first: int) -> None:
    for name in (*_POSITION_FEATURES[1:], _LABEL):
        _check_range(records, name, 1, path, first)
    for name in ("input_ids", "masked_lm_ids"):
        _check_range(records, name, _LARGEST_ID, path, first)
    last = records["input_ids"].shape[1] - 1
    _check_range(records, "masked_lm_positions", last, path, first)
    lengths = _leading_ones(records, "input_mask", path, first)
    second = records["segment_ids"][:, ::-1]
    padding = records["input_mask"].shape[1] - lengths
    # Read backward and without padding, the segment ids are ones followed by zeros.
    columns = (np.arange(second.shape[1]) + padding[:, None]) % second.shape[1]
    shifted = {"segment_ids": np.take_along_axis(second, columns, axis=1)}
    second_lengths = _leading_ones(shifted, "segment_ids", path, first)
    writer.append(
        records["input_ids"],
        lengths=lengths,
        first_lengths=lengths - second_lengths,
        positions=records["masked_lm_positions"],
        ids=records["masked_lm_ids"],
        weights=records["masked_lm_weights"],
        labels=records[_LABEL][:, 0],
    )


def _check_range(
    records: Mapping[str, np.ndarray], feature: str, largest: int, path: Path, first: int
) -> None:
    """Check that the integers of a feature are from 0 to the largest."""
    wrong = ((records[feature] < 0) | (records[feature] > largest)).any(axis=1)
    if wrong.any():
        number = first + int(wrong.argmax())
        raise InputError(f"{path}: record {number}: {feature} must be from 0 to {largest}")


def _leading_ones(
    records: Mapping[str, np.ndarray], feature: str, path: Path, first: int
) -> Int64[np.ndarray, " rows"]:
    """Count the ones at the start of each row of a feature; the rest must be zeros."""
    values = records[feature]
    counts = values.sum(axis=1)
    wrong = (values != (np.arange(values.shape[1]) < counts[:, None])).any(axis=1)
    if wrong.any():
        number = first + int(wrong.argmax())
        raise InputError(f"{path}: record {number}: {feature} is not that of one pair and padding")
    return counts
