"""The plan: measurements in order of importance, as many as fit into the time."""

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import InputError
from data_pipeline.terminal import format_seconds, say
from experiments.benchmarks.accelerator.journal import Journal

NO_TIME = "time"
_PRIOR = 20  # seconds at the expected pace that count beside the measured ones


class NotMeasured(Exception):
    """An item cannot be measured here; the message is the reason for the report."""


class Item(NamedTuple):
    """A part of the measurement.

    Attributes:
        name: a unique name, which the report uses.
        seconds: expected seconds on a GPU, with compiling; corrected by what earlier items took.
        measure: returns its rows, or raises `NotMeasured`.
    """

    name: str
    seconds: float
    measure: Callable[[], Sequence[Mapping[str, Any]]]


class Plan:
    """Items that run one after another until a deadline, and the record of what was left out.

    Args:
        items: items in order of importance; those that the journal has are not measured again.
        journal: gets the rows.
        deadline: time of `clock`; an item starts only if it is expected to end before.
        clock: returns seconds.
    """

    def __init__(
        self,
        items: Sequence[Item],
        journal: Journal,
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._items = [item for item in items if item.name not in journal.items]
        self._journal, self._deadline, self._clock = journal, deadline, clock
        self._expected = self._taken = float(_PRIOR)
        self._current: Item | None = None

    def run(self) -> None:
        """Measure what fits.

        If an item fails, for example because a kernel does not compile, the failure is listed and
        the other items still run. An error that does not come from the device or its libraries is
        raised at the end.
        """
        bugs = []
        self._journal.leave_out({item.name: NO_TIME for item in self._items})
        for number, item in enumerate(self._items, 1):
            expected = item.seconds * self._taken / self._expected
            if self._clock() + expected > self._deadline:
                continue  # a later one may be shorter
            say(f"{number} of {len(self._items)}: {item.name}, about {format_seconds(expected)}")
            started, self._current = self._clock(), item
            try:
                self._journal.add(item.name, *item.measure())
            except (NotMeasured, InputError) as reason:
                self._journal.leave_out({item.name: str(reason)})
                continue
            except Exception as error:
                line = f"failed: {_summary(error)}"
                say(f"{item.name}: {line}")
                self._journal.leave_out({item.name: line})
                if not isinstance(error, RuntimeError):  # as JAX's and torch's are
                    bugs.append(error)
                continue
            finally:
                self._current = None
                gc.collect()  # arrays on the device
            self._expected += item.seconds
            self._taken += self._clock() - started
        if bugs:
            raise bugs[0]

    def end_process_at(self, deadline: float, finish: Callable[[], None]) -> threading.Timer:
        """End the process at a deadline, whatever it is doing; compiling cannot be interrupted.

        Args:
            deadline: time of `clock`.
            finish: called before the end.

        Returns:
            The timer, to be cancelled.
        """

        def end() -> None:
            try:
                if (item := self._current) is not None:
                    self._journal.leave_out(
                        {item.name: f"{NO_TIME}: stopped while it was measured"}
                    )
                finish()
                sys.stdout.flush()
            finally:
                os._exit(0)

        timer = threading.Timer(deadline - self._clock(), end)
        timer.daemon = True
        timer.start()
        return timer


def seconds_since_start() -> float:
    """Return the age of this process, which includes imports; 0 if the system does not say it."""
    try:
        started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:  # not Linux
        return 0.0
    ticks = os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - int(started) / ticks)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error about a device with too little memory."""
    text = f"{type(error).__name__} {error}".lower()
    return "resource_exhausted" in text or "out of memory" in text or "outofmemory" in text


def _summary(error: BaseException) -> str:
    """Return the first line of an error, shortened."""
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line[:200]}"
