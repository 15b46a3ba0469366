"""Stopping all processes of a run at the same point of their work."""

import threading


class StopCall:
    """The call of `reached` at which this process stops, agreed on with all others.

    Every process counts its calls. When one of them gets SIGTERM, the hub asks each for its count
    (`hold`), and tells all to stop at the call after the highest count (`settle`). In between, each
    process waits in its next call, so none can pass the agreed one.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._held = False
        self._stop_at: int | None = None
        self._changed = threading.Condition()

    def reached(self) -> bool:
        """Count a call, and return True if the process should stop."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held)
            self._calls += 1
            return self._stop_at is not None and self._calls >= self._stop_at

    def hold(self) -> int:
        """Block further calls, and return the number of calls so far."""
        with self._changed:
            self._held = True
            return self._calls

    def settle(self, call: int) -> None:
        """Unblock calls, up to the one to stop at."""
        with self._changed:
            self._held, self._stop_at = False, call
            self._changed.notify_all()
