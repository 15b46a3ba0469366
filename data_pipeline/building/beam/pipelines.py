"""The jobs as pipelines of Apache Beam. Text is never shuffled; files carry what is large."""

import functools
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    sample_part,
    write_plan,
    write_shard_of,
)
from data_pipeline.building.encoding import SamplingTask
from data_pipeline.building.finishing import ShardTask, find_in_training, survey_held_out
from data_pipeline.building.splits.held_out import HashFile, save_hashes, union
from data_pipeline.building.splits.measurement import TextCounts
from data_pipeline.errors import InputError
from data_pipeline.terminal import elapsed_time

_MAIN, _SIDE = "main", "side"


class Jobs:
    """The jobs of a build, run one after the other; one that is done is not run again.

    Args:
        make_pipeline: makes an empty pipeline.
    """

    def __init__(self, make_pipeline: Callable[[], Any]) -> None:
        self._make_pipeline = make_pipeline

    def sample(self, job: BuildJob, num_files: int, task: SamplingTask) -> None:
        """Write the sentences on which a vocabulary is trained."""

        def build(parts: Any) -> None:
            _ = parts | "Sample" >> beam.ParDo(_Each(job, sample_part, task))

        self._run(job, "sample", _numbered("parts", num_files), build)

    def hash(self, job: BuildJob, num_files: int) -> None:
        """Write the plan of each part: which of its documents are duplicates."""

        def build(parts: Any) -> None:
            hashed = parts | "Hash" >> beam.ParDo(_HashParts(job)).with_outputs(_SIDE, main=_MAIN)
            copies = (
                hashed[_MAIN]
                | "By hash" >> beam.GroupByKey()
                | "Duplicates" >> beam.FlatMap(_find_copies)
            )
            plans = {"copies": copies, "digests": hashed[_SIDE]}
            _ = (
                plans
                | "By part" >> beam.CoGroupByKey()
                | "Write plans" >> beam.ParDo(_Each(job, _write_plan))
            )

        self._run(job, "hash", _numbered("parts", num_files), build)

    def encode(self, job: BuildJob, num_files: int) -> None:
        """Write the blocks of all parts, their summaries, and the held-out sentences' hashes."""

        def build(parts: Any) -> None:
            encoded = parts | "Encode" >> beam.ParDo(_EncodeParts(job)).with_outputs(
                _SIDE, main=_MAIN
            )
            _write_groups(encoded[_MAIN], job)
            _write_union(encoded[_SIDE], job, "held_out.hashes")

        self._run(job, "encode", _numbered("parts", num_files), build)

    def compare(self, job: BuildJob, num_files: int, held_out: HashFile) -> None:
        """Write the hashes of those held-out sentences that training has too."""

        def build(summaries: Any) -> None:
            found = summaries | "Compare" >> beam.ParDo(_Each(job, _find_in_training, held_out))
            _write_union(found, job, "in_training.hashes")

        self._run(job, "compare", _numbered("summaries", num_files), build)

    def survey(self, job: BuildJob, num_files: int, in_training: HashFile) -> None:
        """Write the amount of held-out text in each block."""

        def build(summaries: Any) -> None:
            surveyed = summaries | "Survey" >> beam.ParDo(_Each(job, _survey, in_training))
            _write_groups(surveyed, job)

        self._run(job, "survey", _numbered("summaries", num_files), build)

    def write(self, job: BuildJob, num_files: Mapping[str, int]) -> None:
        """Write the shards, the records of their files, and the counts of the text of a split.

        Args:
            job: of the build.
            num_files: of the tasks of each split.
        """
        files = [(f"tasks_{split}", n) for split, num in num_files.items() for n in range(num)]

        def build(tasks: Any) -> None:
            written = tasks | "Write" >> beam.ParDo(_WriteShards(job)).with_outputs(
                _SIDE, main=_MAIN
            )
            _write_groups(written[_MAIN], job)
            _ = (
                written[_SIDE]
                | "Sum up" >> beam.CombinePerKey(_sum_texts)
                | "Write counts" >> beam.ParDo(_Each(job, _write_text))
            )

        self._run(job, "write", files, build)

    def _run(
        self,
        job: BuildJob,
        name: str,
        files: Sequence[tuple[str, int]],
        build: Callable[[Any], None],
    ) -> None:
        """Run a job over the records of files, each given by its kind and number.

        Raises:
            InputError: it failed.
        """
        marker = job.path(f"{name}.done")
        if marker.exists():
            return
        with elapsed_time(f"Beam job {name}"):
            try:
                with self._make_pipeline() as pipeline:
                    records = (
                        pipeline
                        | "Files" >> beam.Create(files, reshuffle=False)
                        | "Read" >> beam.ParDo(_Each(job, _read_file))
                        | "Balance" >> beam.Reshuffle()
                    )
                    build(records)
            except Exception as error:
                raise InputError(_describe(name, error)) from error
        marker.write_text("")


def _numbered(kind: str, num_files: int) -> list[tuple[str, int]]:
    return [(kind, number) for number in range(num_files)]


def _describe(name: str, error: Exception) -> str:
    """Return one line: the message of this program's own error, if there is one in a traceback."""
    text = str(error)
    own = re.findall(r"InputError: (.*?)(?: \[while running|$)", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if line.strip()]
    reason = own[-1] if own else f"{type(error).__name__}: {lines[-1] if lines else ''}"
    return f"the Beam job {name} failed: {reason}; the same command resumes from here"


class _Worker(beam.DoFn):
    """A step of a job, on a worker with the same versions."""

    def __init__(self, job: BuildJob) -> None:
        self._job = job

    def setup(self) -> None:
        self._job.require_same_versions()


class _Each(_Worker):
    """A function of the job, an element and further arguments, which yields or returns nothing."""

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


class _HashParts(_Worker):
    def process(self, element: NumberedPart) -> Iterator[Any]:
        for found in hash_part(self._job, element):
            if isinstance(found, bytes):
                yield beam.pvalue.TaggedOutput(_SIDE, (element[0], found))
            else:
                yield found


class _EncodeParts(_Worker):
    def process(self, element: NumberedPart) -> Iterator[Any]:
        summary, held_out = encode_part(self._job, element)
        yield ("summaries", summary.part // PARTS_PER_FILE), summary
        yield beam.pvalue.TaggedOutput(_SIDE, held_out)


class _WriteShards(_Worker):
    def process(self, element: ShardTask) -> Iterator[Any]:
        report = write_shard_of(self._job, element)
        place = (f"shards_{element.split}", element.number // SHARDS_PER_FILE)
        yield place, (element.number, report.files)
        yield beam.pvalue.TaggedOutput(_SIDE, (element.split, report.text))


class _Union(beam.CombineFn):
    """Sorted union of arrays of hashes."""

    def create_accumulator(self) -> UInt64[np.ndarray, " hashes"]:
        return np.zeros(0, np.uint64)

    def add_input(self, accumulator: np.ndarray, element: np.ndarray) -> np.ndarray:
        return union([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return union(accumulators)

    def extract_output(self, accumulator: np.ndarray) -> np.ndarray:
        return accumulator


def _write_union(hashes: Any, job: BuildJob, name: str) -> None:
    _ = (
        hashes
        | "Union" >> beam.CombineGlobally(_Union())
        | "Write union" >> beam.ParDo(_Each(job, _write_hashes, name))
    )


def _write_groups(placed: Any, job: BuildJob) -> None:
    _ = (
        placed
        | "By file" >> beam.GroupByKey()
        | "Write records" >> beam.ParDo(_Each(job, _write_file))
    )


def _read_file(job: BuildJob, place: tuple[str, int]) -> Iterator[Any]:
    yield from read_records(job.records(*place))


def _write_file(job: BuildJob, element: tuple[tuple[str, int], Iterable[Any]]) -> None:
    place, records = element
    write_records(job.records(*place), sorted(records, key=lambda record: record[0]))


def _write_text(job: BuildJob, element: tuple[str, TextCounts]) -> None:
    split, text = element
    write_records(job.path(f"text_{split}"), [text])


def _write_hashes(job: BuildJob, hashes: UInt64[np.ndarray, " hashes"], name: str) -> None:
    file = save_hashes(job.path(name), hashes)
    write_records(job.path(f"{name}.digest"), [file.digest])


def _find_copies(element: tuple[int, Iterable[int]]) -> Iterator[tuple[int, DocumentCopies]]:
    for found in find_duplicates(element[1]):
        yield found.part, found


def _write_plan(job: BuildJob, element: tuple[int, dict[str, Iterable[Any]]]) -> None:
    number, found = element
    write_plan(job, number, found["digests"], found["copies"])


def _find_in_training(
    job: BuildJob, summary: PartSummary, held_out: HashFile
) -> Iterator[UInt64[np.ndarray, " hashes"]]:
    for number in range(len(summary.blocks)):
        yield find_in_training(job.block(summary.part, number), held_out)


def _survey(
    job: BuildJob, summary: PartSummary, in_training: HashFile
) -> Iterator[tuple[tuple[str, int], HeldOutSummary]]:
    found = [
        survey_held_out(job.block(summary.part, number, in_training))
        for number in range(len(summary.blocks))
    ]
    removed = sum((removed for _, removed in found), type(summary.faults)())
    blocks = [size for size, _ in found]
    place = ("held_out", summary.part // PARTS_PER_FILE)
    yield place, HeldOutSummary(summary.part, blocks, removed)


def _sum_texts(texts: Iterable[TextCounts]) -> TextCounts:
    return functools.reduce(operator.add, texts)
