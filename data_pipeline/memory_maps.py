"""Memory-mapped files, with a bounded number open at a time."""

import functools
import os
import resource
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from data_pipeline.errors import InputError

_Item = TypeVar("_Item")

_MOST_OPEN = 1024  # more would not help


class MappedDirectory:
    """A directory that is held open and whose files are memory-mapped.

    If another directory takes its place, the files are still those of this one, or gone.

    Raises:
        OSError: the directory does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def map(self, name: str, dtype: np.dtype) -> np.ndarray:
        """Map a file as a one-dimensional, read-only array.

        The map holds a file descriptor until the array and all views of it are gone.

        Raises:
            InputError: the file was removed.
        """
        opener = functools.partial(os.open, dir_fd=self._descriptor)
        try:
            with open(name, "rb", opener=opener) as file:
                # A plain view of the mapping: indexing np.memmap itself is slower.
                return np.asarray(np.memmap(file, dtype, mode="r"))
        except FileNotFoundError:
            raise InputError(
                f"{self._path / name} is gone: it was removed or replaced while it was in use"
            ) from None


class LazySequence(Generic[_Item]):
    """A sequence whose items are opened when read; the most recently used ones stay open.

    Args:
        length: number of items.
        open_item: opens an item, given its number from 0 to length - 1.
        max_open: maximum number of items kept open; an item in use stays open beyond that.

    Example: with `max_open=1`, reading 0, 0, 1, 0 opens the items 0, 1, 0.
    """

    def __init__(self, length: int, open_item: Callable[[int], _Item], *, max_open: int) -> None:
        self._length = length
        self._open = functools.lru_cache(max_open)(open_item)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> _Item:
        if not 0 <= number < self._length:
            raise IndexError(f"{number} is not from 0 to {self._length - 1}")
        return self._open(int(number))

    def __iter__(self) -> Iterator[_Item]:
        return map(self.__getitem__, range(self._length))


def affordable_maps(maps_per_item: int) -> int:
    """Return how many items may be open if an eighth of the file descriptors is for their maps.

    Args:
        maps_per_item: number of files that an item maps.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return _MOST_OPEN
    return max(1, min(limit // (8 * maps_per_item), _MOST_OPEN))
