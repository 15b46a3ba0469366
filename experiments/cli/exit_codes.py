"""Exit statuses of the commands."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status means."""

    DONE = 0
    BAD_INPUT = 2
    NON_FINITE = 3
    LOST_PROCESS = 4  # another process of the run is gone: start them all again
    FAILED_POINTS = 5  # of a sweep: what was told of them says why
    PREEMPTED = 75  # stopped by SIGTERM after saving: start it again
