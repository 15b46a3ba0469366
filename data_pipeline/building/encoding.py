"""Sentence splitting and encoding of documents, in blocks, by worker processes."""

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import UInt64

from data_pipeline.building.deduplication import SignedBlock
from data_pipeline.building.parts import DocumentBlock
from data_pipeline.building.selection.documents import SelectedDocuments, Selection
from data_pipeline.building.selection.filters import Rejections
from data_pipeline.building.selection.hashes import hash_sentences
from data_pipeline.building.selection.minhash import MinHash
from data_pipeline.building.splits.blocks import (
    EncodedBlock,
    EncodedDocuments,
    block_file,
    write_block,
)
from data_pipeline.building.splits.held_out import is_held_out
from data_pipeline.errors import InputError
from data_pipeline.sources.documents import Document, Source
from data_pipeline.sources.sentences import SentenceSplitter
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.normalization import normalize
from data_pipeline.tokenizers.tokenizer import Tokenizer


class BlockSummary(NamedTuple):
    """Information about a block that the main process needs from the worker that wrote it."""

    document_hashes: UInt64[np.ndarray, " documents"]
    rejected: Rejections
    near_duplicates: dict[str, int]  # see `SelectedDocuments`
    faults: Counter[str]
    bytes_read: int


class SampledBlock(NamedTuple):
    """Sentences sampled from a block."""

    sentences: list[str]
    bytes_read: int


class Encoder(NamedTuple):
    """A sentence splitter and a tokenizer, which together encode documents."""

    splitter: SentenceSplitter
    tokenizer: Tokenizer

    def encode(
        self,
        documents: Sequence[Document],
        hashes: UInt64[np.ndarray, " documents"],
        source: int,
    ) -> EncodedBlock:
        """Split the documents of a source into sentences, encode them, and hash the sentences.

        Args:
            documents: documents of one source.
            hashes: hashes of their texts.
            source: the number of the source.
        """
        split = [self.splitter.split(document, source) for document in documents]
        sentences = list(itertools.chain.from_iterable(split))
        lines = list(itertools.chain.from_iterable(sentences))
        tokens, lengths = self.tokenizer.encode_lines(lines)
        # All parts of a cut sentence get the hash of the whole sentence.
        sentence_of = np.repeat(np.arange(len(sentences)), list(map(len, sentences)))
        whole = np.bincount(sentence_of, lengths, minlength=len(sentences)).astype(np.int32)
        sentence_hashes = hash_sentences(tokens, whole)[sentence_of]
        document_of = np.repeat(np.arange(len(split)), list(map(len, split)))[sentence_of]
        kept = lengths > 0
        counts = np.bincount(document_of[kept], minlength=len(split))
        hashes = hashes[counts > 0]
        lengths, counts = lengths[kept], counts[counts > 0]
        return EncodedBlock(
            EncodedDocuments(tokens, lengths, counts, np.full(len(counts), source)),
            hashes,
            sentence_hashes[kept],
        )


@dataclasses.dataclass(frozen=True)
class EncodingTask:
    """A task that encodes blocks into files.

    Attributes:
        sources: the sources of the build.
        selection: which documents to keep.
        splitter: the sentence splitter.
        tokenizer: the directory of the tokenizer.
        fingerprint: the fingerprint of the tokenizer.
        directory: the directory to write the files to.
    """

    sources: tuple[Source, ...]
    selection: Selection
    splitter: SentenceSplitter
    tokenizer: Path
    fingerprint: str
    directory: Path

    def __call__(self, block: DocumentBlock) -> BlockSummary:
        """Encode a block into its file."""
        (documents, hashes, rejected, near_duplicates), faults = block.select(
            self.sources, self.selection
        )
        tokenizer = load_once(self.tokenizer, self.fingerprint)
        encoded = Encoder(self.splitter, tokenizer).encode(documents, hashes, block.source)
        path = block_file(self.directory, block.number)
        write_block(epath.Path(path), encoded, tokenizer.vocab_size)
        return BlockSummary(
            encoded.document_hashes, rejected, near_duplicates, faults, block.bytes_read
        )


@dataclasses.dataclass(frozen=True)
class SamplingTask:
    """A task that samples normalized sentences from blocks, to train a vocabulary on."""

    sources: tuple[Source, ...]
    selection: Selection
    splitter: SentenceSplitter
    lower_case: bool
    keep_accents: bool
    held_out: float  # fraction of all documents
    sampled: float  # fraction of the remaining documents

    def __call__(self, block: DocumentBlock) -> SampledBlock:
        """Sample sentences of a block."""
        selected, _ = block.select(self.sources, self.selection)
        return SampledBlock(self.sample(selected, block.source), block.bytes_read)

    def sample(self, selected: SelectedDocuments, source: int) -> list[str]:
        """Return the sentences sampled from documents of a source."""
        # Documents with the lowest hashes are held out; the next lowest are sampled.
        highest = min(1.0, self.held_out + self.sampled * (1 - self.held_out))
        options = {"lower_case": self.lower_case, "keep_accents": self.keep_accents}
        documents, hashes, *_ = selected
        is_sampled = is_held_out(hashes, highest) & ~is_held_out(hashes, self.held_out)
        sentences = (
            normalize(part, **options)
            for document in itertools.compress(documents, is_sampled)
            for sentence in self.splitter.split(document, source)
            for part in sentence
        )
        return list(filter(None, sentences))


@dataclasses.dataclass(frozen=True)
class SignatureTask:
    """A task that computes the signatures of blocks, from which near-duplicates are found."""

    sources: tuple[Source, ...]
    selection: Selection
    minhash: MinHash

    def __call__(self, block: DocumentBlock) -> SignedBlock:
        """Return the signatures of a block's documents."""
        (documents, hashes, *_), _ = block.select(self.sources, self.selection)
        is_signed, bands = self.minhash.sign(documents)
        return SignedBlock(hashes[is_signed], bands, block.bytes_read)


@functools.lru_cache(maxsize=1)
def load_once(directory: Path, fingerprint: str) -> Tokenizer:
    """Load a tokenizer once per process, since its word cache grows from block to block."""
    tokenizer = load_tokenizer(directory)
    if tokenizer.fingerprint != fingerprint:
        raise InputError(f"{directory} has changed since the build began: start it again")
    return tokenizer
