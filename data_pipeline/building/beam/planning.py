"""The driver's work between jobs: it streams the records of parts and holds only counts."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from albert_jax.input_files import is_remote
from data_pipeline.building.beam.job import (
    PARTS_PER_FILE,
    SHARDS_PER_FILE,
    BuildJob,
    read_records,
    write_records,
)
from data_pipeline.building.finishing import plan_shards
from data_pipeline.building.journal import Journal
from data_pipeline.building.parts import cut_into_parts
from data_pipeline.building.splits.held_out import BlockReference, HashFile
from data_pipeline.building.splits.measurement import SplitReport, TextCounts
from data_pipeline.corpus.splits import TRAIN, shard_name
from data_pipeline.sources.documents import Source, SourceFormat
from data_pipeline.sources.text_files import InputFile

PART_BYTES = 64 << 20


def write_parts(job: BuildJob, files: Sequence[Sequence[InputFile]]) -> tuple[int, int]:
    """Write the numbered parts of the input; return the number of files and of parts."""
    parts = enumerate(
        part
        for number, (source, inputs) in enumerate(zip(job.sources, files, strict=True))
        for part in cut_into_parts(
            source, number, [_with_whole_path(source, file) for file in inputs], PART_BYTES
        )
    )
    return _write_grouped(job, "parts", parts, PARTS_PER_FILE)


def _with_whole_path(source: Source, file: InputFile) -> InputFile:
    """Return a file with a path that does not depend on the working directory."""
    if source.format is SourceFormat.TFDS or is_remote(file.name):
        return file
    return file._replace(name=os.path.abspath(file.name))


def read_hash_file(job: BuildJob, name: str) -> HashFile:
    """Return the file of hashes that a job wrote."""
    (digest,) = read_records(job.path(f"{name}.digest"))
    return HashFile(job.path(name), digest)


def read_summaries(job: BuildJob, num_files: int) -> tuple[Journal, Counter[str]]:
    """Sum the counts of all parts: of documents, and of held-out text that was removed."""
    journal, removed = Journal({}), Counter[str]()
    for summary in _read_all(job, "summaries", num_files):
        journal.duplicates += summary.duplicates
        journal.count(summary.rejected, summary.near_duplicates, summary.faults)
    for summary in _read_all(job, "held_out", num_files):
        removed.update(summary.removed)
    return journal, removed


def write_tasks(
    job: BuildJob, split: str, num_files: int, in_training: HashFile, vocab_size: int
) -> int:
    """Write which documents each shard of a split holds; return the number of files."""
    kind = "summaries" if split == TRAIN else "held_out"
    blocks = _Blocks(job, num_files, in_training)
    totals = (size for summary in _read_all(job, kind, num_files) for size in summary.blocks)
    tasks = plan_shards(split, totals, blocks, vocab_size)
    return _write_grouped(job, f"tasks_{split}", tasks, SHARDS_PER_FILE)[0]


def read_split(job: BuildJob, split: str, num_files: int, vocab_size: int) -> SplitReport:
    """Return the report of a split whose shards have been written."""
    files: dict[str, dict[str, Any]] = {}
    num_shards = 0
    for number, written in _read_all(job, f"shards_{split}", num_files):
        num_shards += 1
        place = f"{split}/{shard_name(number)}"
        files |= {f"{place}/{name}": record for name, record in written.items()}
    text = TextCounts.zeros(len(job.sources), vocab_size)
    if num_shards:
        (text,) = read_records(job.path(f"text_{split}"))
    return SplitReport(files, num_shards, text)


class _Blocks(Sequence[BlockReference]):
    """The blocks of all parts, by number; takes eight bytes of memory per part."""

    def __init__(self, job: BuildJob, num_files: int, in_training: HashFile) -> None:
        self._job, self._in_training = job, in_training
        counts = (len(s.blocks) for s in _read_all(job, "summaries", num_files))
        self._ends = np.cumsum(np.fromiter(counts, np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, number: int) -> BlockReference: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[BlockReference]: ...
    def __getitem__(self, number: Any) -> Any:
        if not isinstance(number, int) or not 0 <= number < len(self):
            raise IndexError(f"{number} is not from 0 to {len(self) - 1}")
        part = int(np.searchsorted(self._ends, number, side="right"))
        before = int(self._ends[part - 1]) if part else 0
        return self._job.block(part, number - before, self._in_training)


def _read_all(job: BuildJob, kind: str, num_files: int) -> Iterator[Any]:
    for number in range(num_files):
        yield from read_records(job.records(kind, number))


def _write_grouped(job: BuildJob, kind: str, records: Iterable[Any], size: int) -> tuple[int, int]:
    """Write records to files of `size` records; return the number of files and of records."""
    num_files = num_records = 0
    group: list[Any] = []
    for record in records:
        group.append(record)
        num_records += 1
        if len(group) == size:
            write_records(job.records(kind, num_files), group)
            num_files, group = num_files + 1, []
    if group:
        write_records(job.records(kind, num_files), group)
        num_files += 1
    return num_files, num_records
