"""The jobs as Apache Beam pipelines. Text is never shuffled; files carry the large data."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam

from data_pipeline.building.beam.job import BuildJob
from data_pipeline.building.beam.stages import sample_part
from data_pipeline.building.beam.steps import (
    MAIN,
    SIDE,
    Each,
    EncodeParts,
    HashParts,
    WriteShards,
    find_copies,
    find_in_training_of,
    read_file,
    sum_texts,
    survey_of,
    write_groups,
    write_plan_of,
    write_text,
    write_union,
)
from data_pipeline.building.encoding import SamplingTask
from data_pipeline.building.splits.held_out import HashFile
from data_pipeline.errors import InputError
from data_pipeline.terminal import elapsed_time

_logger = logging.getLogger(__name__)


class Jobs:
    """The jobs of a build, run one after the other; a completed job is not run again.

    Args:
        make_pipeline: makes an empty pipeline.
    """

    def __init__(self, make_pipeline: Callable[[], Any]) -> None:
        self._make_pipeline = make_pipeline

    def sample(self, job: BuildJob, num_files: int, task: SamplingTask) -> None:
        """Write the sentences on which a vocabulary is trained."""

        def build(parts: Any) -> None:
            _ = parts | "Sample" >> beam.ParDo(Each(job, sample_part, task))

        self._run(job, "sample", _numbered("parts", num_files), build)

    def hash(self, job: BuildJob, num_files: int) -> None:
        """Write the plan of each part: which of its documents are duplicates."""

        def build(parts: Any) -> None:
            hashed = parts | "Hash" >> beam.ParDo(HashParts(job)).with_outputs(SIDE, main=MAIN)
            copies = (
                hashed[MAIN]
                | "By hash" >> beam.GroupByKey()
                | "Duplicates" >> beam.FlatMap(find_copies)
            )
            plans = {"copies": copies, "digests": hashed[SIDE]}
            _ = (
                plans
                | "By part" >> beam.CoGroupByKey()
                | "Write plans" >> beam.ParDo(Each(job, write_plan_of))
            )

        self._run(job, "hash", _numbered("parts", num_files), build)

    def encode(self, job: BuildJob, num_files: int) -> None:
        """Write the blocks and summaries of all parts, and the hashes of held-out sentences."""

        def build(parts: Any) -> None:
            encoded = parts | "Encode" >> beam.ParDo(EncodeParts(job)).with_outputs(SIDE, main=MAIN)
            write_groups(encoded[MAIN], job)
            write_union(encoded[SIDE], job, "held_out.hashes")

        self._run(job, "encode", _numbered("parts", num_files), build)

    def compare(self, job: BuildJob, num_files: int, held_out: HashFile) -> None:
        """Write the hashes of the held-out sentences that also occur in training text."""

        def build(summaries: Any) -> None:
            found = summaries | "Compare" >> beam.ParDo(Each(job, find_in_training_of, held_out))
            write_union(found, job, "in_training.hashes")

        self._run(job, "compare", _numbered("summaries", num_files), build)

    def survey(self, job: BuildJob, num_files: int, in_training: HashFile) -> None:
        """Write the amount of held-out text in each block."""

        def build(summaries: Any) -> None:
            surveyed = summaries | "Survey" >> beam.ParDo(Each(job, survey_of, in_training))
            write_groups(surveyed, job)

        self._run(job, "survey", _numbered("summaries", num_files), build)

    def write(self, job: BuildJob, num_files: Mapping[str, int]) -> None:
        """Write the shards, the records of their files, and the text counts of each split.

        Args:
            job: the build.
            num_files: the number of task files of each split.
        """
        files = [(f"tasks_{split}", n) for split, num in num_files.items() for n in range(num)]

        def build(tasks: Any) -> None:
            written = tasks | "Write" >> beam.ParDo(WriteShards(job)).with_outputs(SIDE, main=MAIN)
            write_groups(written[MAIN], job)
            _ = (
                written[SIDE]
                | "Sum up" >> beam.CombinePerKey(sum_texts)
                | "Write counts" >> beam.ParDo(Each(job, write_text))
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
            InputError: the job failed.
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
                        | "Read" >> beam.ParDo(Each(job, read_file))
                        | "Balance" >> beam.Reshuffle()
                    )
                    build(records)
            except Exception as error:
                raise InputError(_describe(name, error)) from error
        marker.write_text("")


def _numbered(kind: str, num_files: int) -> list[tuple[str, int]]:
    return [(kind, number) for number in range(num_files)]


def _describe(name: str, error: Exception) -> str:
    """Return a one-line message, with this program's own error if the traceback has one."""
    text = str(error)
    own = re.findall(r"InputError: (.*?)(?: \[while running|$)", text, re.MULTILINE)
    lines = [line for line in text.splitlines() if line.strip()]
    if not own:
        _logger.error("%s", text)  # from Beam, a store or a bug: one line may not say enough
    reason = own[-1] if own else f"{type(error).__name__}: {lines[-1] if lines else ''}"
    return f"the Beam job {name} failed: {reason}; the same command resumes from here"
