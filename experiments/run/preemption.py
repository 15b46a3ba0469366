"""Preemption by SIGTERM: the run saves its current step on all processes and ends."""

import signal
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Preemption:
    """A handler of SIGTERM while it is entered.

    Of several processes any one may get the signal: JAX's coordination service then makes all of
    them agree on the step after which they stop.
    """

    def __init__(self) -> None:
        self._signaled = False
        self._agreed = False

    def reached(self, step: int) -> bool:
        """Return True to stop after this step, on all processes alike, and at all later steps."""
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
