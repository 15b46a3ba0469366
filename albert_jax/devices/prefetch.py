"""Prefetching of batches to the devices."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any


class BatchQueue:
    """A queue of batches, placed on the devices ahead of their use.

    Args:
        batches: host batches.
        place: starts the transfer of a host batch to the devices.
        ahead: number of batches to place ahead of their use.

    Attributes:
        waited_seconds: time spent waiting for `batches`.
        stalled_seconds: the part of it in which the devices were idle, as reported to `settle`.
    """

    def __init__(
        self, batches: Iterator[Any], place: Callable[[Any], Any], *, ahead: int = 2
    ) -> None:
        self.waited_seconds = self.stalled_seconds = 0.0
        self._settled = 0.0
        self._batches = batches
        self._place = place
        self._placed = deque(self._load() for _ in range(ahead))

    def _load(self) -> Any:
        start = time.perf_counter()
        batch = next(self._batches)
        self.waited_seconds += time.perf_counter() - start
        return self._place(batch)

    @property
    def next(self) -> Any:
        """The next batch, which stays in the queue."""
        return self._placed[0]

    def take(self) -> Any:
        """Remove and return the next batch."""
        return self._placed.popleft()

    def refill(self) -> None:
        """Load one more batch; to be called while the devices are busy."""
        self._placed.append(self._load())

    def settle(self, *, idle: bool) -> None:
        """Report whether the devices were idle at the end of the waiting since the last call."""
        if idle:
            self.stalled_seconds += self.waited_seconds - self._settled
        self._settled = self.waited_seconds
