"""Recordings: what a teacher predicts for every batch of a run, as files of several steps each.

    recording.json   what determines the batches, and the teacher
    shards.json      the files so far, with their checksums
    000000.bin ...   rows of consecutive steps, end to end

A row has the most probable tokens of each slot, their log-probabilities in half precision, and a
checksum of the text and the slots that the teacher read. The batch of a step is a function of
corpus, settings and seed, so a run of the same settings reads the predictions for its own rows.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt32

from albert_jax.batch import PretrainingBatch, TeacherPredictions
from albert_jax.durable_files import hash_file, new_file, write_atomically
from albert_jax.input_files import read_json_object, require_fields, shorten
from data_pipeline.errors import InputError
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import phases_of
from experiments.run.resumption import DATA_KINDS, DECAY_KIND, DataIdentity

METADATA_FILE, SHARDS_FILE = "recording.json", "shards.json"
SHARD_BYTES = 16 << 20  # of a file, unless one step has more

_FORMAT = 1
# The settings that decide what a teacher is asked and how it answers. Other settings may differ.
_DECISIVE = ("data.", "phases.", "global_batch_size", "seed")
_DECISIVE_OF_TEACHER = ("distillation.top_k", "distillation.temperature")


class Shard(NamedTuple):
    """A file with the steps from `begin` up to `end`.

    Attributes:
        name: name of the file.
        begin: the first step.
        end: the step after the last.
        rows: rows of each step.
        row: type of a row.
    """

    name: str
    begin: int
    end: int
    rows: int
    row: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return (self.end - self.begin) * self.rows * self.row.itemsize


def shards_of(config: ExperimentConfig) -> list[Shard]:
    """Return the files that hold the steps of a run, phase by phase.

    They are determined by the settings. A longer run begins with the files of a shorter one, except
    for the last of these.
    """
    shards: list[Shard] = []
    for phase in phases_of(config):
        slots, top = phase.data.max_predictions_per_seq, config.distillation.top_k
        token = "<u2" if config.model.vocab_size <= 1 << 16 else "<u4"
        row = np.dtype(
            [
                ("checksum", "<u4"),
                ("token_ids", token, (slots, top)),
                ("log_probs", "<f2", (slots, top)),
            ]
        )
        steps = max(1, SHARD_BYTES // (phase.global_batch_size * row.itemsize))
        for begin in range(phase.begin, phase.end, steps):
            name, end = f"{len(shards):06d}.bin", min(begin + steps, phase.end)
            shards.append(Shard(name, begin, end, phase.global_batch_size, row))
    return shards


def decisive_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings that a recording and a run must have in common, by name."""
    return {
        name: value
        for name, value in flatten(to_dict(config)).items()
        if (name.startswith(_DECISIVE) or name in _DECISIVE_OF_TEACHER)
        and name not in config.LOCATIONS
    }


def describe_recording(
    config: ExperimentConfig, data: DataIdentity, teacher: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content of `METADATA_FILE`.

    Args:
        config: the experiment.
        data: the text that its batches are made of.
        teacher: `path` and `fingerprint`.
    """
    begins = [phase.begin for phase in phases_of(config)]
    texts = filter(None, (data, data.decay))
    return {
        "format": _FORMAT,
        "settings": decisive_settings(config) | {"first steps of phases": begins},
        "teacher": dict(teacher),
        **{text.kind: text.fingerprint for text in texts},
    }


def find_mismatch(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Describe how a recording differs from what a run needs; return "" if it does not.

    Args:
        recorded: the content of the recording's `METADATA_FILE`.
        wanted: what that content would be for the run. The teacher is not compared.
    """
    there, here = recorded["settings"], wanted["settings"]
    found = [
        f"{name} was {there.get(name)!r} and is {here.get(name)!r}"
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name)
    ]
    for kind in (*DATA_KINDS, DECAY_KIND):
        before, now = (str(one.get(kind))[:12] for one in (recorded, wanted))
        if before != now:
            found.append(f"the {kind} was {before} and is {now}")
    return ", ".join(found)


def read_metadata(directory: Path) -> dict[str, Any]:
    """Read what a recording was made with.

    Raises:
        InputError: it is damaged, or of another format.
    """
    file = directory / METADATA_FILE
    metadata = read_json_object(file, error=InputError)
    if (version := metadata.get("format")) != _FORMAT:
        raise InputError(
            f"{directory} has recording format {shorten(version)}, and this program reads "
            f"{_FORMAT}: record it again"
        )
    require_fields(metadata, {"settings": dict, "teacher": dict}, str(file), error=InputError)
    require_fields(
        metadata["teacher"], {"path": str, "fingerprint": str}, f"{file}: teacher", error=InputError
    )
    return metadata


def read_shards(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the end and the SHA-256 of each complete file of a recording.

    Raises:
        InputError: the list is damaged.
    """
    file = directory / SHARDS_FILE
    if not file.exists():
        return {}
    found = read_json_object(file, error=InputError)
    for name in found:
        kinds = {"end": int, "sha256": str}
        require_fields(found[name], kinds, f"{file}: {name}", error=InputError)
    return found


def recorded_steps(shards: Sequence[Shard], complete: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many steps are recorded without a gap, from the first one on."""
    steps = 0
    for shard in shards:
        found = complete.get(shard.name)
        if found is None:
            break
        steps = min(shard.end, int(found["end"]))
        if steps < shard.end:
            break
    return steps


def add_shard(
    directory: Path, shard: Shard, content: np.ndarray, complete: dict[str, dict[str, Any]]
) -> None:
    """Write a file of a recording, and add it to the list of complete files."""
    path = directory / shard.name
    with new_file(path) as partial:
        content.tofile(partial)
    complete[shard.name] = {"end": shard.end, "sha256": hash_file(path)}
    write_atomically(directory / SHARDS_FILE, json.dumps(complete, indent=1) + "\n")


def open_shard(directory: Path, shard: Shard, found: Mapping[str, Any]) -> np.ndarray:
    """Return the rows of a file of a recording, memory-mapped and verified.

    Raises:
        InputError: it is missing or damaged.
    """
    path = directory / shard.name
    end = min(shard.end, int(found["end"]))
    size = shard._replace(end=end).size
    if not path.is_file() or path.stat().st_size < size or hash_file(path) != found["sha256"]:
        raise InputError(
            f"{path} is damaged or missing: delete it, and record it again by the same command"
        )
    rows = np.memmap(path, shard.row, mode="r")
    return rows[: (end - shard.begin) * shard.rows]


def row_checksums(batch: PretrainingBatch) -> UInt32[np.ndarray, " rows"]:
    """Return a checksum of what a teacher reads in each row: its text, pairs and slots."""
    fields = (
        *(batch.input_ids, batch.token_type_ids, batch.sequence_ids),
        *(batch.masked_lm_positions, batch.masked_lm_weights),
    )
    rows = [np.ascontiguousarray(field) for field in fields]
    checksums = []
    for row in range(len(rows[0])):
        checksum = 0
        for field in rows:
            checksum = zlib.crc32(field[row].tobytes(), checksum)
        checksums.append(checksum)
    return np.array(checksums, np.uint32)


def pack_rows(
    batch: PretrainingBatch, predictions: TeacherPredictions, row: np.dtype
) -> np.ndarray:
    """Return the rows of a step as they are stored."""
    packed = np.empty(len(batch.input_ids), row)
    packed["checksum"] = row_checksums(batch)
    packed["token_ids"] = predictions.token_ids
    packed["log_probs"] = predictions.log_probs
    return packed


def unpack_rows(packed: np.ndarray) -> TeacherPredictions:
    """Invert `pack_rows`, except for the checksums."""
    return TeacherPredictions(
        packed["token_ids"].astype(np.int32),  # type: ignore[arg-type]  # on the host
        packed["log_probs"].astype(np.float32),  # type: ignore[arg-type]
    )
