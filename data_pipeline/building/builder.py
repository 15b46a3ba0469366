"""Corpus building: a vocabulary, encoded and deduplicated documents, held-out text, metadata."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from data_pipeline.building.config import BuildConfig
from data_pipeline.building.deduplication import (
    HASH_DTYPE,
    NEAR_DUPLICATES_FILE,
    Log,
    SeenHashes,
    write_near_duplicates,
)
from data_pipeline.building.encoding import EncodingTask, SignatureTask
from data_pipeline.building.finishing import BlockReference, write_splits
from data_pipeline.building.journal import Journal, differing_setting
from data_pipeline.building.parts import DocumentBlock, read_blocks
from data_pipeline.building.preparation import PreparedBuild, move_into_place, require_free
from data_pipeline.building.splits.blocks import block_file
from data_pipeline.building.workers import Workers
from data_pipeline.corpus.reader import list_files
from data_pipeline.corpus.splits import TRAIN, VALIDATION
from data_pipeline.locks import lock
from data_pipeline.terminal import ByteProgress, elapsed_time, say
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer
from data_pipeline.verification import describe_files

_BLOCKS = "blocks"
_SAMPLE = "vocabulary_sample.txt"
_BLOCKS_PER_SAVE = 4  # about 16 MB of text

_logger = logging.getLogger(__name__)


class CorpusBuilder:
    """One build, from the inputs to a corpus directory.

    The corpus grows in `<output_dir>.partial`, which is renamed once the corpus is complete. The
    result does not depend on the number of processes, or on how often the build was interrupted.
    """

    def __init__(self, config: BuildConfig) -> None:
        """Check the inputs, the given tokenizer and the output directory.

        Raises:
            InputError: an input is missing, or the output directory already exists.
        """
        self._build = PreparedBuild(config)
        self._config = self._build.config
        self._output = Path(config.output_dir)
        require_free(self._output, overwrite=config.overwrite)
        self._partial = self._output.with_name(self._output.name + ".partial")
        # `corpus` becomes the corpus; `work` is needed only during the build.
        self._corpus = self._partial / "corpus"
        self._work = self._partial / "work"
        self._selection = self._build.selection

    def build(self) -> None:
        """Build the corpus, or resume building it.

        Raises:
            InputError: the input is not in the declared format, or holds no text.
            OSError: for example, the disk is full; the same command resumes the build later.
        """
        self._partial.mkdir(parents=True, exist_ok=True)
        with (
            lock(self._partial, "build"),
            Workers(self._config.num_processes) as workers,
        ):
            journal = self._open_journal()
            self._find_near_duplicates(journal, workers)
            if not journal.has_tokenizer:
                tokenizer = self._build.given_tokenizer or self._train_tokenizer(workers)
                tokenizer.save(self._corpus / TOKENIZER_DIRECTORY)
                journal.has_tokenizer = True
                journal.save(self._work)
            given = self._build.given_tokenizer
            tokenizer = given or load_tokenizer(self._corpus / TOKENIZER_DIRECTORY)
            blocks = self._encode(journal, tokenizer, workers)
            for split in (TRAIN, VALIDATION):  # left by a build that stopped while writing them
                shutil.rmtree(self._corpus / split, ignore_errors=True)
            with elapsed_time("Writing the shards"):
                splits, removed = write_splits(
                    blocks,
                    self._corpus,
                    self._work,
                    tokenizer,
                    len(self._config.sources),
                    workers,
                )
            files = describe_files(self._corpus, list_files(self._corpus, (TOKENIZER_DIRECTORY,)))
            self._build.describe(tokenizer, files, splits, journal, removed).save(self._corpus)
            move_into_place(self._corpus, self._output, self._partial)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        return self._build.settings

    def _open_journal(self) -> Journal:
        """Return the journal of an earlier run with the same settings, or a new one."""
        settings = self.settings
        if self._work.exists():
            journal = Journal.load(self._work) if self._corpus.exists() else None
            reason: str | None = "it cannot be read"
            if journal:
                reason = differing_setting(journal.settings, settings)
                if reason is None:
                    for stray in self._corpus.rglob(".*"):  # left by an interrupted write
                        stray.unlink()
                    say(f"Resuming the build in {self._partial}.")
                    return journal
            _logger.warning("Starting over instead of resuming %s: %s.", self._partial, reason)
        for directory in (self._corpus, self._work):
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir()
        journal = Journal(settings)
        journal.save(self._work)
        return journal

    def _find_near_duplicates(self, journal: Journal, workers: Workers) -> None:
        minhash = self._config.minhash
        if minhash is None:
            return
        if not journal.near_duplicates:
            task = SignatureTask(self._config.sources, self._selection, minhash)
            blocks = self._map(task, "Hashing documents", workers, skip=journal.signed_blocks)
            write_near_duplicates(
                blocks, minhash.bands, journal, self._work, blocks_per_save=_BLOCKS_PER_SAVE
            )
        path = self._work / NEAR_DUPLICATES_FILE
        self._selection = self._selection._replace(near_duplicates=path)

    def _train_tokenizer(self, workers: Workers) -> Tokenizer:
        task = dataclasses.replace(self._build.sampling_task, selection=self._selection)
        sample = self._work / _SAMPLE
        with sample.open("w", encoding="utf-8") as file:
            for block in self._map(task, "Sampling text for the vocabulary", workers):
                file.writelines(f"{sentence}\n" for sentence in block.sentences)
        return self._build.train_tokenizer(sample)

    def _map(
        self, task: Callable[[DocumentBlock], Any], label: str, workers: Workers, skip: int = 0
    ) -> Generator[Any, None, None]:
        """Apply a task to all blocks after the first `skip`, and show the progress."""
        total = self._build.total_bytes
        blocks = read_blocks(self._config.sources, self._build.files)
        with ByteProgress(label, total) as progress:
            for _ in range(skip):
                block = next(blocks, None)
                progress.move_to(block.bytes_read if block else total)
            with contextlib.closing(workers.map(task, blocks)) as results:
                for result in results:
                    yield result
                    progress.move_to(result.bytes_read)
            progress.move_to(total)

    def _encode(
        self, journal: Journal, tokenizer: Tokenizer, workers: Workers
    ) -> list[BlockReference]:
        """Encode all documents, or those after the journal's last block; return all the blocks."""
        work, held_out = self._work, self._config.held_out
        hashes, is_new, sizes = logs = [
            Log(work / name, np.dtype(dtype), journal.positions.get(name))
            for name, dtype in (("new.hashes", HASH_DTYPE), ("is_new", "?"), ("documents", "<u4"))
        ]
        seen = SeenHashes()
        for some in hashes.read():
            seen.add(some)

        def save() -> None:
            journal.positions = {log.path.name: log.position() for log in logs}
            journal.save(work)

        task = EncodingTask(
            self._config.sources,
            self._selection,
            self._build.splitter,
            self._corpus / TOKENIZER_DIRECTORY,
            tokenizer.fingerprint,
            work / _BLOCKS,
        )
        try:
            for block in self._map(task, "Encoding", workers, skip=journal.blocks):
                mask = seen.add(block.document_hashes)
                hashes.append(block.document_hashes[mask])
                is_new.append(mask)
                sizes.append(np.array([len(mask)]))
                journal.duplicates += int(np.count_nonzero(~mask))
                journal.count(block.rejected, block.near_duplicates, block.faults)
                journal.blocks += 1
                if journal.blocks % _BLOCKS_PER_SAVE == 0:
                    save()
            save()
        finally:
            for log in logs:
                log.close()
        masks = np.fromfile(is_new.path, bool)
        ends = np.cumsum(np.fromfile(sizes.path, "<u4"), dtype=np.int64)
        return [
            BlockReference(epath.Path(block_file(work / _BLOCKS, number)), held_out, mask)
            for number, mask in zip(range(journal.blocks), np.split(masks, ends[:-1]), strict=False)
        ]
