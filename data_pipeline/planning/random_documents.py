"""Pairs whose second segment comes from a random other document.

BERT's next-sentence objective needs them. The released generator also makes them from chunks of a
single sentence for any objective.
"""

import numpy as np
from jaxtyping import Bool, Int64

from data_pipeline import randomness
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.planning.pairs import PAIR


class RandomDocumentSampler:
    """Samples a second segment from another document for chunks of a plan.

    Samples are functions of the key, the beginning of the chunk, and which reading of its document
    this is.

    Args:
        index: the sentences of the documents, which are numbered from 0.
        num_documents: the number of documents.
        first_document: number of the first document, in the numbering used by `attach`.
        key: the key of the stream of random numbers.
    """

    def __init__(
        self, index: SentenceIndex, num_documents: int, *, first_document: int = 0, key: int
    ) -> None:
        self._index = index
        self._num_documents = num_documents
        self._first_document = first_document
        self._key = key

    def split(
        self,
        sentences: Int64[np.ndarray, " chunks"],
        parts: Int64[np.ndarray, " chunks"],
        sizes: Int64[np.ndarray, " chunks"],
        readings: Int64[np.ndarray, " chunks"],
    ) -> tuple[Bool[np.ndarray, " chunks"], Int64[np.ndarray, " chunks"]]:
        """Select the chunks whose second segment is random under the next-sentence objective.

        A chunk of one sentence always gets a random segment, others with probability one half.

        Args:
            sentences: number of each chunk's first sentence.
            parts: which part of that sentence the chunk begins with; 0 unless the sentence is long.
            sizes: number of sentences in each chunk; each part of a long sentence counts.
            readings: which reading of its document each chunk belongs to.

        Returns:
            A mask of the selected chunks, and how many sentences of each remain as the first
            segment: drawn uniformly from 1 to all but one.
        """
        bits = randomness.random_bits(self._key, sentences, readings, 2 * parts)
        kept = 1 + randomness.scale_bits(bits[:, 1], np.maximum(sizes - 1, 1))
        return (sizes == 1) | (bits[:, 0] < 2**31), kept

    def attach(
        self,
        pairs: np.ndarray,
        parts: Int64[np.ndarray, " pairs"],
        documents: Int64[np.ndarray, " pairs"],
        readings: Int64[np.ndarray, " pairs"],
        targets: Int64[np.ndarray, " pairs"],
    ) -> None:
        """Fill in the second segment of pairs, in place.

        The segment starts at a random sentence of a random other document, and takes sentences
        until the pair has its target number of tokens or the document ends.

        Args:
            pairs: records of type `PAIR` with their first segment.
            parts: which part of its first sentence each pair begins with, as in `split`.
            documents: the document of each pair.
            readings: which reading of its document each pair belongs to.
            targets: number of tokens that each pair should have.
        """
        assert pairs.dtype == PAIR
        bits = randomness.random_bits(self._key, pairs["sentence"], readings, 2 * parts + 1)
        step = 1 + randomness.scale_bits(bits[:, 0], max(self._num_documents - 1, 1))
        other = (documents - self._first_document + step) % self._num_documents
        first = self._index.first_sentences(other)
        last = self._index.first_sentences(other + 1)
        begin = first + randomness.scale_bits(bits[:, 1], last - first)
        start = self._index.addresses(begin)
        wanted = start + np.maximum(targets - pairs["length"], 1)

        end = begin + 1
        address = self._index.addresses(end)
        while len(short := np.flatnonzero((address < wanted) & (end < last))):
            end[short] += 1
            address[short] = self._index.addresses(end[short])
        pairs["other_start"] = start
        pairs["other_length"] = address - start
