"""Building a corpus: a vocabulary, encoded and deduplicated documents, held-out text, metadata."""

import contextlib
import dataclasses
import fcntl
import json
import logging
import os
import shutil
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt64
from tqdm import tqdm

from albert_jax.durable_files import sync
from data_pipeline.corpus.build_config import BuildConfig, library_versions
from data_pipeline.corpus.deduplication import NOT_HASHED, SeenHashes, is_held_out
from data_pipeline.corpus.encoding import (
    Chunk,
    EncodedChunk,
    EncodingTask,
    SamplingTask,
    Splitting,
    deal_chunks,
    map_in_order,
)
from data_pipeline.corpus.held_out import write_validation
from data_pipeline.corpus.journal import HashLog, Journal, differing_setting, read_hashes
from data_pipeline.corpus.reader import (
    METADATA_FILE,
    TOKENIZER_DIRECTORY,
    TRAIN,
    VALIDATION,
    Corpus,
    open_splits,
)
from data_pipeline.corpus.report import describe_training_text
from data_pipeline.corpus.writer import (
    EncodedDocuments,
    SplitWriter,
    describe_files,
    keep_sentences,
    write_metadata,
)
from data_pipeline.errors import InputError
from data_pipeline.sources.text_files import Reading
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.sentencepiece import train_sentencepiece
from data_pipeline.tokenizers.tokenizer import Tokenizer

_STAGED = "held_out"  # held-out documents before sentences that training has too are removed
_DOCUMENT_HASHES, _TRAIN_HASHES, _STAGED_HASHES = (
    f"{name}.hashes" for name in ("documents", "train_sentences", "held_out_sentences")
)
_SAMPLE = "vocabulary_sample.txt"
_CHUNKS_BETWEEN_SAVES = 16  # about 16 MB of text

_logger = logging.getLogger(__name__)


class CorpusBuilder:
    """One build, from the inputs to a corpus directory.

    The corpus grows in `<output_dir>.partial` and gets its name when it is whole. Nothing depends
    on the number of processes or on how often the build was interrupted.
    """

    def __init__(self, config: BuildConfig) -> None:
        """Looks at the inputs, the given tokenizer, and what an earlier run has left.

        Raises:
            InputError: an input is missing, or the output directory holds a corpus already.
        """
        self._config = config
        self._files = [source.find_inputs() for source in config.sources]
        self._given: Tokenizer | None = None
        if config.tokenizer is not None:
            self._given = load_tokenizer(
                config.tokenizer, lower_case=config.lower_case, keep_accents=config.keep_accents
            )
        self._output = Path(config.output_dir)
        if self._output.exists() and not config.overwrite:
            raise InputError(
                f"--output_dir={self._output} exists already; --overwrite replaces a corpus when "
                "the new one is whole"
            )
        if self._output.exists() and not (self._output / METADATA_FILE).is_file():
            raise InputError(f"--output_dir={self._output} exists and is no corpus to overwrite")
        self._partial = self._output.with_name(self._output.name + ".partial")
        formats = tuple(source.format for source in config.sources)
        # What becomes the corpus, and what is needed only to make it.
        self._corpus = self._partial / "corpus"
        self._work = self._partial / "work"
        self._splitting = Splitting(config.language, formats)
        self._reading = Reading()

    def build(self) -> None:
        """Builds the corpus, or what is left of it to build.

        Raises:
            InputError: the input is not what its format says, or holds no text.
            OSError: for one, the disk is full; the same command then goes on later.
        """
        self._partial.mkdir(parents=True, exist_ok=True)
        with _lock(self._partial):
            journal = self._open_journal()
            if not journal.tokenizer:
                tokenizer = self._given or self._train_tokenizer()
                tokenizer.save(self._corpus / TOKENIZER_DIRECTORY)
                journal.tokenizer = True
                journal.save(self._work)
            tokenizer = load_tokenizer(self._corpus / TOKENIZER_DIRECTORY)
            self._encode(journal, tokenizer.vocab_size)
            removed = write_validation(
                self._work / _STAGED,
                self._work / _STAGED_HASHES,
                self._work / _TRAIN_HASHES,
                self._corpus / VALIDATION,
                tokenizer.vocab_size,
            )
            self._finish(tokenizer, {"duplicate_documents": journal.duplicates, **removed})

    def _open_journal(self) -> Journal:
        """The journal of an earlier run with the same settings, or that of a new one."""
        settings = self._config.describe_exactly(self._files, self._given)
        settings = json.loads(json.dumps(settings))
        if self._work.exists():
            journal = Journal.load(self._work) if self._corpus.exists() else None
            reason: str | None = "it cannot be read"
            if journal:
                reason = differing_setting(journal.settings, settings)
                if reason is None:
                    for stray in self._corpus.rglob(".*"):  # of a file that was being written
                        stray.unlink()
                    _logger.warning("Going on with the build in %s.", self._partial)
                    return journal
            _logger.warning("Starting over instead of going on with %s: %s.", self._partial, reason)
        for directory in (self._corpus, self._work):
            if directory.exists():
                shutil.rmtree(directory)
            directory.mkdir()
        journal = Journal(settings)
        journal.save(self._work)
        return journal

    def _train_tokenizer(self) -> Tokenizer:
        config = self._config
        lower_case = config.lower_case is not False
        keep_accents = bool(config.keep_accents)
        total = sum(file.size for files in self._files for file in files)
        share = min(1.0, config.vocabulary_bytes / max(1, total))
        task = SamplingTask(self._splitting, lower_case, keep_accents, config.held_out, share)
        sample = self._work / _SAMPLE
        with sample.open("w", encoding="utf-8") as file:
            for sentences, _ in self._map(task, "Sampling text for the vocabulary"):
                file.writelines(f"{sentence}\n" for sentence in sentences)
        if sample.stat().st_size == 0:
            raise InputError("the input holds no text to train a vocabulary on")
        _logger.info(
            "Training %d pieces on %.1f MB.", config.vocab_size, sample.stat().st_size / 1e6
        )
        tokenizer = train_sentencepiece(
            sample,
            vocab_size=config.vocab_size,
            seed=config.seed,
            lower_case=lower_case,
            keep_accents=keep_accents,
        )
        sample.unlink()
        return tokenizer

    def _map(self, task: Any, what: str, skip: int = 0) -> Generator[Any, None, None]:
        """The task's results for all chunks but the first `skip`, under a progress bar."""
        self._reading = Reading()
        total = sum(file.size for files in self._files for file in files)
        chunks = deal_chunks(self._config.sources, self._files, self._reading)
        with tqdm(total=total, desc=what, unit="B", unit_scale=True, smoothing=0.05) as bar:
            for _ in range(skip):
                chunk: Chunk | None = next(chunks, None)
                bar.update((chunk.bytes_read if chunk else total) - bar.n)
            results = map_in_order(task, chunks, self._config.num_processes)
            with contextlib.closing(results):
                for result in results:
                    yield result
                    bar.update(result[-1] - bar.n)
            bar.update(total - bar.n)

    def _encode(self, journal: Journal, vocab_size: int) -> None:
        """Encodes all documents, or those that the journal does not count yet."""
        work = self._work
        train, staged = (
            SplitWriter(path, vocab_size, position=journal.positions.get(path.name))
            for path in (self._corpus / TRAIN, work / _STAGED)
        )
        document_hashes, train_hashes, staged_hashes = (
            HashLog(work / name, journal.positions.get(name))
            for name in (_DOCUMENT_HASHES, _TRAIN_HASHES, _STAGED_HASHES)
        )
        writers = (train, staged, document_hashes, train_hashes, staged_hashes)
        seen = SeenHashes()
        for hashes in read_hashes(document_hashes.path):
            seen.add(hashes)

        def save() -> None:
            journal.positions = {writer.path.name: writer.position() for writer in writers}
            journal.save(work)

        task = EncodingTask(self._splitting, self._corpus / TOKENIZER_DIRECTORY)
        encoded: EncodedChunk
        try:
            for encoded in self._map(task, "Encoding", skip=journal.chunks):
                is_new = seen.add(encoded.document_hashes)
                held_out = is_held_out(encoded.document_hashes, self._config.held_out)
                documents, sentences = select_documents(encoded, is_new & ~held_out)
                train.append(documents)
                train_hashes.append(sentences[sentences != NOT_HASHED])
                documents, sentences = select_documents(encoded, is_new & held_out)
                staged.append(documents)
                staged_hashes.append(sentences)
                document_hashes.append(encoded.document_hashes[is_new])
                journal.duplicates += int(np.count_nonzero(~is_new))
                journal.chunks += 1
                if journal.chunks % _CHUNKS_BETWEEN_SAVES == 0:
                    save()
            save()
        finally:
            for writer in writers:
                writer.close()

    def _finish(self, tokenizer: Tokenizer, counted: Mapping[str, int]) -> None:
        """Describes the corpus and gives it its name."""
        output = self._output
        metadata = describe_files(
            self._corpus,
            vocab_size=tokenizer.vocab_size,
            sources={source.name: source.weight for source in self._config.sources},
            settings=self._config.describe(self._files),
            versions=library_versions(),
        )
        if not metadata.splits[TRAIN]["documents"]:
            raise InputError("the input holds no text for training")
        reading = self._reading
        report = {
            **counted,
            "cut_documents": reading.cut_documents,
            "replaced_lines": reading.replaced_lines,
            "skipped_lines": reading.skipped_lines,
        }
        corpus = Corpus(self._corpus, metadata, open_splits(self._corpus, metadata))
        report |= describe_training_text(corpus, tokenizer)
        write_metadata(self._corpus, dataclasses.replace(metadata, report=report))
        sync(self._corpus)
        replaced = output.with_name(output.name + ".replaced")
        if output.exists():
            output.rename(replaced)
        self._corpus.rename(output)
        sync(output.parent)
        for leftover in (replaced, self._partial):
            if leftover.exists():
                shutil.rmtree(leftover)


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Keeps other builds away from a directory; the lock dies with the process."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"another process is building in {directory}") from None
    finally:
        os.close(descriptor)


def select_documents(
    encoded: EncodedChunk, mask: np.ndarray
) -> tuple[EncodedDocuments, UInt64[np.ndarray, " sentences"]]:
    """Some of a chunk's documents, and the hashes of their sentences."""
    kept = np.repeat(mask, encoded.documents.sentence_counts)
    return keep_sentences(encoded.documents, kept), encoded.sentence_hashes[kept]
