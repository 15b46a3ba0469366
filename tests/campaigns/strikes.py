"""What happens to one of several processes of a run, when, and how all of them must end then."""

import random
import signal
import time
from typing import NamedTuple

from tests.campaigns.elastic_run import JOIN_SECONDS
from tests.campaigns.joined_processes import JoinedProcesses

# Seconds from the strike to the end of the last process. docs/multihost.md says "at once" and 20 s,
# to which a busy machine adds. It gives no time for a save, which here must fit into a notice of
# 30 s.
AT_ONCE, SILENT, SAVED = 15.0, 35.0, 30.0
_PATIENCE = 300.0

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "terminate": signal.SIGTERM}
_LOST = "error: process {victim} of {count} was lost ({why})"
_ENDED = "its connection ended"
_STOPPED = "stopped by SIGTERM before the first step"


class Strike(NamedTuple):
    """What happens to one process of a start.

    Attributes:
        what: ``kill`` (SIGKILL), ``stop`` (SIGSTOP) or ``terminate`` (SIGTERM).
        phase: ``starting``, before all have joined; ``compiling``, from then on; ``training``.
        victim: the process.
        steps: steps of this start before it, in training.
        delay: seconds after the beginning of the phase, or after those steps.
    """

    what: str
    phase: str
    victim: int
    steps: int
    delay: float

    def execute(self, joined: JoinedProcesses, first_step: int) -> tuple[list[int], float]:
        """Wait for the moment, strike, and wait for the end of all.

        Returns:
            Their statuses, and the seconds from the strike to the end of the last one. A stopped
            process, which ends later, is not counted.

        Raises:
            TimeoutError: the moment does not come, or a process does not end.
        """
        marks = {
            "starting": lambda: True,
            "compiling": lambda: ": at step " in joined.printed(0),
            "training": lambda: joined.last_step() >= first_step + self.steps,
        }
        if joined.wait_for(marks[self.phase], _PATIENCE):
            joined.wait_for(lambda: False, self.delay)
        elif joined.running:
            raise TimeoutError(f"no {self.phase} within {_PATIENCE:.0f} s: {joined.printed(0)}")
        joined.signal(self.victim, _SIGNALS[self.what])
        happened = time.monotonic()
        statuses = joined.wait(_PATIENCE)
        return statuses, joined.ended - happened


def choose_strike(choose: random.Random, count: int, most_steps: int) -> Strike:
    """Choose what happens to one of so many processes, after so many steps at most."""
    phase = choose.choice(["starting", *["compiling"] * 2, *["training"] * 12])
    whats = ["kill"] if phase == "starting" else [*["kill"] * 6, *["terminate"] * 4, "stop"]
    delay = choose.uniform(0, {"starting": 6, "compiling": 4, "training": 1}[phase])
    victim, steps = choose.randrange(count), choose.randint(1, max(1, most_steps))
    return Strike(choose.choice(whats), phase, victim, steps, delay)


def fault_of_end(
    strike: Strike, joined: JoinedProcesses, statuses: list[int], seconds: float
) -> str | None:
    """Return what is wrong with the end of a run that was struck."""
    count, victim = len(statuses), strike.victim
    others = [number for number in range(count) if number != victim]
    expected = {
        "kill": (-9, {4} if strike.phase != "starting" else {2, 4}),
        "stop": (4, {4}),
        "terminate": (75, {75}),
    }
    own, allowed = expected[strike.what]
    if statuses[victim] != own or any(statuses[number] not in allowed for number in others):
        return f"they ended {statuses}"
    limit = {"kill": AT_ONCE, "stop": SILENT, "terminate": SAVED}[strike.what]
    if strike.phase == "starting":
        limit += JOIN_SECONDS
    if seconds > limit:
        return f"it took {seconds:.1f} s"
    why = _ENDED if strike.what == "kill" else "no sign of life for 20 s"
    for number in others:
        errors = joined.errors(number)
        if own == 75:
            if errors and not (len(errors) == 1 and _STOPPED in errors[0]):
                return f"process {number} printed {errors}"
        elif len(errors) != 1 or (
            statuses[number] == 4
            and not errors[0].startswith(_LOST.format(victim=victim, count=count, why=why))
        ):
            return f"process {number} printed {errors}"
    return None
