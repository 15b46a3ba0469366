"""Knowing text by its hash: which documents came before, which sentences stand on both sides."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int32, UInt64

# Shorter sentences ("See also the list below.") recur by chance and give nothing away.
LONG_SENTENCE_TOKENS = 10

# The hash of sentences that are too short to matter.
NOT_HASHED = 0


class SeenHashes:
    """A growing set of 64-bit hashes that costs 8 bytes each: 2 GB hold those of 200 million
    documents, of which one in a thousand such corpora would lose one by a collision."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # sorted, each more than twice as long as the next

    def add(self, hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Adds hashes and says which came for the first time.

        Example: `add([7, 8, 7])` is `[True, True, False]`, and `add([8, 9])` then
        `[False, True]`.
        """
        is_new = np.zeros(len(hashes), bool)
        is_new[np.unique(hashes, return_index=True)[1]] = True
        for run in self._runs:
            is_new &= ~contains(run, hashes)
        run = np.sort(hashes[is_new])
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]), kind="stable")
        if len(run):
            self._runs.append(run)
        return is_new


def contains(
    sorted_hashes: UInt64[np.ndarray, " m"], hashes: UInt64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Which of the hashes are among the sorted ones."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    at = np.searchsorted(sorted_hashes, hashes)
    at[at == len(sorted_hashes)] = 0
    found: np.ndarray = sorted_hashes[at] == hashes
    return found


def hash_documents(documents: Iterable[Sequence[str]]) -> UInt64[np.ndarray, " documents"]:
    """A hash of each document's text, the same whatever else a corpus holds and however it is
    encoded."""
    digests = [blake2b("\n".join(d).encode(), digest_size=8).digest() for d in documents]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def hash_sentences(
    tokens: Int32[np.ndarray, " tokens"], lengths: Int32[np.ndarray, " sentences"]
) -> UInt64[np.ndarray, " sentences"]:
    """A hash of the ids of each long sentence, NOT_HASHED for the others."""
    data = tokens.astype("<u4").tobytes()
    ends = 4 * np.cumsum(lengths, dtype=np.int64)
    is_long = lengths >= LONG_SENTENCE_TOKENS
    spans = zip((ends - 4 * lengths)[is_long].tolist(), ends[is_long].tolist(), strict=True)
    digests = [blake2b(data[start:end], digest_size=8).digest() for start, end in spans]
    hashes = np.full(len(lengths), NOT_HASHED, np.uint64)
    hashes[is_long] = np.frombuffer(b"".join(digests), "<u8")
    return hashes


def is_held_out(
    hashes: UInt64[np.ndarray, " documents"], fraction: float
) -> Bool[np.ndarray, " documents"]:
    """Which documents are kept for validation: those whose hash is in the lowest `fraction` of all
    possible ones, so that nothing but its own text decides about a document."""
    # In units of 2^-32, which every machine compares alike.
    return (hashes >> np.uint64(32)) < np.uint64(round(fraction * 2**32))
