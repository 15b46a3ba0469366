"""Records whose masks were made beforehand, memory-mapped and read in the order of any epoch."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from albert_jax.durable_files import hash_file, write_atomically
from data_pipeline import randomness
from data_pipeline.errors import InputError

_FORMAT = 1
_METADATA = "metadata.json"

# One file each, all rows end to end.
_FILES: dict[str, np.dtype] = {
    "tokens": np.dtype("<u4"),  # the masked text without its padding
    "offsets": np.dtype("<i8"),  # [rows + 1]: where each row's text begins
    "first_lengths": np.dtype("<i4"),  # positions of [CLS] A [SEP]
    "positions": np.dtype("<i4"),  # [rows, slots]
    "ids": np.dtype("<u4"),  # [rows, slots]
    "weights": np.dtype("<f4"),  # [rows, slots]
    "labels": np.dtype("u1"),  # [rows]: 0 in order, 1 swapped
}


class RecordWriter:
    """Writes rows into a directory, which `finish` completes."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = {name: (directory / f"{name}.bin").open("wb") for name in _FILES}
        self._write("offsets", np.zeros(1))
        self._shape: tuple[int, int] | None = None
        self._tokens = self._rows = 0

    def append(
        self, input_ids: np.ndarray, *, lengths: Int64[np.ndarray, " rows"], **columns: np.ndarray
    ) -> None:
        """Adds rows.

        Args:
            input_ids: whole numbers [rows, length], padded.
            lengths: positions without padding.
            columns: the other arrays, as they are called in the directory.

        Raises:
            InputError: the rows have another shape than those before.
        """
        shape = (input_ids.shape[1], columns["positions"].shape[1])
        if self._shape not in (None, shape):
            raise InputError(
                f"records of {shape[0]} positions and {shape[1]} slots do not go with those before "
                f"of {self._shape[0]} and {self._shape[1]}"
            )
        self._shape = shape
        self._write("tokens", input_ids[np.arange(shape[0]) < lengths[:, None]])
        self._write("offsets", self._tokens + np.cumsum(lengths))
        for name, values in columns.items():
            self._write(name, values)
        self._tokens += int(lengths.sum())
        self._rows += len(lengths)

    def finish(self) -> int:
        """Writes the metadata; returns the number of rows."""
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
            "files": files,
        }
        write_atomically(self._directory / _METADATA, json.dumps(metadata, indent=2) + "\n")
        return self._rows

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def _write(self, name: str, values: np.ndarray) -> None:
        self._files[name].write(values.astype(_FILES[name]).tobytes())


class RecordDataset:
    """Batches of imported records, in the same seekable order as those of a corpus.

    Row g of the run is record `permutation(g mod R)` in epoch `g // R`, the permutation drawn anew
    each epoch; masks, order and label are the record's own.

    Args:
        directory: what `data_pipeline.pretraining.tfrecord.import_records` wrote.
        seed: of the order.
        global_batch_size: rows of a batch over all processes.

    Raises:
        InputError: the directory is missing, incomplete or damaged.
    """

    def __init__(self, directory: Path, *, seed: int, global_batch_size: int) -> None:
        if global_batch_size < 1:
            raise InputError(f"a batch must hold at least 1 row, got {global_batch_size}")
        metadata = _read_metadata(directory)
        self.global_batch_size = global_batch_size
        self.rows_per_epoch: int = metadata["rows"]
        self.max_seq_length: int = metadata["max_seq_length"]
        self.max_pairs_per_row = 1
        self._slots: int = metadata["max_predictions_per_seq"]
        self._seed = seed
        self._arrays = {
            name: np.memmap(directory / f"{name}.bin", dtype, mode="r")
            for name, dtype in _FILES.items()
        }

    def batches(
        self, *, start_step: int, rows: Int64[np.ndarray, " rows"] | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps start_step, start_step + 1, ... without end, as
        `PretrainingDataset.batches` gives them."""
        wanted = np.arange(self.global_batch_size) if rows is None else rows
        for step in itertools.count(start_step):
            yield self._read(self._order(step * self.global_batch_size + wanted))

    def _order(self, numbers: Int64[np.ndarray, " rows"]) -> Int64[np.ndarray, " rows"]:
        epochs = numbers // self.rows_per_epoch
        records = np.empty(len(numbers), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            key = randomness.derive_key(self._seed, "order", epoch)
            inside = numbers[here] % self.rows_per_epoch
            records[here] = randomness.permute(inside, self.rows_per_epoch, key=key)
        return records

    def _read(self, records: Int64[np.ndarray, " rows"]) -> dict[str, np.ndarray]:
        arrays, slots = self._arrays, (-1, self._slots)
        start, end = arrays["offsets"][records], arrays["offsets"][records + 1]
        position = np.arange(self.max_seq_length)
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
            "sentence_order_weights": one,
        }
        return {
            name: np.asarray(values, np.float32 if name.endswith("_weights") else np.int32)
            for name, values in fields.items()
        }


def _read_metadata(directory: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((directory / _METADATA).read_text())
        version = metadata["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{directory} holds no imported records: it has no whole {_METADATA}"
        ) from None
    if version != _FORMAT:
        raise InputError(
            f"{directory} has record format {version!r}, and this program reads {_FORMAT}: import "
            "the records again"
        )
    for name, expected in metadata["files"].items():
        path = directory / name
        if not path.is_file() or path.stat().st_size != expected["bytes"]:
            raise InputError(f"the imported records {directory} are damaged: {name}")
        if hash_file(path) != expected["sha256"]:
            raise InputError(f"the imported records {directory} are damaged: {name} has changed")
    return metadata
