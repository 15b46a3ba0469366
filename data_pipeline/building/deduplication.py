"""Deduplication by hash: duplicates, near-duplicates, and sentences that are in both splits."""

import contextlib
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt64

from albert_jax.durable_files import sync
from data_pipeline.building.journal import Journal
from data_pipeline.building.selection.clusters import find_near_duplicates
from data_pipeline.building.selection.hashes import contains
from data_pipeline.errors import InputError
from data_pipeline.terminal import elapsed_time

NEAR_DUPLICATES_FILE = "near_duplicates.hashes"

HASH_DTYPE = np.dtype("<u8")
_NUMBERS_PER_READ = 1 << 20


class SeenHashes:
    """A growing set of 64-bit hashes, in 8 bytes of memory per hash.

    The hashes of 200 million documents fit in 2 GB. About one in a thousand corpora of that size
    would lose a document to a collision.
    """

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []  # sorted, each more than twice as long as the next

    def add(self, hashes: UInt64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
        """Add hashes, and return a mask of those that are new.

        Example: `add([7, 8, 7])` returns `[True, True, False]`; a following `add([8, 9])` returns
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


class Log:
    """A file of numbers that only grows.

    Args:
        path: the file.
        dtype: the type of the numbers.
        position: where to continue an earlier log; everything after it is cut off.

    Raises:
        InputError: the file is shorter than it was at that position.
    """

    def __init__(
        self, path: Path, dtype: np.dtype, position: Mapping[str, int] | None = None
    ) -> None:
        self.path, self._dtype = path, dtype
        length = position["bytes"] if position else 0
        self._file = path.open("ab")
        if self._file.tell() < length:
            raise InputError(f"{path} is shorter than when it was last saved: remove it")
        self._file.truncate(length)

    def append(self, numbers: np.ndarray) -> None:
        """Add numbers."""
        self._file.write(numbers.astype(self._dtype).tobytes())

    def position(self) -> dict[str, int]:
        """Sync the file to the disk, and return its size."""
        self._file.flush()
        sync(self.path)
        return {"bytes": self.path.stat().st_size}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self) -> Iterator[np.ndarray]:
        """Yield the numbers in arrays of bounded size."""
        self._file.flush()
        with self.path.open("rb") as file:
            while data := file.read(self._dtype.itemsize * _NUMBERS_PER_READ):
                yield np.frombuffer(data, self._dtype)


class SignatureLog:
    """Files of signatures in reading order: one of document hashes, and one per band."""

    def __init__(
        self, directory: Path, bands: int, positions: Mapping[str, dict[str, int]]
    ) -> None:
        """Start the files, or continue them from the `positions` of an earlier log."""
        self.names = ("signed_documents", *(f"band_{number:03d}" for number in range(bands)))
        self._logs = {
            name: Log(directory / f"{name}.hashes", HASH_DTYPE, positions.get(f"{name}.hashes"))
            for name in self.names
        }

    def append(
        self,
        hashes: UInt64[np.ndarray, " documents"],
        bands: UInt64[np.ndarray, "documents bands"],
    ) -> None:
        """Add documents."""
        for log, column in zip(self._logs.values(), (hashes, *bands.T), strict=True):
            log.append(column)

    def positions(self) -> dict[str, dict[str, int]]:
        """Sync the files to the disk, and return their positions."""
        return {log.path.name: log.position() for log in self._logs.values()}

    def close(self) -> None:
        """Close the files."""
        for log in self._logs.values():
            log.close()

    def remove(self) -> None:
        """Remove the files."""
        for log in self._logs.values():
            log.path.unlink(missing_ok=True)

    def read(self, name: str) -> UInt64[np.ndarray, " documents"]:
        """Read the file with one of `names`: first the document hashes, then the bands."""
        return np.fromfile(self._logs[name].path, "<u8").astype(np.uint64, copy=False)


class SignedBlock(NamedTuple):
    """Signatures of the documents of a block that are long enough to be signed."""

    hashes: UInt64[np.ndarray, " documents"]
    bands: UInt64[np.ndarray, "documents bands"]
    bytes_read: int


def write_near_duplicates(
    blocks: Generator[SignedBlock, None, None],
    num_bands: int,
    journal: Journal,
    work: Path,
    *,
    blocks_per_save: int,
) -> None:
    """Write the hashes of all near-duplicates, sorted, and count their clusters in the journal.

    Args:
        blocks: all blocks after the first `journal.signed_blocks`, in reading order.
        num_bands: the number of bands per document.
        journal: the journal of the build; saved every `blocks_per_save` blocks, and at the end.
        work: the directory of the journal and of the file.
    """
    log = SignatureLog(work, num_bands, journal.positions)

    def save() -> None:
        journal.positions |= log.positions()
        journal.save(work)

    with contextlib.closing(log), contextlib.closing(blocks):
        for block in blocks:
            log.append(block.hashes, block.bands)
            journal.signed_blocks += 1
            if journal.signed_blocks % blocks_per_save == 0:
                save()
        save()
    with elapsed_time("Comparing the signatures of documents"):
        hashes, *bands = log.names
        found, clusters = find_near_duplicates(log.read(hashes), map(log.read, bands))
    path = work / NEAR_DUPLICATES_FILE
    found.astype("<u8").tofile(path)
    sync(path)
    counted = dict.fromkeys(("documents", "characters", "characters_before"), 0)
    journal.near_duplicates = {"clusters": clusters, **counted}
    journal.save(work)
    log.remove()
