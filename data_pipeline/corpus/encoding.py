"""What worker processes do: documents in, sentences and piece ids out, in the order they came."""

import itertools
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import sentencex

from data_pipeline.corpus.deduplication import hash_documents, hash_sentences, is_held_out
from data_pipeline.corpus.writer import EncodedDocuments
from data_pipeline.errors import InputError
from data_pipeline.sources.docstrings import read_documentation
from data_pipeline.sources.documents import Document, Source, SourceFormat
from data_pipeline.sources.text_files import InputFile, Reading
from data_pipeline.tokenizers.loading import load_tokenizer
from data_pipeline.tokenizers.normalization import normalize

_CHUNK_CHARACTERS = 1 << 20

_Result = TypeVar("_Result")


class Chunk(NamedTuple):
    """Some documents of one source, dealt to a worker together."""

    source: int
    documents: list[Document]
    files: list[InputFile]  # of documentation, which the worker reads itself since it takes long
    bytes_read: int  # of the whole input, up to the end of this chunk

    def read(self) -> list[Document]:
        """The documents."""
        found = itertools.chain.from_iterable(map(read_documentation, self.files))
        return [*self.documents, *found]


class EncodedChunk(NamedTuple):
    """The documents of a chunk as piece ids, those without any left out."""

    documents: EncodedDocuments
    document_hashes: np.ndarray  # uint64 [documents]
    sentence_hashes: np.ndarray  # uint64 [sentences], 0 for short ones
    bytes_read: int


class Splitting(NamedTuple):
    """How paragraphs become sentences."""

    language: str  # ISO code, such as en
    formats: tuple[SourceFormat, ...]  # of the sources


class EncodingTask(NamedTuple):
    """Chunks to ids."""

    splitting: Splitting
    tokenizer: Path  # a directory

    def start(self) -> Callable[[Chunk], EncodedChunk]:
        """Loads what is needed, once a process."""
        tokenizer = load_tokenizer(self.tokenizer)

        def encode(chunk: Chunk) -> EncodedChunk:
            documents = chunk.read()
            sentences = [split_sentences(d, chunk.source, self.splitting) for d in documents]
            tokens, lengths = tokenizer.encode_lines(list(itertools.chain.from_iterable(sentences)))
            document_of = np.repeat(np.arange(len(sentences)), list(map(len, sentences)))
            hashes = hash_documents(documents)
            counts = np.bincount(document_of[lengths > 0], minlength=len(sentences))
            lengths, hashes, counts = lengths[lengths > 0], hashes[counts > 0], counts[counts > 0]
            sources = np.full(len(counts), chunk.source)
            return EncodedChunk(
                EncodedDocuments(tokens, lengths, counts, sources),
                hashes,
                hash_sentences(tokens, lengths),
                chunk.bytes_read,
            )

        return encode


class SamplingTask(NamedTuple):
    """Chunks to the normalized sentences that a vocabulary is trained on."""

    splitting: Splitting
    lower_case: bool
    keep_accents: bool
    held_out: float  # share of the documents that are kept for validation
    share: float  # of the others, that are sampled

    def start(self) -> Callable[[Chunk], tuple[list[str], int]]:
        """Nothing has to be loaded."""

        def sample(chunk: Chunk) -> tuple[list[str], int]:
            documents = chunk.read()
            hashes = hash_documents(documents)
            # The lowest hashes are held out, the next ones sampled.
            highest = min(1.0, self.held_out + self.share * (1 - self.held_out))
            wanted = is_held_out(hashes, highest) & ~is_held_out(hashes, self.held_out)
            options = {"lower_case": self.lower_case, "keep_accents": self.keep_accents}
            sentences = (
                normalize(sentence, **options)
                for document, take in zip(documents, wanted, strict=True)
                if take
                for sentence in split_sentences(document, chunk.source, self.splitting)
            )
            return [sentence for sentence in sentences if sentence], chunk.bytes_read

        return sample


def split_sentences(document: Document, source: int, splitting: Splitting) -> Document:
    """The sentences of a document, none of them blank."""
    if splitting.formats[source] is SourceFormat.SENTENCES:
        return document
    return [
        stripped
        for paragraph in document
        for sentence in sentencex.segment(splitting.language, paragraph)
        if (stripped := sentence.strip())
    ]


def deal_chunks(
    sources: tuple[Source, ...], files: list[list[InputFile]], reading: Reading
) -> Iterator[Chunk]:
    """All documents of all sources, a chunk at a time, always cut in the same places."""
    for number, (source, inputs) in enumerate(zip(sources, files, strict=True)):
        if source.format is SourceFormat.DOCSTRINGS:
            for group in _group(iter(inputs), lambda file: file.size):
                reading.finish(sum(file.size for file in group))
                yield Chunk(number, [], group, reading.bytes_read)
        else:
            documents = source.read(inputs, reading)
            for batch in _group(documents, lambda document: sum(map(len, document))):
                yield Chunk(number, batch, [], reading.bytes_read)


def map_in_order(
    task: Any, chunks: Iterator[Chunk], num_processes: int
) -> Generator[Any, None, None]:
    """What `task.start()` makes of each chunk, in the order of the chunks.

    With one process the work is done here. Few chunks are under way at any time, so memory does
    not grow with the input.

    Raises:
        InputError: a worker process was killed.
    """
    if num_processes == 1:
        yield from map(task.start(), chunks)
        return
    # Forking is unsafe once a library has started threads.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_processes, context, initializer=_start, initargs=(task,))
    under_way: deque[Future[Any]] = deque()
    try:
        for chunk in chunks:
            under_way.append(pool.submit(_work, chunk))
            if len(under_way) > 2 * num_processes:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, perhaps for want of memory: give a smaller "
            f"--num_processes than {num_processes}; the same command goes on from here"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


_function: Callable[[Chunk], Any]  # of this worker process


def _start(task: Any) -> None:
    global _function
    _function = task.start()


def _work(chunk: Chunk) -> Any:
    return _function(chunk)


def _group(items: Iterator[_Result], size_of: Callable[[_Result], int]) -> Iterator[list[_Result]]:
    """Runs of items that together are about as large as a chunk should be."""
    group: list[_Result] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= _CHUNK_CHARACTERS:
            yield group
            group, size = [], 0
    if group:
        yield group
