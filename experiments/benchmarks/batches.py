"""Batches to measure with, and recordings of them that need neither TensorFlow nor a corpus."""

import dataclasses
import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from albert_jax.batch import FIELDS, PretrainingBatch
from albert_jax.durable_files import new_file
from albert_jax.input_files import read_bytes
from data_pipeline.errors import InputError
from experiments.run.config import ExperimentConfig

_SOURCE = "source"  # the entry of a recording that is not a field of a batch
_LARGEST_RATIO = 1100  # of the bytes of an entry to those that zip stores for them
# Errors that zipfile, zlib and NumPy raise for a file that is not an npz.
_FAULTS = (
    *(OSError, EOFError, LookupError, ValueError, TypeError, OverflowError, RecursionError),
    *(RuntimeError, NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error),
)


class Batches(NamedTuple):
    """Host batches of one shape, with the fields of `PretrainingBatch`, and their source."""

    batches: list[dict[str, np.ndarray]]
    source: str

    @property
    def tokens_per_batch(self) -> float:
        """The mean number of positions without padding."""
        return float(np.mean([np.count_nonzero(b["sequence_ids"]) for b in self.batches]))

    @property
    def pairs_per_batch(self) -> float:
        """The mean number of pairs whose order is predicted."""
        return float(np.mean([b["sentence_order_weights"].sum() for b in self.batches]))

    @property
    def is_packed(self) -> bool:
        """True if any row holds several pairs."""
        return any(bool((b["sequence_ids"] > 1).any()) for b in self.batches)


def with_shape(
    config: ExperimentConfig, *, batch: int | None = None, length: int | None = None
) -> ExperimentConfig:
    """Return the experiment with other rows, and prediction slots for 15% of the positions.

    Example: length 128 has 20 prediction slots, length 512 has 77.

    Args:
        config: the experiment.
        batch: rows of a batch; None: the experiment's.
        length: positions of a row; None: the experiment's, and its prediction slots.
    """
    data = config.data
    if length is not None:
        slots = math.ceil(length * 0.15)
        data = dataclasses.replace(data, max_seq_length=length, max_predictions_per_seq=slots)
    rows = config.global_batch_size if batch is None else batch
    return dataclasses.replace(config, data=data, global_batch_size=rows)


def record(batches: Batches, path: Path) -> None:
    """Write a recording: every field ``[number, ...]``, compressed."""
    entries: dict[str, Any] = {
        name: np.stack([batch[name] for batch in batches.batches]) for name in FIELDS
    }
    entries[_SOURCE] = np.array(json.dumps(batches.source))
    with new_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **entries)


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read arrays of an npz, whose sizes are compared with that of the file before they are read.

    Raises:
        InputError: there is no such file.
        one of `_FAULTS`: it is not an npz, or lacks an array.
    """
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(read_bytes(path, error=InputError))) as archive:
        for name in names:
            entry = archive.getinfo(f"{name}.npy")
            if entry.flag_bits & 1:
                raise ValueError(f"{name} is encrypted")
            if entry.file_size > _LARGEST_RATIO * entry.compress_size:
                raise ValueError(f"{name} has {entry.compress_size} bytes for {entry.file_size}")
            with archive.open(entry) as stream:
                version = np.lib.format.read_magic(stream)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = read_header(stream)
                if math.prod(shape) * dtype.itemsize != entry.file_size - stream.tell():
                    raise ValueError(f"{name} does not have the elements of its shape {shape}")
            with archive.open(entry) as stream:
                arrays[name] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def replay(path: Path, config: ExperimentConfig) -> tuple[ExperimentConfig, Batches]:
    """Return the batches of a recording, and the experiment with rows of their shape.

    Raises:
        InputError: the file is not a recording, or its rows do not fit the model.
    """
    try:
        fields = _read_arrays(path, [_SOURCE, *FIELDS])
        source = str(json.loads(str(fields.pop(_SOURCE))))
        numbers = {len(field) for field in fields.values() if field.ndim}
        if len(numbers) != 1 or not min(numbers):
            raise ValueError("it holds no batches, or fields of different numbers of them")
        batches = [
            {name: field[number] for name, field in fields.items()}
            for number in range(numbers.pop())
        ]
        for batch in batches:
            PretrainingBatch.from_numpy(batch)
    except _FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"--replay={path} is not a recording of batches: {reason}") from error
    used = 1 + max(int(fields[name].max()) for name in ("input_ids", "masked_lm_ids"))
    if used > config.model.vocab_size:
        raise InputError(
            f"--replay={path} uses token {used - 1}, --config.model.vocab_size is "
            f"{config.model.vocab_size}"
        )
    _, rows, length = fields["input_ids"].shape
    slots = fields["masked_lm_positions"].shape[2]
    data = dataclasses.replace(config.data, max_seq_length=length, max_predictions_per_seq=slots)
    config = dataclasses.replace(config, data=data, global_batch_size=rows)
    return config, Batches(batches, source)
