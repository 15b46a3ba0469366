"""The interface of trackers: places besides the workdir where one can follow a run's metrics."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

Value = bool | int | float | str | None


class TrackedRun(NamedTuple):
    """A run as its trackers see it.

    Attributes:
        workdir: its directory, local or remote.
        settings: all settings by their dotted names, such as ``optimizer.learning_rate``.
        first_step: number of steps that were taken before and are not repeated.
        run_id: what `Tracker.start` returned when the run first started; None for a new run.
    """

    workdir: str
    settings: Mapping[str, Value]
    first_step: int
    run_id: str | None

    @property
    def name(self) -> str:
        """The last part of the workdir."""
        return self.workdir.rstrip("/").rpartition("/")[2]


class Ending(StrEnum):
    """How a run ended."""

    COMPLETE = "complete"
    STOPPED = "stopped"  # and saved, to be resumed
    FAILED = "failed"


class Tracker(Protocol):
    """A place where one can follow a run's metrics.

    The constructor takes no arguments. An error in `start` ends a new run before its first step; an
    error in another method ends the tracking with a warning, and training goes on. After `start`,
    all methods are called in order from the tracker's own thread, so they may be slow.

    Attributes:
        rewinds: True if `start` removes what was logged after `TrackedRun.first_step`. A resumed
            run repeats those steps; if this is False, they are not logged again.
    """

    rewinds: bool

    def start(self, run: TrackedRun) -> str:
        """Start a run, or resume the one of `TrackedRun.run_id`, with its settings.

        Returns:
            The id with which the run can be resumed; it is kept in the workdir.
        """

    def log_metrics(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Log metrics of a step, by names such as ``validation/loss``, at a time since 1970."""

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture, such as ``curves``."""

    def end(self, ending: Ending) -> None:
        """Write what is left to write, and close."""
