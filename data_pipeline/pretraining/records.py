"""Imported records: masked rows in memory-mapped files, and training batches made from them."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from albert_jax.durable_files import hash_file, write_atomically
from albert_jax.input_files import read_json_object, require_fields, shorten
from albert_jax.settings import FieldError
from data_pipeline.batch_iterator import BatchIterator
from data_pipeline.config import DataConfig
from data_pipeline.errors import InputError
from data_pipeline.planning.row_order import shuffle_rows
from data_pipeline.pretraining.rows import rows_of_batch

_FORMAT = 1
_METADATA = "metadata.json"

# One file per array, with all rows concatenated.
_FILES: dict[str, np.dtype] = {
    "tokens": np.dtype("<u4"),  # the masked text without padding
    "offsets": np.dtype("<i8"),  # [rows + 1]: where the text of each row starts
    "first_lengths": np.dtype("<i4"),  # number of positions in [CLS] A [SEP]
    "positions": np.dtype("<i4"),  # [rows, slots]
    "ids": np.dtype("<u4"),  # [rows, slots]
    "weights": np.dtype("<f4"),  # [rows, slots]
    "labels": np.dtype("u1"),  # [rows]: 0 in order, 1 swapped
}
_FILE_NAMES = sorted(f"{name}.bin" for name in _FILES)


class RecordWriter:
    """Writes rows into a directory; `finish` completes it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = {name: (directory / f"{name}.bin").open("wb") for name in _FILES}
        self._write("offsets", np.zeros(1))
        self._shape: tuple[int, int] | None = None
        self._tokens = self._rows = 0

    def append(
        self, input_ids: np.ndarray, *, lengths: Int64[np.ndarray, " rows"], **columns: np.ndarray
    ) -> None:
        """Add rows.

        Args:
            input_ids: integers [rows, length], padded.
            lengths: number of positions without padding.
            columns: the other arrays, by their names in the directory.

        Raises:
            InputError: the shape of the rows differs from that of earlier ones.
        """
        shape = (input_ids.shape[1], columns["positions"].shape[1])
        if self._shape not in (None, shape):
            raise InputError(
                f"records of {shape[0]} positions and {shape[1]} slots follow records of "
                f"{self._shape[0]} and {self._shape[1]}: all must have the same"
            )
        self._shape = shape
        self._write("tokens", input_ids[np.arange(shape[0]) < lengths[:, None]])
        self._write("offsets", self._tokens + np.cumsum(lengths))
        for name, values in columns.items():
            self._write(name, values)
        self._tokens += int(lengths.sum())
        self._rows += len(lengths)

    def finish(self) -> int:
        """Write the metadata and return the number of rows."""
        self.close()
        assert self._shape is not None
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": hash_file(path)}
            for path in sorted(self._directory.iterdir())
        }
        metadata = {
            "format": _FORMAT,
            "rows": self._rows,
            "max_seq_length": self._shape[0],
            "max_predictions_per_seq": self._shape[1],
            "fingerprint": _fingerprint(files),
            "files": files,
        }
        write_atomically(self._directory / _METADATA, json.dumps(metadata, indent=2) + "\n")
        return self._rows

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _write(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(values.astype(_FILES[name]).tobytes())


class RecordDataset:
    """The training batches of imported records; see `TrainingDataset`.

    Masks, segment order and labels are those of the records, the same in every epoch.

    Args:
        directory: as written by `data_pipeline.pretraining.tfrecord.import_records`.
        config: settings whose `max_seq_length` and `max_predictions_per_seq` must match the
            records. With `sentence_objective=none`, labels have weight 0. Other settings have no
            effect.
        seed: the seed of the order of rows.
        global_batch_size: number of rows in a batch over all processes.

    Attributes:
        fingerprint: SHA-256 over the files, which identifies the records.

    Raises:
        InputError: the directory is missing, incomplete or damaged.
        FieldError: a setting does not match the records, or the batch size is less than 1.
    """

    def __init__(
        self, directory: Path, config: DataConfig, *, seed: int, global_batch_size: int
    ) -> None:
        if global_batch_size < 1:
            raise FieldError("global_batch_size", "at least 1", global_batch_size)
        metadata = _read_metadata(directory)
        for name in ("max_seq_length", "max_predictions_per_seq"):
            if getattr(config, name) != metadata[name]:
                allowed = f"{metadata[name]}, as in the records {directory}"
                raise FieldError(f"data.{name}", allowed, getattr(config, name))
        self.global_batch_size = global_batch_size
        self.rows_per_epoch: int = metadata["rows"]
        self.max_pairs_per_row = 1
        self.fingerprint = _fingerprint(metadata["files"])
        self._config, self._seed = config, seed
        self._arrays = {
            name: np.memmap(directory / f"{name}.bin", dtype, mode="r")
            for name, dtype in _FILES.items()
        }
        self.fill = len(self._arrays["tokens"]) / (self.rows_per_epoch * config.max_seq_length)

    @property
    def max_token_id(self) -> int:
        """The largest token id, which must be less than the vocabulary size of a model."""
        return max(int(self._arrays[name].max()) for name in ("tokens", "ids"))

    def batches(
        self, *, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> BatchIterator:
        """Return the batches from a step onward; see `TrainingDataset.batches`."""
        wanted = rows_of_batch(rows, self.global_batch_size)
        firsts = itertools.count(start_step * self.global_batch_size, self.global_batch_size)
        return BatchIterator(self._read(first + wanted) for first in firsts)

    def _read(self, numbers: Int64[np.ndarray, " rows"]) -> dict[str, np.ndarray]:
        _, records = shuffle_rows(numbers, self.rows_per_epoch, seed=self._seed)
        arrays, slots = self._arrays, (-1, self._config.max_predictions_per_seq)
        start, end = arrays["offsets"][records], arrays["offsets"][records + 1]
        position = np.arange(self._config.max_seq_length)
        present = position < (end - start)[:, None]
        addresses = np.minimum(start[:, None] + position, len(arrays["tokens"]) - 1)
        second = position >= arrays["first_lengths"][records][:, None]
        one = np.ones((len(records), 1))
        fields = {
            "input_ids": arrays["tokens"][addresses] * present,
            "token_type_ids": second & present,
            "position_ids": position * present,
            "sequence_ids": present,
            "masked_lm_positions": arrays["positions"].reshape(slots)[records],
            "masked_lm_ids": arrays["ids"].reshape(slots)[records],
            "masked_lm_weights": arrays["weights"].reshape(slots)[records],
            "sentence_order_positions": 0 * one,
            "sentence_order_labels": arrays["labels"][records][:, None],
            "sentence_order_weights": one
            * (self._config.sentence_objective.metric_name is not None),
        }
        return {
            name: np.asarray(values, np.float32 if name.endswith("_weights") else np.int32)
            for name, values in fields.items()
        }


def _fingerprint(files: Mapping[str, Mapping[str, Any]]) -> str:
    digest = hashlib.sha256()
    for name in _FILE_NAMES:
        digest.update(f"{name} {files[name]['sha256']}\n".encode())
    return digest.hexdigest()


def _read_metadata(directory: Path) -> dict[str, Any]:
    """Read the metadata of imported records and verify their files."""
    file = directory / _METADATA
    if not file.exists():
        raise InputError(f"{directory} holds no imported records: it has no {_METADATA}")
    metadata = read_json_object(file, error=InputError)
    if (version := metadata.get("format")) != _FORMAT:
        raise InputError(
            f"{directory} has record format {shorten(version)}, and this program reads {_FORMAT}: "
            "import the records again"
        )
    numbers = ("rows", "max_seq_length", "max_predictions_per_seq")
    kinds = {**dict.fromkeys(numbers, int), "files": dict}
    require_fields(metadata, kinds, str(file), error=InputError)
    files = metadata["files"]
    require_fields(files, dict.fromkeys(_FILE_NAMES, dict), f"{file}: files", error=InputError)
    for name in _FILE_NAMES:
        kinds = {"bytes": int, "sha256": str}
        require_fields(files[name], kinds, f"{file}: files: {name}", error=InputError)
    if fault := _find_fault(directory, metadata):
        raise InputError(f"the imported records {directory} are damaged: {fault}")
    return metadata


def _find_fault(directory: Path, metadata: Mapping[str, Any]) -> str:
    """Compare the files of imported records with their metadata; return "" if they agree."""
    files = metadata["files"]
    for name in _FILE_NAMES:
        path, expected = directory / name, files[name]
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            return f"{name} is missing or has another size"
        if hash_file(path) != expected["sha256"]:
            return f"{name} has changed"
    if metadata.get("fingerprint", _fingerprint(files)) != _fingerprint(files):
        return f"{_METADATA} has changed"
    rows, slots = metadata["rows"], metadata["rows"] * metadata["max_predictions_per_seq"]
    elements = {"offsets": rows + 1, "first_lengths": rows, "labels": rows}
    elements |= dict.fromkeys(("positions", "ids", "weights"), slots)
    for name, count in elements.items():
        if files[f"{name}.bin"]["bytes"] != count * _FILES[name].itemsize:
            return f"{name}.bin does not have the {rows} rows of {_METADATA}"
    return "" if rows else f"{_METADATA} says that there are no rows"
