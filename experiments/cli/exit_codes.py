"""Exit statuses of the commands."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit status of a command."""

    DONE = 0
    BAD_INPUT = 2
    NON_FINITE = 3
    LOST_PROCESS = 4  # another process of the run is gone: restart all of them
    FAILED_POINTS = 5  # points of a sweep failed; their messages say why
    FAULTY_DEVICE = 6  # it computed two different results for one step
    PREEMPTED = 75  # stopped by SIGTERM after saving: restart it to resume
