"""MinHash signatures of documents: two documents are near-duplicates if they share a band.

Two documents whose sets of word n-grams have Jaccard similarity s share at least one of b bands of
r hashes with probability 1 - (1 - s^r)^b (Leskovec et al., Mining of Massive Datasets, 3.4).
FineWeb (Penedo et al., 2024) uses 5-grams of words, 14 bands and 8 hashes per band.
"""

import importlib.util
import re
from collections.abc import Sequence
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt32, UInt64

from data_pipeline.errors import InputError
from data_pipeline.sources.documents import Document

# A signature scheme that datasketch identifies by name, so that later versions keep it.
_SCHEME = "affine32"
MINHASH_LIBRARY = "datasketch"
_NGRAMS_PER_UPDATE = 512  # a table of so many n-grams by all hashes fits in a core's cache
_MULTIPLIER, _MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_WORD = re.compile(r"\w+")


class NearDuplicates(StrEnum):
    """Treatment of near-duplicates: keep all, or only the first document of each cluster."""

    NONE = "none"
    MINHASH = "minhash"


class MinHash(NamedTuple):
    """Signatures of documents by their word n-grams; can be sent to other processes."""

    ngram: int  # words
    bands: int
    band_size: int  # hashes
    seed: int

    def describe(self) -> dict[str, Any]:
        """Return everything that the signatures depend on, except the library's version."""
        return {"method": NearDuplicates.MINHASH.value, **self._asdict(), "scheme": _SCHEME}

    def collision_probability(self, similarity: float) -> float:
        """Return the probability that documents with this Jaccard similarity share a band."""
        return float(1 - (1 - similarity**self.band_size) ** self.bands)

    def sign(
        self, documents: Sequence[Document]
    ) -> tuple[Bool[np.ndarray, " documents"], UInt64[np.ndarray, "signed bands"]]:
        """Hash the bands of documents.

        Returns:
            A mask of the documents with at least `ngram` words, and the bands of those documents.
            Shorter documents have no near-duplicates.
        """
        from datasketch import MinHash as Signature

        empty = Signature(self.bands * self.band_size, self.seed, scheme=_SCHEME, hashfunc=int)
        words = WordHashes()
        signatures = []
        is_signed = np.zeros(len(documents), bool)
        for number, document in enumerate(documents):
            ngrams = hash_ngrams(words.hash("\n".join(document)), self.ngram)
            is_signed[number] = len(ngrams) > 0
            if len(ngrams):
                signature = empty.copy()
                for start in range(0, len(ngrams), _NGRAMS_PER_UPDATE):
                    signature.update_batch(ngrams[start : start + _NGRAMS_PER_UPDATE].tolist())
                signatures.append(signature.hashvalues)
        values = np.array(signatures, np.uint64).reshape(-1, self.bands, self.band_size)
        return is_signed, combine(values)


class WordHashes(dict[str, int]):
    """Hashes of words, each computed once."""

    def __missing__(self, word: str) -> int:
        self[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        return self[word]

    def hash(self, text: str) -> UInt64[np.ndarray, " words"]:
        """Hash the words of a text in lower case: runs of letters, digits and underscores."""
        words = _WORD.findall(text.lower())
        return np.fromiter(map(self.__getitem__, words), np.uint64, len(words))


def hash_ngrams(words: UInt64[np.ndarray, " words"], n: int) -> UInt32[np.ndarray, " ngrams"]:
    """Hash each run of n consecutive words; fewer than n words have no n-grams."""
    if len(words) < n:
        return np.zeros(0, np.uint32)
    ngrams = np.lib.stride_tricks.sliding_window_view(words, n)
    return (combine(ngrams) >> np.uint64(32)).astype(np.uint32)


def combine(values: UInt64[np.ndarray, "*shape n"]) -> UInt64[np.ndarray, "*shape"]:
    """Hash each row of n hashes to one: a polynomial modulo 2^64, followed by mixing its bits."""
    result = values[..., 0].copy()
    for column in range(1, values.shape[-1]):
        result = result * _MULTIPLIER + values[..., column]
    result ^= result >> np.uint64(29)
    result *= _MIXER
    return result ^ (result >> np.uint64(32))


def require_library() -> None:
    """Check that the library for signatures is installed.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec(MINHASH_LIBRARY) is None:
        raise InputError(
            f"--near_duplicates={NearDuplicates.MINHASH} needs the package {MINHASH_LIBRARY}: "
            "pip install 'albert-jax[minhash]'"
        )
