"""The starts of a run, and what they spent their time on in total."""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_pipeline.terminal import format_seconds
from experiments.goodput.clock import Activity

LOST, DOWN = "lost", "down"
# Kinds of seconds, in the order in which they are shown: the useful ones come first.
KINDS = (
    Activity.STEPPING,
    Activity.EVALUATING,
    Activity.SAVING,
    Activity.WAITING_FOR_DATA,
    Activity.COMPILING,
    Activity.RESTORING,
    Activity.OPENING_DATA,
    Activity.START_UP,
    Activity.LOGGING,
    Activity.OTHER,
    LOST,
    DOWN,
)


class Attempt(NamedTuple):
    """A process of a run, from its start to its last sign of life.

    Attributes:
        start: seconds since the epoch.
        seconds: seconds of each activity; their sum is its wall time.
        first_step: number of steps that were taken before.
        last_step: the last step that it has begun.
        saved: steps that it saved, and the seconds of stepping up to each.
        ended: how it ended, ``done``, ``stopped`` or ``failed``; None: it is alive, or was killed.
    """

    start: float
    seconds: Mapping[str, float]
    first_step: int
    last_step: int
    saved: Sequence[tuple[int, float]] = ()
    ended: str | None = None

    @property
    def wall_seconds(self) -> float:
        """Seconds from its start to its last sign of life."""
        return sum(self.seconds.values())

    def stepping_until(self, step: int) -> float:
        """Return the seconds of stepping up to a step, interpolated between saved steps."""
        total = self.seconds.get(Activity.STEPPING, 0.0)
        places = [(self.first_step, 0.0), *self.saved, (self.last_step, total)]
        if step >= self.last_step:
            return total
        for (before, start), (after, end) in itertools.pairwise(places):
            if before <= step < after:
                return start + (end - start) * (step - before) / (after - before)
        return 0.0


class Goodput(NamedTuple):
    """What a run spent its time on since its first process started.

    Attributes:
        seconds: seconds of each of `KINDS`, which sum to `wall_seconds`.
        starts: number of processes that have begun.
        lost_steps: number of steps that were taken and had to be taken again.
    """

    seconds: Mapping[str, float]
    starts: int
    lost_steps: int

    @property
    def wall_seconds(self) -> float:
        """Seconds of the run's whole life."""
        return sum(self.seconds.values())

    @property
    def share(self) -> float:
        """Seconds of the steps that count, as a share of the run's whole life."""
        return self.seconds[Activity.STEPPING] / max(self.wall_seconds, 1e-9)

    def metrics(self) -> dict[str, float]:
        """Return all of it as metrics."""
        return {
            "goodput": self.share,
            "wall_seconds": self.wall_seconds,
            **{f"{kind}_seconds": seconds for kind, seconds in self.seconds.items()},
            "starts": self.starts,
            "lost_steps": self.lost_steps,
        }

    def format(self) -> str:
        """Format the goodput as a line.

        Example: ``goodput 86% of 12 min 3 s (11 starts, 35 steps lost): stepping 10 min 22 s,
        evaluating 35 s, ...``
        """
        starts = "1 start" if self.starts == 1 else f"{self.starts:,} starts"
        lost = f", {self.lost_steps:,} steps lost" if self.lost_steps else ""
        kinds = ", ".join(
            f"{spell(kind)} {format_seconds(seconds)}"
            for kind, seconds in self.seconds.items()
            if seconds >= 0.05
        )
        return (
            f"goodput {self.share:.0%} of {format_seconds(self.wall_seconds)} "
            f"({starts}{lost}): {kinds}"
        )


def spell(kind: str) -> str:
    """Return a kind of seconds in words. Example: ``waiting for data``."""
    return kind.replace("_", " ")


def summarize(attempts: Sequence[Attempt]) -> Goodput:
    """Sum the time of a run's attempts.

    Steps after the checkpoint that a later attempt resumed from are lost, with their seconds.
    Between the last sign of life of one attempt and the start of the next, the run was down, unless
    it was done.

    Example: one attempt of 100 s took 50 steps in 80 s, saved step 40 at 64 s and was killed; the
    next started 10 s later at step 40. Then 16 s and 10 steps are lost, and 10 s are down.

    Args:
        attempts: the attempts, in order.
    """
    seconds = dict.fromkeys(map(str, KINDS), 0.0)
    lost_steps, kept = 0, None
    for attempt in reversed(attempts):
        for kind, value in attempt.seconds.items():
            seconds[kind] += value
        if kept is not None and kept < attempt.last_step:
            lost_steps += attempt.last_step - max(kept, attempt.first_step)
            stepping = attempt.seconds.get(Activity.STEPPING, 0.0)
            lost = stepping - attempt.stepping_until(max(kept, attempt.first_step))
            seconds[Activity.STEPPING] -= lost
            seconds[LOST] += lost
        kept = attempt.first_step if kept is None else min(kept, attempt.first_step)
    for before, after in itertools.pairwise(attempts):
        if before.ended != "done":
            seconds[DOWN] += max(0.0, after.start - before.start - before.wall_seconds)
    return Goodput(seconds, len(attempts), lost_steps)
