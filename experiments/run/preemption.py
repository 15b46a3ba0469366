"""SIGTERM as a wish: the run saves its current step on all processes and leaves."""

import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Listens for SIGTERM while it is entered.

    With several processes the one that gets the signal may be any of them: JAX's coordination
    service then makes all of them agree on the step after which they stop.
    """

    def __init__(self) -> None:
        self._signaled = False
        self._agreed = False

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; the same answer on all processes, and on later steps."""
        if jax.process_count() == 1:
            return self._signaled
        self._agreed = self._agreed or bool(multihost_utils.reached_preemption_sync_point(step))
        return self._agreed

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signaled = True

    def __enter__(self) -> "Preemption":
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)
