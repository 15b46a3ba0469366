"""Resumable recording of a teacher's predictions for the batches of a run."""

import itertools
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.durable_files import write_atomically
from data_pipeline.errors import InputError
from data_pipeline.locks import lock
from data_pipeline.terminal import ByteProgress, format_size, say
from experiments.distillation.recording import (
    METADATA_FILE,
    Shard,
    add_shard,
    describe_recording,
    find_mismatch,
    pack_rows,
    read_metadata,
    read_shards,
    shards_of,
)
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import Curriculum


class Predictor(Protocol):
    """A teacher that predicts on the host.

    Attributes:
        path: the teacher's directory.
        fingerprint: SHA-256 of its content.
    """

    @property
    def path(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def predict(self, batch: PretrainingBatch) -> TeacherPredictions:
        """Return the teacher's most probable tokens at each slot of a batch."""


def record(
    config: ExperimentConfig, batches: Curriculum, teacher: Predictor, directory: Path
) -> None:
    """Record the steps of a run that a recording does not have yet.

    Args:
        config: the experiment.
        batches: its batches, with all of their rows.
        teacher: the teacher that predicts them.
        directory: a new directory, or a recording that was stopped or is to be extended.

    Raises:
        InputError: the directory holds something else, or the recording of another run or teacher,
            or the disk is too small.
    """
    asked = {"path": teacher.path, "fingerprint": teacher.fingerprint}
    wanted = describe_recording(config, batches.identity, asked)
    _check(directory, wanted)
    directory.mkdir(parents=True, exist_ok=True)
    with lock(directory, "recording"):
        _check(directory, wanted)  # again: another process may just have begun
        if not (directory / METADATA_FILE).exists():
            # The name distinguishes recordings of the same teacher, whose bits may differ.
            text = json.dumps({"name": secrets.token_hex(8)} | wanted, indent=1)
            write_atomically(directory / METADATA_FILE, text + "\n")
        shards, complete = shards_of(config), read_shards(directory)
        missing = [shard for shard in shards if not _is_complete(directory, shard, complete)]
        _announce(shards, missing, directory)
        with ByteProgress("Recording", sum(shard.size for shard in missing)) as progress:
            done = 0
            for shard, content in _predict(batches, teacher, missing, progress.move_to):
                add_shard(directory, shard, content, complete)
                done += shard.size
    say(f"{shards[-1].end:,} steps are recorded in {directory}")


def _predict(
    batches: Curriculum, teacher: Predictor, missing: Sequence[Shard], move_to: Any
) -> Iterator[tuple[Shard, np.ndarray]]:
    """Yield the content of each file; files with consecutive steps share one pass over the text."""
    done = 0
    runs: list[list[Shard]] = []
    for shard in missing:
        if runs and runs[-1][-1].end == shard.begin:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    for run in runs:
        stream = batches.batches(run[0].begin)
        try:
            for shard in run:
                rows = []
                for batch in itertools.islice(stream, shard.end - shard.begin):
                    rows.append(pack_rows(batch, teacher.predict(batch), shard.row))
                    done += rows[-1].nbytes
                    move_to(done)
                yield shard, np.concatenate(rows)
        finally:
            stream.close()


def _is_complete(directory: Path, shard: Shard, complete: Mapping[str, Mapping[str, Any]]) -> bool:
    """Return True if a file has all its steps; a deleted or shorter one is written again."""
    path = directory / shard.name
    return shard.name in complete and path.is_file() and path.stat().st_size >= shard.size


def _announce(shards: Sequence[Shard], missing: Sequence[Shard], directory: Path) -> None:
    """Print how large the recording is.

    Raises:
        InputError: the disk is too small.
    """
    size, left = (sum(shard.size for shard in some) for some in (shards, missing))
    there = f", {format_size(size - left)} of it are there" if left < size else ""
    say(f"{shards[-1].end:,} steps: {format_size(size)} in {directory}{there}")
    free = shutil.disk_usage(directory).free
    if left > free:
        raise InputError(
            f"--output_dir={directory} needs {format_size(left)}, its disk has "
            f"{format_size(free)}: lower --config.distillation.top_k or "
            "--config.optimizer.num_train_steps"
        )


def _check(directory: Path, wanted: Mapping[str, Any]) -> None:
    if not (directory / METADATA_FILE).exists():
        if directory.exists() and (not directory.is_dir() or _has_files(directory)):
            raise InputError(
                f"--output_dir={directory} is not empty and holds no recording; choose another "
                "directory"
            )
        return
    recorded = read_metadata(directory)
    mismatch = find_mismatch(recorded, wanted)
    theirs, ours = recorded["teacher"], wanted["teacher"]
    if not mismatch and theirs["fingerprint"] != ours["fingerprint"]:
        mismatch = f"the teacher was {theirs['path']}, and {ours['path']} is another one"
    if mismatch:
        raise InputError(
            f"--output_dir={directory} holds another recording: {mismatch}; choose another "
            "directory"
        )


def _has_files(directory: Path) -> bool:
    return any(not entry.name.startswith(".") for entry in directory.iterdir())
