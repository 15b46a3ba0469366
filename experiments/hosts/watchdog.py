"""The watchdog of a training loop: a run that hangs is ended with the stacks of its threads."""

import contextlib
import faulthandler
import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, NoReturn

from data_pipeline.terminal import print_error
from experiments.cli.exit_codes import ExitCode
from experiments.hosts.joined import this_member

# A step hangs if it takes this many times the median one, and at least this many seconds.
STEPS, LEAST_SECONDS = 20, 300.0
# The limit before there is a median: the first steps set up connections and fill caches.
FIRST_STEPS_SECONDS = 3600.0
# An evaluation or a save hangs if it takes this many times a step's limit, and at least an hour.
ACTIVITY_STEPS, LEAST_ACTIVITY_SECONDS = 12, 3600.0

_MEASURED = 4  # steps that must be measured before there is a median
_TICK_SECONDS = 0.5

TRAINING, COMPILING = "training", "compiling"


class Watchdog:
    """A thread that ends the run, on all of its processes, when no step is taken for too long.

    Compiling has no limit. Time in which this process itself did not run does not count.

    Args:
        hang_seconds: the limit of a step; None: derived from the median step.
    """

    def __init__(self, hang_seconds: float | None) -> None:
        self._hang_seconds = hang_seconds
        self._seconds: deque[float] = deque(maxlen=128)  # seconds of the last steps
        self._longest: dict[str, float] = {}  # seconds, by activity
        self._activity, self._changes, self._steps = TRAINING, 0, 0
        self._started = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._over.set()
        self._thread.join()

    def advance(self) -> None:
        """Count a step."""
        now = time.monotonic()
        if self._steps > 0:  # the first one is dispatched, not done, when it is counted
            self._seconds.append(now - self._started)
        self._steps += 1
        self._begin(self._activity, now)

    @contextlib.contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Exclude an activity, which has its own limit, from the time of the step."""
        start, before = time.monotonic(), self._started
        self._begin(activity, start)
        try:
            yield
        finally:
            now = time.monotonic()
            self._longest[activity] = max(self._longest.get(activity, 0), now - start)
            self._begin(TRAINING, before + now - start)

    def limit(self, activity: str) -> float:
        """Return the seconds that an activity may take."""
        if activity == COMPILING:
            return float("inf")
        step = self._hang_seconds
        if step is None and len(self._seconds) < _MEASURED:
            step = FIRST_STEPS_SECONDS
        elif step is None:
            step = max(STEPS * statistics.median([*self._seconds]), LEAST_SECONDS)
        if activity == TRAINING:
            return step
        least = LEAST_ACTIVITY_SECONDS if self._hang_seconds is None else 0
        return max(least, ACTIVITY_STEPS * step, STEPS * self._longest.get(activity, 0))

    def _begin(self, activity: str, started: float) -> None:
        self._activity, self._started = activity, started
        self._changes += 1

    def _watch(self) -> None:
        seen, idle, before = -1, 0.0, time.monotonic()
        while not self._over.wait(_TICK_SECONDS):
            now = time.monotonic()
            elapsed, before = now - before, now
            if self._changes != seen:
                seen, idle = self._changes, 0.0
            idle += min(elapsed, 4 * _TICK_SECONDS)
            activity = self._activity
            if idle > self.limit(activity) and self._changes == seen:
                end_hung(
                    f"no step for {idle:.0f} s after step {self._steps} of this start, while "
                    f"{activity} (--config.run.hang_seconds); the stacks of all threads are "
                    "above; the same command resumes the run"
                )


def end_hung(line: str) -> NoReturn:
    """End this process, and all others of its run that answer, with stacks and status 75."""
    if member := this_member():
        member.print_stacks_everywhere(f"process {member.place.process}: {line}")
    faulthandler.dump_traceback(all_threads=True)
    print_error(line)
    os._exit(ExitCode.PREEMPTED)
