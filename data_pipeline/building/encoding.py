"""Sentence splitting and encoding of documents, in blocks, by worker processes."""

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, UInt64

from data_pipeline.building.deduplication import SignedBlock, hash_sentences
from data_pipeline.building.held_out import is_held_out
from data_pipeline.building.selection.documents import SelectedDocuments, Selection, Selector
from data_pipeline.building.selection.filters import Rejections
from data_pipeline.building.selection.minhash import MinHash
from data_pipeline.building.writer import EncodedDocuments
from data_pipeline.errors import InputError
from data_pipeline.sources.docstrings import read_documentation
from data_pipeline.sources.documents import Document, Source, SourceFormat
from data_pipeline.sources.sentences import SentenceSplitter
from data_pipeline.sources.text_files import InputFile, ReadingProgress
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.normalization import normalize

_BLOCK_CHARACTERS = 1 << 20

_Item = TypeVar("_Item")


class DocumentBlock(NamedTuple):
    """Some documents of one source, the unit of work of a worker process."""

    source: int
    documents: list[Document]
    places: list[str]  # the file of each document
    files: list[InputFile]  # of installed documentation, slow to read, so the worker reads them
    bytes_read: int  # of the whole input, up to the end of this block

    def select(self, selector: Selector) -> SelectedDocuments:
        """Return those of the documents that are selected."""
        documents, places = [*self.documents], [*self.places]
        for file in self.files:
            found = read_documentation(file)
            documents += found
            places += [file.name] * len(found)
        return selector.select(documents, places, self.source)


class EncodedBlock(NamedTuple):
    """The documents of a block as ids, without those that have no tokens.

    The parts of an overlong sentence count as sentences.
    """

    documents: EncodedDocuments
    document_hashes: UInt64[np.ndarray, " documents"]
    sentence_hashes: UInt64[np.ndarray, " sentences"]  # NOT_HASHED for short ones
    rejected: Rejections
    near_duplicates: dict[str, int]  # see `SelectedDocuments`
    bytes_read: int

    def select(
        self, mask: Bool[np.ndarray, " documents"]
    ) -> tuple[EncodedDocuments, UInt64[np.ndarray, " sentences"]]:
        """Return the documents of a mask, and the hashes of their sentences."""
        kept = np.repeat(mask, self.documents.sentence_counts)
        return self.documents.select_sentences(kept), self.sentence_hashes[kept]


class EncodingTask(NamedTuple):
    """Encoding of blocks."""

    splitter: SentenceSplitter
    tokenizer: Path  # a directory
    selection: Selection

    def start(self) -> Callable[[DocumentBlock], EncodedBlock]:
        """Load the tokenizer, and return the function that encodes a block."""
        tokenizer, selector = load_tokenizer(self.tokenizer), self.selection.start()

        def encode(block: DocumentBlock) -> EncodedBlock:
            documents, hashes, rejected, near_duplicates = block.select(selector)
            split = [self.splitter.split(document, block.source) for document in documents]
            sentences = list(itertools.chain.from_iterable(split))
            tokens, lengths = tokenizer.encode_lines(list(itertools.chain.from_iterable(sentences)))
            # All parts of a sentence have the hash of the whole.
            sentence_of = np.repeat(np.arange(len(sentences)), list(map(len, sentences)))
            whole = np.bincount(sentence_of, lengths, minlength=len(sentences)).astype(np.int32)
            sentence_hashes = hash_sentences(tokens, whole)[sentence_of]
            document_of = np.repeat(np.arange(len(split)), list(map(len, split)))[sentence_of]
            kept = lengths > 0
            counts = np.bincount(document_of[kept], minlength=len(split))
            hashes = hashes[counts > 0]
            lengths, counts = lengths[kept], counts[counts > 0]
            return EncodedBlock(
                EncodedDocuments(tokens, lengths, counts, np.full(len(counts), block.source)),
                hashes,
                sentence_hashes[kept],
                rejected,
                near_duplicates,
                block.bytes_read,
            )

        return encode


class SamplingTask(NamedTuple):
    """Sampling of normalized sentences from blocks, to train a vocabulary on."""

    splitter: SentenceSplitter
    lower_case: bool
    keep_accents: bool
    held_out: float  # fraction of all documents
    sampled: float  # fraction of the other documents
    selection: Selection

    def start(self) -> Callable[[DocumentBlock], tuple[list[str], int]]:
        """Return the function from a block to its sentences and `bytes_read`."""
        # The lowest hashes are held out, the next ones sampled.
        highest = min(1.0, self.held_out + self.sampled * (1 - self.held_out))
        options = {"lower_case": self.lower_case, "keep_accents": self.keep_accents}
        selector = self.selection.start()

        def sample(block: DocumentBlock) -> tuple[list[str], int]:
            documents, hashes, *_ = block.select(selector)
            is_sampled = is_held_out(hashes, highest) & ~is_held_out(hashes, self.held_out)
            sentences = (
                normalize(part, **options)
                for document in itertools.compress(documents, is_sampled)
                for sentence in self.splitter.split(document, block.source)
                for part in sentence
            )
            return list(filter(None, sentences)), block.bytes_read

        return sample


class SignatureTask(NamedTuple):
    """Signatures of blocks, to find near-duplicates by."""

    selection: Selection
    minhash: MinHash

    def start(self) -> Callable[[DocumentBlock], SignedBlock]:
        """Return the function from a block to the signatures of its documents."""
        selector = self.selection.start()

        def sign(block: DocumentBlock) -> SignedBlock:
            documents, hashes, *_ = block.select(selector)
            is_signed, bands = self.minhash.sign(documents)
            return SignedBlock(hashes[is_signed], bands, block.bytes_read)

        return sign


# A function of blocks, in a form that can be sent to worker processes.
BlockTask = EncodingTask | SamplingTask | SignatureTask


def read_blocks(
    sources: Sequence[Source], files: Sequence[list[InputFile]], progress: ReadingProgress
) -> Iterator[DocumentBlock]:
    """Read all documents of all sources in blocks, always cut in the same places."""
    for number, (source, inputs) in enumerate(zip(sources, files, strict=True)):
        if source.format is SourceFormat.DOCSTRINGS:
            for group in _group(inputs, lambda file: file.size):
                progress.finish(sum(file.size for file in group))
                yield DocumentBlock(number, [], [], group, progress.bytes_read)
        else:
            documents = source.read(inputs, progress)
            placed = ((document, progress.file) for document in documents)
            for batch in _group(placed, lambda one: sum(map(len, one[0]))):
                texts, places = map(list, zip(*batch, strict=True))
                yield DocumentBlock(number, texts, places, [], progress.bytes_read)


def map_in_order(
    task: BlockTask, blocks: Iterator[DocumentBlock], num_processes: int
) -> Generator[Any, None, None]:
    """Apply a task to each block, and yield the results in the order of the blocks.

    With one process the work is done in this one. The number of pending blocks is bounded, so
    memory does not grow with the input.

    Raises:
        InputError: a worker process was killed.
    """
    if num_processes == 1:
        yield from map(task.start(), blocks)
        return
    # Forking is unsafe once a library has started threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, context, initializer=_start, initargs=(task,))
    pending: deque[Future[Any]] = deque()
    try:
        for block in blocks:
            pending.append(pool.submit(_work, block))
            if len(pending) > 2 * num_processes:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for lack of memory: set --num_processes lower "
            f"than {num_processes}; run the same command again to resume"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[[DocumentBlock], Any]  # of this worker process


def _start(task: BlockTask) -> None:
    global _function
    _function = task.start()


def _work(block: DocumentBlock) -> Any:
    return _function(block)


def _group(items: Iterable[_Item], size_of: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Group items until each group is about as large as a block should be."""
    group: list[_Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= _BLOCK_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group
