"""Hashes of documents and sentences, and sorted arrays of them."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Int32, UInt64

# Shorter sentences ("See also the list below.") recur by chance and leak nothing.
LONG_SENTENCE_TOKENS = 10

# Stands for sentences that are too short to matter.
NOT_HASHED = 0


def contains(
    sorted_hashes: UInt64[np.ndarray, " m"], hashes: UInt64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Return a mask of the hashes that are in the sorted array."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    at = np.searchsorted(sorted_hashes, hashes)
    at[at == len(sorted_hashes)] = 0
    found: np.ndarray = sorted_hashes[at] == hashes
    return found


def hash_documents(documents: Iterable[Sequence[str]]) -> UInt64[np.ndarray, " documents"]:
    """Hash the text of each document, independent of other documents and of the encoding."""
    digests = [blake2b("\n".join(d).encode(), digest_size=8).digest() for d in documents]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def hash_sentences(
    tokens: Int32[np.ndarray, " tokens"], lengths: Int32[np.ndarray, " sentences"]
) -> UInt64[np.ndarray, " sentences"]:
    """Hash the ids of each long sentence; the others get NOT_HASHED."""
    data = tokens.astype("<u4").tobytes()
    ends = 4 * np.cumsum(lengths, dtype=np.int64)
    is_long = lengths >= LONG_SENTENCE_TOKENS
    spans = zip((ends - 4 * lengths)[is_long].tolist(), ends[is_long].tolist(), strict=True)
    digests = [blake2b(data[start:end], digest_size=8).digest() for start, end in spans]
    hashes = np.full(len(lengths), NOT_HASHED, np.uint64)
    hashes[is_long] = np.frombuffer(b"".join(digests), "<u8")
    return hashes
