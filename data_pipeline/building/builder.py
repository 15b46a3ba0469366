"""Building a corpus: a vocabulary, encoded and deduplicated documents, held-out text, metadata."""

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.durable_files import sync
from data_pipeline.building.config import BuildConfig
from data_pipeline.building.deduplication import (
    NEAR_DUPLICATES_FILE,
    NOT_HASHED,
    HashLog,
    SeenHashes,
    read_hashes,
    write_near_duplicates,
)
from data_pipeline.building.encoding import (
    BlockTask,
    EncodedBlock,
    EncodingTask,
    SamplingTask,
    SignatureTask,
    map_in_order,
    read_blocks,
)
from data_pipeline.building.held_out import is_held_out, write_validation
from data_pipeline.building.journal import Journal, differing_setting
from data_pipeline.building.report import describe_corpus, describe_training_text
from data_pipeline.building.selection.documents import Selection
from data_pipeline.building.selection.filters import add_rejections, find_filters
from data_pipeline.building.writer import SplitWriter
from data_pipeline.corpus.metadata import METADATA_FILE
from data_pipeline.corpus.reader import map_corpus
from data_pipeline.corpus.splits import TRAIN, VALIDATION
from data_pipeline.errors import InputError
from data_pipeline.locks import lock
from data_pipeline.sources.sentences import SentenceSplitter
from data_pipeline.sources.text_files import ReadingProgress
from data_pipeline.terminal import ByteProgress, elapsed_time, format_size, say
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.sentencepiece import train_sentencepiece
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer

_STAGED = "held_out"  # held-out documents, with the sentences that training has too
_DOCUMENT_HASHES, _TRAIN_HASHES, _STAGED_HASHES = (
    f"{name}.hashes" for name in ("documents", "train_sentences", "held_out_sentences")
)
_SAMPLE = "vocabulary_sample.txt"
_BLOCKS_PER_SAVE = 16  # about 16 MB of text

_logger = logging.getLogger(__name__)


class CorpusBuilder:
    """One build, from the inputs to a corpus directory.

    The corpus grows in `<output_dir>.partial`, which is renamed once it is complete. The result
    depends neither on the number of processes nor on how often the build was interrupted.
    """

    def __init__(self, config: BuildConfig) -> None:
        """Check the inputs, the given tokenizer and the output directory.

        Raises:
            InputError: an input is missing, or the output directory exists already.
        """
        config, self._files = config.find_inputs()
        self._config = config
        self._total_bytes = sum(file.size for files in self._files for file in files)
        self._given_tokenizer: Tokenizer | None = None
        if config.tokenizer is not None:
            self._given_tokenizer = load_tokenizer(
                config.tokenizer, lower_case=config.lower_case, keep_accents=config.keep_accents
            )
        self._output = Path(config.output_dir)
        if self._output.exists() and not config.overwrite:
            raise InputError(
                f"--output_dir={self._output} exists already; --overwrite replaces a corpus once "
                "the new one is complete"
            )
        if self._output.exists() and not (self._output / METADATA_FILE).is_file():
            raise InputError(
                f"--output_dir={self._output} exists and is not a corpus, so it is not overwritten"
            )
        self._partial = self._output.with_name(self._output.name + ".partial")
        # What becomes the corpus, and what is needed only to build it.
        self._corpus = self._partial / "corpus"
        self._work = self._partial / "work"
        names = tuple(source.name for source in config.sources)
        self._selection = Selection(names, find_filters(config.filter, names[0]))
        formats = tuple(source.format for source in config.sources)
        self._splitter = SentenceSplitter(config.language, formats)
        self._progress = ReadingProgress()

    def build(self) -> None:
        """Build the corpus, or resume building it.

        Raises:
            InputError: the input is not in the declared format, or holds no text.
            OSError: for example a full disk; the same command resumes the build later.
        """
        self._partial.mkdir(parents=True, exist_ok=True)
        with lock(self._partial, "build"):
            journal = self._open_journal()
            self._find_near_duplicates(journal)
            if not journal.has_tokenizer:
                tokenizer = self._given_tokenizer or self._train_tokenizer()
                tokenizer.save(self._corpus / TOKENIZER_DIRECTORY)
                journal.has_tokenizer = True
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
            self._finish(tokenizer, journal, removed)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the result depends on."""
        filters = self._selection.filters
        return self._config.describe_exactly(self._files, self._given_tokenizer, filters)

    @property
    def _kept(self) -> str:
        """The end of a message that there is no text."""
        return " that --filter keeps" if self._selection.filters else ""

    def _open_journal(self) -> Journal:
        """Return the journal of an earlier run with the same settings, or a new one."""
        settings = self.settings
        if self._work.exists():
            journal = Journal.load(self._work) if self._corpus.exists() else None
            reason: str | None = "it cannot be read"
            if journal:
                reason = differing_setting(journal.settings, settings)
                if reason is None:
                    for stray in self._corpus.rglob(".*"):  # of a file that was being written
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

    def _find_near_duplicates(self, journal: Journal) -> None:
        minhash = self._config.minhash
        if minhash is None:
            return
        if not journal.near_duplicates:
            task = SignatureTask(self._selection, minhash)
            blocks = self._map(task, "Hashing documents", skip=journal.signed_blocks)
            write_near_duplicates(
                blocks, minhash.bands, journal, self._work, blocks_per_save=_BLOCKS_PER_SAVE
            )
        path = self._work / NEAR_DUPLICATES_FILE
        self._selection = self._selection._replace(near_duplicates=path)

    def _train_tokenizer(self) -> Tokenizer:
        config = self._config
        lower_case = config.lower_case is not False
        keep_accents = bool(config.keep_accents)
        sampled = min(1.0, config.vocabulary_bytes / max(1, self._total_bytes))
        task = SamplingTask(
            self._splitter, lower_case, keep_accents, config.held_out, sampled, self._selection
        )
        sample = self._work / _SAMPLE
        with sample.open("w", encoding="utf-8") as file:
            for sentences, _ in self._map(task, "Sampling text for the vocabulary"):
                file.writelines(f"{sentence}\n" for sentence in sentences)
        sample_bytes = sample.stat().st_size
        if sample_bytes == 0:
            raise InputError(f"the input holds no text to train a vocabulary on{self._kept}")
        size = format_size(sample_bytes)
        with elapsed_time(f"Training a vocabulary of {config.vocab_size:,} tokens on {size}"):
            tokenizer = train_sentencepiece(
                sample,
                vocab_size=config.vocab_size,
                seed=config.seed,
                lower_case=lower_case,
                keep_accents=keep_accents,
            )
        sample.unlink()
        return tokenizer

    def _map(self, task: BlockTask, label: str, skip: int = 0) -> Generator[Any, None, None]:
        """Apply a task to all blocks but the first `skip`, and show the progress."""
        self._progress = ReadingProgress()
        total = self._total_bytes
        blocks = read_blocks(self._config.sources, self._files, self._progress)
        with ByteProgress(label, total) as progress:
            for _ in range(skip):
                block = next(blocks, None)
                progress.move_to(block.bytes_read if block else total)
            results = map_in_order(task, blocks, self._config.num_processes)
            with contextlib.closing(results):
                for result in results:
                    yield result
                    progress.move_to(result[-1])
            progress.move_to(total)

    def _encode(self, journal: Journal, vocab_size: int) -> None:
        """Encode all documents, or those after the journal's last block."""
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

        task = EncodingTask(self._splitter, self._corpus / TOKENIZER_DIRECTORY, self._selection)
        block: EncodedBlock
        try:
            for block in self._map(task, "Encoding", skip=journal.blocks):
                is_new = seen.add(block.document_hashes)
                held_out = is_held_out(block.document_hashes, self._config.held_out)
                documents, sentences = block.select(is_new & ~held_out)
                train.append(documents)
                train_hashes.append(sentences[sentences != NOT_HASHED])
                documents, sentences = block.select(is_new & held_out)
                staged.append(documents)
                staged_hashes.append(sentences)
                document_hashes.append(block.document_hashes[is_new])
                journal.duplicates += int(np.count_nonzero(~is_new))
                add_rejections(journal.rejected, block.rejected)
                for name, count in block.near_duplicates.items():
                    journal.near_duplicates[name] += count
                journal.blocks += 1
                if journal.blocks % _BLOCKS_PER_SAVE == 0:
                    save()
            save()
        finally:
            for writer in writers:
                writer.close()

    def _finish(self, tokenizer: Tokenizer, journal: Journal, removed: Mapping[str, int]) -> None:
        """Write the metadata, and move the corpus to the output directory."""
        metadata = describe_corpus(
            self._corpus,
            vocab_size=tokenizer.vocab_size,
            sources={source.name: source.weight for source in self._config.sources},
            settings=self._config.describe(self._files, self._selection.filters),
            versions=self._config.versions,
        )
        if not metadata.splits[TRAIN]["documents"]:
            raise InputError(f"the input holds no text for training{self._kept}")
        report = {
            "duplicate_documents": journal.duplicates,
            **({"rejected": journal.rejected} if journal.rejected else {}),
            **({"near_duplicates": journal.near_duplicates} if self._config.minhash else {}),
            **removed,
            "cut_documents": self._progress.cut_documents,
            "replaced_lines": self._progress.replaced_lines,
            "skipped_lines": self._progress.skipped_lines,
            **describe_training_text(map_corpus(self._corpus, metadata), tokenizer),
        }
        dataclasses.replace(metadata, report=report).save(self._corpus)
        sync(self._corpus)
        replaced = self._output.with_name(self._output.name + ".replaced")
        if self._output.exists():
            self._output.rename(replaced)
        self._corpus.rename(self._output)
        sync(self._output.parent)
        for leftover in (replaced, self._partial):
            if leftover.exists():
                shutil.rmtree(leftover)
