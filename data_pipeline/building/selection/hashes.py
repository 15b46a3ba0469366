"""Hashes of documents, and sorted arrays of them."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, UInt64


def contains(
    sorted_hashes: UInt64[np.ndarray, " m"], hashes: UInt64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Return a mask of the hashes that are among the sorted ones."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    at = np.searchsorted(sorted_hashes, hashes)
    at[at == len(sorted_hashes)] = 0
    found: np.ndarray = sorted_hashes[at] == hashes
    return found


def hash_documents(documents: Iterable[Sequence[str]]) -> UInt64[np.ndarray, " documents"]:
    """Hash the text of each document, independently of other documents and of the encoding."""
    digests = [blake2b("\n".join(d).encode(), digest_size=8).digest() for d in documents]
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)
