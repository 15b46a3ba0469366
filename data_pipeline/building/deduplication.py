"""Deduplication by hash: duplicate documents, and sentences that are in both splits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32, UInt64

from albert_jax.durable_files import sync
from data_pipeline.building.writer import open_truncated

# Shorter sentences ("See also the list below.") recur by chance and give nothing away.
LONG_SENTENCE_TOKENS = 10

# The hash of sentences that are too short to matter.
NOT_HASHED = 0

_HASHES_PER_READ = 1 << 20


class SeenHashes:
    """A growing set of 64-bit hashes of 8 bytes each.

    The hashes of 200 million documents fit in 2 GB; one in a thousand such corpora would lose a
    document to a collision.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # sorted, each more than twice as long as the next

    def add(self, hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Add hashes, and return a mask of those that are new.

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


class HashLog:
    """A file of 64-bit hashes that only grows."""

    def __init__(self, path: Path, position: Mapping[str, int] | None = None) -> None:
        """Start the file, or continue it from the `position` of an earlier log."""
        self.path = path
        self._file = open_truncated(path, position["bytes"] if position else 0)

    def append(self, hashes: UInt64[np.ndarray, " n"]) -> None:
        """Add hashes."""
        self._file.write(hashes.astype("<u8").tobytes())

    def position(self) -> dict[str, int]:
        """Sync the file to the disk, and return its size."""
        self._file.flush()
        sync(self.path)
        return {"bytes": self.path.stat().st_size}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_hashes(path: Path) -> Iterator[UInt64[np.ndarray, " n"]]:
    """Read the hashes of a log, a block at a time."""
    with path.open("rb") as file:
        while data := file.read(8 * _HASHES_PER_READ):
            yield np.frombuffer(data, "<u8").astype(np.uint64)


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
