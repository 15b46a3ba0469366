"""A build whose work is done by Apache Beam jobs."""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from etils import epath

from albert_jax.input_files import is_remote
from data_pipeline.building.beam.job import BuildJob, program_versions
from data_pipeline.building.beam.options import EngineConfig
from data_pipeline.building.beam.planning import (
    read_hash_file,
    read_split,
    read_summaries,
    write_parts,
    write_tasks,
)
from data_pipeline.building.config import BuildConfig
from data_pipeline.building.journal import differing_setting
from data_pipeline.building.preparation import PreparedBuild, move_into_place, require_free
from data_pipeline.corpus.metadata import METADATA_FILE
from data_pipeline.corpus.splits import TRAIN, VALIDATION
from data_pipeline.errors import InputError
from data_pipeline.locks import lock
from data_pipeline.remote import file_system, make_directory, open_path
from data_pipeline.terminal import say
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer
from data_pipeline.verification import describe_files

_SETTINGS_FILE = "settings.json"
# Libraries that read or process text; all workers must have the same versions.
_MORE_LIBRARIES = ("data_pipeline", "pyarrow", "apache-beam")


class BeamBuilder:
    """One build as a series of jobs that hash documents, encode parts and write shards.

    The output of the jobs stays in `<output_dir>.partial` until the corpus is complete. After a
    failure, the same command runs the failed job again, but not the jobs before it. On a local
    disk the corpus also grows in that directory. A store cannot rename, so there the corpus is
    written in its final place, with the metadata last.
    """

    def __init__(self, config: BuildConfig, engine: EngineConfig) -> None:
        """Check the options, the inputs, the given tokenizer and the output directory.

        Raises:
            InputError: Beam is not installed, an input is missing, or the output directory already
                exists.
        """
        make_pipeline = engine.make_pipelines(config.num_processes)
        from data_pipeline.building.beam.pipelines import Jobs

        self._jobs = Jobs(make_pipeline)
        self._build = PreparedBuild(config)
        if config.minhash is not None:
            raise InputError(
                "--near_duplicates=minhash compares all documents in one process, and does not go "
                "with --engine=beam"
            )
        url = str(config.output_dir).rstrip("/")
        self._url = url if is_remote(url) else os.path.abspath(url)  # workers may be elsewhere
        self._partial = open_path(f"{self._url}.partial")
        if not is_remote(self._url):
            require_free(Path(self._url), overwrite=config.overwrite)
        elif (open_path(self._url) / METADATA_FILE).exists() and not config.overwrite:
            raise InputError(
                f"--output_dir={self._url} holds a corpus already; --overwrite replaces it"
            )

    def build(self) -> None:
        """Build the corpus, or resume building it.

        Raises:
            InputError: the input is not in the declared format, holds no text or has changed,
                workers have other versions, or a job failed.
        """
        make_directory(self._partial)
        with lock(self._partial, "build"):
            job = self._open()
            num_files, num_parts = write_parts(job, self._build.files)
            tokenizer, files = self._prepare_tokenizer(job, num_files, num_parts)
            job = dataclasses.replace(job, fingerprint=tokenizer.fingerprint)
            self._jobs.hash(job, num_files)
            self._jobs.encode(job, num_files)
            self._jobs.compare(job, num_files, read_hash_file(job, "held_out.hashes"))
            in_training = read_hash_file(job, "in_training.hashes")
            self._jobs.survey(job, num_files, in_training)
            journal, removed = read_summaries(job, num_files)
            num_tasks = {
                split: write_tasks(job, split, num_files, in_training, tokenizer.vocab_size)
                for split in (TRAIN, VALIDATION)
            }
            self._jobs.write(job, num_tasks)
            splits = {
                split: read_split(job, split, num, tokenizer.vocab_size)
                for split, num in num_tasks.items()
            }
            metadata = self._build.describe(tokenizer, files, splits, journal, removed)
            if is_remote(self._url):
                self._remove_others(metadata.files)
                (open_path(self._url) / METADATA_FILE).write_text(metadata.to_json())
                self._partial.rmtree()
                return
            corpus = Path(job.corpus)
            (corpus / VALIDATION).mkdir(exist_ok=True)
            metadata.save(corpus)
            move_into_place(corpus, Path(self._url), Path(self._partial))

    def _open(self) -> BuildJob:
        """Return the job, after removing what a job with other settings left behind."""
        names = (*self._build.config.versions, *_MORE_LIBRARIES)
        versions = program_versions(names)
        settings = json.loads(json.dumps({**self._build.settings, "engine": dict(versions)}))
        work, corpus = self._partial / "work", self._partial / "corpus"
        stored, reason = work / _SETTINGS_FILE, None
        if work.exists():
            reason = "it is no build of this engine"
            if stored.exists():
                reason = differing_setting(json.loads(stored.read_text()), settings)
                if reason is None:
                    say(f"Resuming the build in {self._partial}.")
            if reason:
                say(f"Starting over instead of resuming {self._partial}: {reason}.")
                for directory in (work, corpus):
                    if directory.exists():
                        directory.rmtree()
        if is_remote(self._url):
            corpus = open_path(self._url)
            (corpus / METADATA_FILE).unlink(missing_ok=True)
        make_directory(work)
        make_directory(corpus)
        stored.write_text(json.dumps(settings))
        build = self._build
        return BuildJob(
            work=str(work),
            corpus=str(corpus),
            sources=build.config.sources,
            selection=build.selection,
            splitter=build.splitter,
            held_out=build.config.held_out,
            fingerprint="",
            versions=versions,
        )

    def _prepare_tokenizer(
        self, job: BuildJob, num_files: int, num_parts: int
    ) -> tuple[Tokenizer, dict[str, Any]]:
        """Save the given tokenizer, or train one on a sample; return it and its files."""
        with tempfile.TemporaryDirectory(prefix="albert-jax-tokenizer-") as scratch:
            local = Path(scratch) / TOKENIZER_DIRECTORY
            stored = open_path(job.corpus) / TOKENIZER_DIRECTORY
            marker = job.path("tokenizer.done")
            if marker.exists():
                _copy(stored, local)
            else:
                tokenizer = self._build.given_tokenizer or self._train(
                    job, num_files, num_parts, Path(scratch) / "sample.txt"
                )
                tokenizer.save(local)
                _copy(epath.Path(local), stored)
                marker.write_text("")
            names = [f"{TOKENIZER_DIRECTORY}/{file.name}" for file in local.iterdir()]
            return load_tokenizer(local), describe_files(Path(scratch), sorted(names))

    def _train(self, job: BuildJob, num_files: int, num_parts: int, sample: Path) -> Tokenizer:
        self._jobs.sample(job, num_files, self._build.sampling_task)
        with sample.open("wb") as file:
            for number in range(num_parts):
                with job.records("sample", number).open("rb") as part:
                    shutil.copyfileobj(part, file)
        return self._build.train_tokenizer(sample)

    def _remove_others(self, files: Any) -> None:
        """Remove the files of an earlier corpus from a store."""
        root = f"{self._url.partition('://')[2]}/"
        for found in file_system(self._url).find(self._url):
            name = found.lstrip("/").removeprefix(root)
            if name not in files and not name.startswith("."):
                (open_path(self._url) / name).unlink()


def _copy(source: epath.Path, target: epath.Path | Path) -> None:
    make_directory(epath.Path(target))
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
