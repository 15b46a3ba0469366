"""The clock of a process: each of its seconds belongs to one activity of its main thread."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX's event, in seconds
_IMPORTED = time.time()


class Activity(StrEnum):
    """What the main thread of a run does."""

    START_UP = "start_up"  # from the start of the process on: imports, joining, devices
    OPENING_DATA = "opening_data"  # including the plan of the batches
    RESTORING = "restoring"  # or initializing
    COMPILING = "compiling"
    STEPPING = "stepping"
    WAITING_FOR_DATA = "waiting_for_data"  # while the devices had nothing to do
    EVALUATING = "evaluating"
    SAVING = "saving"  # only what the loop waits for
    LOGGING = "logging"
    OTHER = "other"  # what nothing else covers


class ActivityClock:
    """Seconds of each activity since a start. At any time they sum to the time since then.

    Activities nest: the seconds of one inside another belong to the inner one alone. All methods
    except `read` are for the thread that made the clock.

    Args:
        start: seconds since the epoch; the time up to now goes to `START_UP`.
    """

    def __init__(self, start: float) -> None:
        self.start = start
        self._seconds = dict.fromkeys(Activity, 0.0)
        self._activity = Activity.START_UP
        self._since = time.monotonic() - max(0.0, time.time() - start)
        self._lock = threading.Lock()
        self._thread = threading.get_ident()

    def switch(self, activity: Activity) -> Activity:
        """Begin an activity, and return the previous one."""
        with self._lock:
            now, before = time.monotonic(), self._activity
            self._seconds[before] += now - self._since
            self._activity, self._since = activity, now
        return before

    @contextlib.contextmanager
    def during(self, activity: Activity) -> Iterator[None]:
        """Count the seconds of a block as those of an activity."""
        before = self.switch(activity)
        try:
            yield
        finally:
            self.switch(before)

    def move(self, seconds: float, target: Activity) -> None:
        """Count the last seconds of the current activity as those of another one."""
        with self._lock:
            self._seconds[self._activity] -= seconds
            self._seconds[target] += seconds

    def add_compilation(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        """Count the time that XLA compiled inside another activity, such as an evaluation."""
        if event == _COMPILED and threading.get_ident() == self._thread:
            self.move(duration_secs, Activity.COMPILING)

    def read(self) -> dict[str, float]:
        """Return the seconds of each activity up to now."""
        with self._lock:
            seconds = {str(name): value for name, value in self._seconds.items()}
            seconds[self._activity] += time.monotonic() - self._since
        return seconds


_clock: ActivityClock | None = None


def process_start() -> float:
    """Return when this process started, in seconds since the epoch.

    If the system does not say so (it is not Linux), return when this module was imported.
    """
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError):
        return _IMPORTED
    return time.time() - age


def this_clock() -> ActivityClock:
    """Return the clock of this process; it starts now if it has not started yet."""
    return _clock or _start(time.time())


def start_clock_of_command() -> None:
    """Start the clock as of the start of the process, whose only work is this command."""
    _start(process_start())


def stop_clock() -> None:
    """Forget the clock: the next run of this process has its own."""
    global _clock
    if _clock is not None:
        jax.monitoring.unregister_event_duration_listener(_clock.add_compilation)
    _clock = None


def during(activity: Activity) -> contextlib.AbstractContextManager[None]:
    """Count the seconds of a block as those of an activity of this process."""
    return this_clock().during(activity)


def _start(start: float) -> ActivityClock:
    global _clock
    stop_clock()
    _clock = ActivityClock(start)
    jax.monitoring.register_event_duration_secs_listener(_clock.add_compilation)
    return _clock
