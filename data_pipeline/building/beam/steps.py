"""Steps of the jobs: functions of elements, with the files that they read and write."""

import functools
import operator
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from jaxtyping import UInt64

from data_pipeline.building.beam.job import (
    PARTS_PER_FILE,
    SHARDS_PER_FILE,
    BuildJob,
    read_records,
    write_records,
)
from data_pipeline.building.beam.stages import (
    DocumentCopies,
    HeldOutSummary,
    NumberedPart,
    PartSummary,
    encode_part,
    find_duplicates,
    hash_part,
    write_plan,
    write_shard_of,
)
from data_pipeline.building.finishing import ShardTask, find_in_training, survey_held_out
from data_pipeline.building.splits.held_out import HashFile, save_hashes, union
from data_pipeline.building.splits.measurement import TextCounts

# The output tags of a step with two outputs.
MAIN, SIDE = "main", "side"


class Worker(beam.DoFn):
    """A step of a job, on a worker with the same versions as the build."""

    def __init__(self, job: BuildJob) -> None:
        self._job = job

    def setup(self) -> None:
        self._job.require_same_versions()


class Each(Worker):
    """Applies a function to the job, an element and further arguments; it may return None."""

    def __init__(
        self,
        job: BuildJob,
        function: Callable[..., Iterable[Any] | None],
        *arguments: Any,
    ) -> None:
        super().__init__(job)
        self._function, self._arguments = function, arguments

    def process(self, element: Any) -> Iterable[Any]:
        return self._function(self._job, element, *self._arguments) or ()


class HashParts(Worker):
    """Hashes documents of parts: yields hashes with ordinals, and part digests on the side."""

    def process(self, element: NumberedPart) -> Iterator[Any]:
        for found in hash_part(self._job, element):
            if isinstance(found, bytes):
                yield beam.pvalue.TaggedOutput(SIDE, (element[0], found))
            else:
                yield found


class EncodeParts(Worker):
    """Encodes parts: yields their summaries, and the hashes of held-out sentences on the side."""

    def process(self, element: NumberedPart) -> Iterator[Any]:
        summary, held_out = encode_part(self._job, element)
        yield ("summaries", summary.part // PARTS_PER_FILE), summary
        yield beam.pvalue.TaggedOutput(SIDE, held_out)


class WriteShards(Worker):
    """Writes shards: yields the records of their files, and their text counts on the side."""

    def process(self, element: ShardTask) -> Iterator[Any]:
        report = write_shard_of(self._job, element)
        place = (f"shards_{element.split}", element.number // SHARDS_PER_FILE)
        yield place, (element.number, report.files)
        yield beam.pvalue.TaggedOutput(SIDE, (element.split, report.text))


class Union(beam.CombineFn):
    """Sorted union of arrays of hashes."""

    def create_accumulator(self) -> UInt64[np.ndarray, " hashes"]:
        return np.zeros(0, np.uint64)

    def add_input(self, accumulator: np.ndarray, element: np.ndarray) -> np.ndarray:
        return union([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return union(accumulators)

    def extract_output(self, accumulator: np.ndarray) -> np.ndarray:
        return accumulator


def write_union(hashes: Any, job: BuildJob, name: str) -> None:
    """Write the sorted union of arrays of hashes to a file of the job."""
    _ = (
        hashes
        | "Union" >> beam.CombineGlobally(Union())
        | "Write union" >> beam.ParDo(Each(job, _write_hashes, name))
    )


def write_groups(placed: Any, job: BuildJob) -> None:
    """Write records to files; each record comes with the kind and the number of its file."""
    _ = (
        placed
        | "By file" >> beam.GroupByKey()
        | "Write records" >> beam.ParDo(Each(job, _write_file))
    )


def read_file(job: BuildJob, place: tuple[str, int]) -> Iterator[Any]:
    """Yield the records of the file with this kind and number."""
    yield from read_records(job.records(*place))


def _write_file(job: BuildJob, element: tuple[tuple[str, int], Iterable[Any]]) -> None:
    place, records = element
    write_records(job.records(*place), sorted(records, key=lambda record: record[0]))


def write_text(job: BuildJob, element: tuple[str, TextCounts]) -> None:
    """Write the counts of the text of a split."""
    split, text = element
    write_records(job.path(f"text_{split}"), [text])


def _write_hashes(job: BuildJob, hashes: UInt64[np.ndarray, " hashes"], name: str) -> None:
    file = save_hashes(job.path(name), hashes)
    write_records(job.path(f"{name}.digest"), [file.digest])


def find_copies(element: tuple[int, Iterable[int]]) -> Iterator[tuple[int, DocumentCopies]]:
    """Yield what happens to each document with the same hash, keyed by its part."""
    for found in find_duplicates(element[1]):
        yield found.part, found


def write_plan_of(job: BuildJob, element: tuple[int, dict[str, Iterable[Any]]]) -> None:
    """Write the plan of a part from its digests and its documents that have copies."""
    number, found = element
    write_plan(job, number, found["digests"], found["copies"])


def find_in_training_of(
    job: BuildJob, summary: PartSummary, held_out: HashFile
) -> Iterator[UInt64[np.ndarray, " hashes"]]:
    """Yield the hashes of held-out sentences that occur in the training text of a part."""
    for number in range(len(summary.blocks)):
        yield find_in_training(job.block(summary.part, number), held_out)


def survey_of(
    job: BuildJob, summary: PartSummary, in_training: HashFile
) -> Iterator[tuple[tuple[str, int], HeldOutSummary]]:
    """Yield the summary of a part's held-out text, with the place of its record."""
    found = [
        survey_held_out(job.block(summary.part, number, in_training))
        for number in range(len(summary.blocks))
    ]
    removed = sum((removed for _, removed in found), type(summary.faults)())
    blocks = [size for size, _ in found]
    place = ("held_out", summary.part // PARTS_PER_FILE)
    yield place, HeldOutSummary(summary.part, blocks, removed)


def sum_texts(texts: Iterable[TextCounts]) -> TextCounts:
    """Sum one or more counts of texts."""
    return functools.reduce(operator.add, texts)
