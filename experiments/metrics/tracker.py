"""The interface of trackers: places beside the workdir where a run's metrics are followed."""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple, Protocol

Value = bool | int | float | str | None


class TrackedRun(NamedTuple):
    """A run as its trackers see it.

    Attributes:
        workdir: its directory, local or remote.
        settings: all of them by their dotted names, such as ``optimizer.learning_rate``.
        first_step: steps that were taken before and are not repeated.
        run_id: what `Tracker.start` returned when the run was started first; None for a new run.
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
    """A place where a run's metrics are followed.

    Made without arguments. An error of `start` ends a new run before its first step; one of the
    others ends the tracking with a warning, and training goes on. After `start` all methods are
    called in order, from one thread that is the tracker's own, so they may take their time.

    Attributes:
        rewinds: True if `start` removes what was logged after `TrackedRun.first_step`. A resumed
            run repeats those steps; they are not logged again where this is False.
    """

    rewinds: bool

    def start(self, run: TrackedRun) -> str:
        """Start a run, or resume the one of `TrackedRun.run_id`, with its settings.

        Returns:
            The id by which it can be resumed; it is kept in the workdir.
        """

    def log_metrics(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Log metrics of a step by names such as ``validation/loss``; seconds since 1970."""

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        """Log a picture, such as ``curves``."""

    def end(self, ending: Ending) -> None:
        """Write what is left, and close."""
