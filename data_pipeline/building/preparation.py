"""The start and the end of every build: inputs, vocabulary and metadata."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.durable_files import sync
from data_pipeline.building.config import BuildConfig
from data_pipeline.building.encoding import SamplingTask
from data_pipeline.building.journal import Journal
from data_pipeline.building.report import describe_corpus, describe_training_text
from data_pipeline.building.selection.documents import Selection
from data_pipeline.building.selection.filters import find_filters
from data_pipeline.building.splits.measurement import SplitReport
from data_pipeline.corpus.metadata import METADATA_FILE, CorpusMetadata
from data_pipeline.corpus.splits import TRAIN
from data_pipeline.errors import InputError
from data_pipeline.sources.sentences import SentenceSplitter
from data_pipeline.terminal import elapsed_time, format_size
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.sentencepiece import train_sentencepiece
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.verification import Files


class PreparedBuild:
    """A build whose inputs, filters and given tokenizer have been found.

    Attributes:
        config: the configuration, with the text columns.
        files: the files of each source.
        total_bytes: the size of all files.
        given_tokenizer: the tokenizer that `config` names, if any.
        selection: which documents to keep.
        splitter: the sentence splitter.
    """

    def __init__(self, config: BuildConfig) -> None:
        """Find the inputs.

        Raises:
            InputError: an input is missing.
        """
        self.config, self.files = config, files = config.find_inputs()
        self.total_bytes = sum(file.size for part in files for file in part)
        self.given_tokenizer: Tokenizer | None = None
        if config.tokenizer is not None:
            self.given_tokenizer = load_tokenizer(
                config.tokenizer, lower_case=config.lower_case, keep_accents=config.keep_accents
            )
        names = tuple(source.name for source in config.sources)
        self.selection = Selection(names, find_filters(config.filter, names[0]))
        formats = tuple(source.format for source in config.sources)
        self.splitter = SentenceSplitter(config.language, formats)

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on."""
        filters = self.selection.filters
        return self.config.describe_exactly(self.files, self.given_tokenizer, filters)

    @property
    def sampling_task(self) -> SamplingTask:
        """The task that samples text to train a vocabulary on."""
        config = self.config
        sampled = min(1.0, config.vocabulary_bytes / max(1, self.total_bytes))
        return SamplingTask(
            *(config.sources, self.selection, self.splitter, *self._normalization),
            held_out=config.held_out,
            sampled=sampled,
        )

    @property
    def _normalization(self) -> tuple[bool, bool]:
        return self.config.lower_case is not False, bool(self.config.keep_accents)

    @property
    def _kept(self) -> str:
        """The end of a message that says that there is no text."""
        return " that --filter keeps" if self.selection.filters else ""

    def train_tokenizer(self, sample: Path) -> Tokenizer:
        """Train a vocabulary on a file of sampled sentences, and remove the file.

        Raises:
            InputError: the file is empty.
        """
        sample_bytes = sample.stat().st_size
        if sample_bytes == 0:
            raise InputError(f"the input holds no text to train a vocabulary on{self._kept}")
        config, size = self.config, format_size(sample_bytes)
        lower_case, keep_accents = self._normalization
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

    def describe(
        self,
        tokenizer: Tokenizer,
        tokenizer_files: Files,
        splits: Mapping[str, SplitReport],
        journal: Journal,
        removed: Mapping[str, int],
    ) -> CorpusMetadata:
        """Return the metadata of the corpus.

        Args:
            tokenizer: the tokenizer of the corpus.
            tokenizer_files: path within the corpus -> bytes and SHA-256.
            splits: the reports of both splits.
            journal: the journal, with the counts of documents.
            removed: counts of held-out text that was removed.

        Raises:
            InputError: there is no text for training.
        """
        if not splits[TRAIN].num_shards:
            raise InputError(f"the input holds no text for training{self._kept}")
        return describe_corpus(
            tokenizer_files,
            splits,
            vocab_size=tokenizer.vocab_size,
            sources={source.name: source.weight for source in self.config.sources},
            settings=self.config.describe(self.files, self.selection.filters),
            versions=self.config.versions,
            report={
                **journal.report(removed, near_duplicates=self.config.minhash is not None),
                **describe_training_text(splits[TRAIN].text, tokenizer),
            },
        )


def require_free(output: Path, *, overwrite: bool) -> None:
    """Check that a corpus may be written to a local path.

    Raises:
        InputError: the path holds a corpus and `overwrite` is False, or it holds something else.
    """
    if output.exists() and not overwrite:
        raise InputError(
            f"--output_dir={output} exists already; --overwrite replaces a corpus once the new one "
            "is complete"
        )
    if output.exists() and not (output / METADATA_FILE).is_file():
        raise InputError(
            f"--output_dir={output} exists and is not a corpus, so it is not overwritten"
        )


def move_into_place(corpus: Path, output: Path, partial: Path) -> None:
    """Move a complete corpus to its final path, and remove everything used to build it."""
    sync(corpus)
    replaced = output.with_name(output.name + ".replaced")
    if output.exists():
        output.rename(replaced)
    corpus.rename(output)
    sync(output.parent)
    for leftover in (replaced, partial):
        if leftover.exists():
            shutil.rmtree(leftover)
