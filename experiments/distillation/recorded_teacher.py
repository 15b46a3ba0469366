"""A teacher whose predictions for the batches of a run were recorded beforehand."""

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from albert_jax.batch import PretrainingBatch
from albert_jax.durable_files import hash_file
from data_pipeline.errors import InputError
from experiments.distillation.compatibility import FLAG
from experiments.distillation.recording import (
    METADATA_FILE,
    Shard,
    describe_recording,
    find_mismatch,
    open_shard,
    read_metadata,
    read_shards,
    recorded_steps,
    row_checksums,
    shards_of,
    unpack_rows,
)
from experiments.run.config import ExperimentConfig
from experiments.run.interfaces import DeviceTeacher
from experiments.run.resumption import TEACHER_KIND, DataIdentity


def is_recording(path: str) -> bool:
    """Return True if a path is a recording, complete or not."""
    return (Path(path) / METADATA_FILE).is_file()


class RecordedTeacher:
    """A recording as a `Teacher`.

    Args:
        config: the experiment, whose `distillation.teacher` is the recording's directory.
        data: the text that its batches are made of.

    Attributes:
        identity: the recording, by its fingerprint.
        on_devices: None.
        sequence_slots: None.

    Raises:
        InputError: it is damaged, was made for other batches, or has too few steps.
    """

    on_devices: DeviceTeacher | None = None
    sequence_slots: int | None = None

    def __init__(self, config: ExperimentConfig, data: DataIdentity) -> None:
        path = config.distillation.teacher
        self._directory, self._config = Path(path), config
        metadata = read_metadata(self._directory)
        self._teacher = metadata["teacher"]
        wanted = describe_recording(config, data, self._teacher)
        if mismatch := find_mismatch(metadata, wanted):
            raise InputError(f"{FLAG}={path} is the recording of another run: {mismatch}")
        self._shards, self._complete = shards_of(config), read_shards(self._directory)
        steps, needed = recorded_steps(self._shards, self._complete), self._shards[-1].end
        if steps < needed:
            raise InputError(
                f"{FLAG}={path} has {steps:,} of the run's {needed:,} steps: "
                "experiments.distillation records the rest by the same command"
            )
        fingerprint = hash_file(self._directory / METADATA_FILE)
        self.identity = DataIdentity(TEACHER_KIND, FLAG, path, fingerprint)
        self._opened: tuple[Shard, np.ndarray] | None = None

    def describe(self) -> str:
        """Describe the teacher in one line."""
        return (
            f"teacher: {self._teacher['path']}, recorded in {self._directory}, "
            f"{self._config.distillation.describe()}"
        )

    def flops_per_row(self, *, length: int, predictions: int) -> int:
        """Return 0: nothing is computed."""
        return 0

    def add_predictions(
        self, batch: PretrainingBatch, *, step: int, rows: Int64[np.ndarray, " rows"]
    ) -> PretrainingBatch:
        """Return a batch with the predictions that were recorded for it.

        Batches after the last step are prefetched but never trained on; they get the predictions of
        the last step.

        Raises:
            InputError: the file is damaged, or the teacher read other rows.
        """
        last = self._shards[-1].end - 1
        shard, content = self._open(min(step, last))
        packed = content[(min(step, last) - shard.begin) * shard.rows + rows]
        if step <= last:
            wrong = np.flatnonzero(packed["checksum"] != row_checksums(batch))
            if len(wrong):
                raise InputError(
                    f"{FLAG}={self._directory}: row {rows[wrong[0]]} of step {step} is not the one "
                    "that the teacher read: the batches were made by another version of this "
                    "program; record it again"
                )
        return batch._replace(teacher=unpack_rows(packed))

    def _open(self, step: int) -> tuple[Shard, np.ndarray]:
        """Return the file of a step, and keep it open for the next steps."""
        if self._opened is None or not self._opened[0].begin <= step < self._opened[0].end:
            shard = next(one for one in self._shards if step < one.end)
            content = open_shard(self._directory, shard, self._complete[shard.name])
            self._opened = (shard, content)
        return self._opened
