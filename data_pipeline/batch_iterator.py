"""Iterators of batches that can be closed."""

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

Batch = dict[str, np.ndarray]


class BatchIterator(Iterator[Batch]):
    """Batches whose source is dropped by `close`, or at the latest before the interpreter exits.

    The threads of a tf.data source call Python. If they still ran during the interpreter's
    shutdown, the process could hang.

    Args:
        source: the batches; nothing else should hold a reference to it.
    """

    def __init__(self, source: Iterator[Batch]) -> None:
        self._sources = [source]
        self._drop = weakref.finalize(self, self._sources.clear)

    def __next__(self) -> Batch:
        if not self._sources:
            raise StopIteration
        return next(self._sources[0])

    def close(self) -> None:
        """Stop the background work; there are no more batches."""
        self._drop()

    def __enter__(self) -> "BatchIterator":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()
