"""Encoded documents in files: workers write blocks, which later become shards."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Int64, UInt64

from data_pipeline.corpus.splits import OFFSET_DTYPE, SOURCE_DTYPE, token_dtype_for
from data_pipeline.errors import InputError
from data_pipeline.remote import new_binary_file

_HASH_DTYPE = np.dtype("<u8")


class EncodedDocuments(NamedTuple):
    """D documents with S sentences in total, concatenated.

    Example: two documents `[[[5, 6], [7]], [[8]]]`, the first with two sentences, have tokens
    `[5, 6, 7, 8]`, sentence_lengths `[2, 1, 1]` and sentence_counts `[2, 1]`.
    """

    tokens: np.ndarray  # integers [tokens]
    sentence_lengths: np.ndarray  # integers [S], number of tokens in each sentence, at least 1
    sentence_counts: np.ndarray  # integers [D], number of sentences in each document, at least 1
    sources: np.ndarray  # integers [D]

    def select_sentences(self, mask: Bool[np.ndarray, " sentences"]) -> "EncodedDocuments":
        """Keep the sentences selected by a mask, and the documents that have any of them.

        Example: for `[[[5, 6], [7]], [[8]]]`, the mask `[True, False, False]` keeps `[[[5, 6]]]`.
        """
        document_of = np.repeat(np.arange(len(self.sources)), self.sentence_counts)
        counts = np.bincount(document_of[mask], minlength=len(self.sources))
        return EncodedDocuments(
            self.tokens[np.repeat(mask, self.sentence_lengths)],
            self.sentence_lengths[mask],
            counts[counts > 0],
            self.sources[counts > 0],
        )

    def slice(self, first: int, last: int) -> "EncodedDocuments":
        """Return the documents from `first` up to but not including `last`."""
        sentences = np.concatenate([[0], np.cumsum(self.sentence_counts, dtype=np.int64)])
        tokens = np.concatenate([[0], np.cumsum(self.sentence_lengths, dtype=np.int64)])
        begin, end = sentences[first], sentences[last]
        return EncodedDocuments(
            self.tokens[tokens[begin] : tokens[end]],
            self.sentence_lengths[begin:end],
            self.sentence_counts[first:last],
            self.sources[first:last],
        )


class DocumentSizes(NamedTuple):
    """The amount of text in each of D documents."""

    tokens: Int64[np.ndarray, " documents"]
    sentences: Int64[np.ndarray, " documents"]


class EncodedBlock(NamedTuple):
    """Encoded documents of one source, without documents that have no tokens.

    Each part of an overlong sentence counts as a sentence.
    """

    documents: EncodedDocuments
    document_hashes: UInt64[np.ndarray, " documents"]
    sentence_hashes: UInt64[np.ndarray, " sentences"]  # NOT_HASHED for short ones

    def sizes(self, mask: Bool[np.ndarray, " sentences"]) -> DocumentSizes:
        """Return the sizes of the documents that `select_sentences` keeps."""
        documents = self.documents
        document_of = np.repeat(np.arange(len(documents.sources)), documents.sentence_counts)[mask]
        sentences = np.bincount(document_of, minlength=len(documents.sources))
        lengths = documents.sentence_lengths[mask]
        tokens = np.bincount(document_of, lengths, minlength=len(documents.sources))
        kept = sentences > 0
        return DocumentSizes(tokens[kept].astype(np.int64), sentences[kept].astype(np.int64))


def write_block(path: epath.Path, block: EncodedBlock, vocab_size: int) -> None:
    """Write a block to a file, which is either complete or absent."""
    documents = block.documents
    with new_binary_file(path) as file:
        for array, dtype in (
            (documents.sources, SOURCE_DTYPE),
            (block.document_hashes, _HASH_DTYPE),
            (documents.sentence_counts, OFFSET_DTYPE),
            (documents.sentence_lengths, OFFSET_DTYPE),
            (block.sentence_hashes, _HASH_DTYPE),
            (documents.tokens, token_dtype_for(vocab_size)),  # last: not all readers need them
        ):
            array = np.ascontiguousarray(array, dtype)
            header = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(file, header)
            file.write(array.tobytes())  # unlike `write_array`, tells the reason if it fails


def read_block(path: epath.Path, *, with_tokens: bool) -> EncodedBlock:
    """Read a block.

    Args:
        path: the file.
        with_tokens: False to leave out the tokens, which are most of the file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with path.open("rb") as file:
            sources, document_hashes, counts, lengths, sentence_hashes = (
                _read_array(file) for _ in range(5)
            )
            tokens = _read_array(file) if with_tokens else np.zeros(0, np.int32)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, and build again") from None
    documents = EncodedDocuments(tokens, lengths.astype(np.int64), counts.astype(np.int64), sources)
    return EncodedBlock(
        documents, document_hashes.astype(np.uint64), sentence_hashes.astype(np.uint64)
    )


def _read_array(file: Any) -> np.ndarray:
    array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def block_file(directory: Path, number: int) -> Path:
    """Return the file of a block; each directory holds a thousand blocks."""
    return directory / f"{number // 1000:06d}" / f"{number:09d}.block"
