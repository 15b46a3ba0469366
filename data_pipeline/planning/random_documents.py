"""Pairs whose second segment comes from a random other document.

BERT's next-sentence objective needs them, and the released generator makes them of chunks of a
single sentence for any objective.
"""

import numpy as np
from jaxtyping import Bool, Int64

from data_pipeline import randomness
from data_pipeline.corpus.sentence_index import SentenceIndex
from data_pipeline.planning.pairs import PAIR


class RandomDocumentSampler:
    """Samples a second segment from another document for chunks of a plan.

    Samples are functions of the key, of where the chunk begins and of which reading of its document
    this is.

    Args:
        index: of the documents, numbered from 0.
        num_documents: of them.
        first_document: the number of the first one where `attach` is given documents.
        key: of the stream of random numbers.
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

        A chunk of one sentence always has a random one, others with probability one half.

        Args:
            sentences: number of each chunk's first sentence.
            parts: which part of that sentence the chunk begins with, 0 unless it is a long one.
            sizes: sentences of each chunk, the parts of a long one counted apart.
            readings: which reading of its document the chunk belongs to.

        Returns:
            True for each selected chunk, and the number of its sentences that remain as the first
            segment: uniformly 1 to all but one.
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

        It starts at a random sentence of a random other document, and takes sentences until the
        pair has its target number of tokens or the document ends.

        Args:
            pairs: records of type `PAIR` with their first segment.
            parts: which part of its first sentence each begins with, as in `split`.
            documents: the document of each.
            readings: which reading of its document each belongs to.
            targets: tokens that the pair should have.
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
