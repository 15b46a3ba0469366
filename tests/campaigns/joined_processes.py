"""The processes of one start of a run on this machine, each with one device."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from commands import RECORDED

from tests.campaigns.forked import ForkedCommand

LONGEST_SECONDS = 1800  # of any start

_POLL_SECONDS = 0.003

_SLOW = re.compile(r"^warning: process (\d+) \(.*\) is slow: ", re.MULTILINE)

# The hash of each row, by step and number in the batch.
Rows = dict[int, dict[int, str]]


class JoinedProcesses:
    """Processes of `experiments.pretrain` that are one run, forked from this one.

    What they print and the rows that they load go into files. Leaving the context kills what is
    left of them.

    Args:
        flags: the flags of the run.
        count: number of processes.
        place: directory of the files; it must not exist.
        environment: variables to be set.
        own: further variables for single processes, by their numbers.

    Attributes:
        ended: monotonic time at which the last process ended that was not stopped.
    """

    def __init__(
        self,
        flags: Sequence[str],
        count: int,
        place: Path,
        environment: Mapping[str, str],
        own: Mapping[int, Mapping[str, str]] = MappingProxyType({}),
    ) -> None:
        place.mkdir()
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self._place = place
        self._stopped: set[int] = set()
        self.ended = 0.0
        self._commands = []
        for number in range(count):
            hosts = (f"--num_processes={count}", f"--process_id={number}")
            joins = (f"--coordinator_address={address}", *hosts) if count > 1 else ()
            rows = {"BATCH_HASHES": str(place / f"rows{number}")}
            output = place / f"printed{number}"
            self._commands.append(
                ForkedCommand(
                    [*RECORDED, *flags, *joins],
                    output,
                    {**environment, **rows, **own.get(number, {})},
                    seconds=LONGEST_SECONDS,
                )
            )

    def __enter__(self) -> "JoinedProcesses":
        return self

    def __exit__(self, *error: Any) -> None:
        for command in self._commands:
            command.kill()

    @property
    def running(self) -> bool:
        """True as long as none of them has ended."""
        return all(command.poll() is None for command in self._commands)

    def wait_for(self, mark: Callable[[], bool], seconds: float) -> bool:
        """Wait for a mark; return False if a process ended or the time ran out first."""
        end = time.monotonic() + seconds
        while self.running and time.monotonic() < end:
            if mark():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def signal(self, number: int, which: signal.Signals) -> None:
        """Send a signal to one of them, unless it has ended."""
        if self._commands[number].poll() is not None:
            return
        if which == signal.SIGSTOP:
            self._stopped.add(number)
        elif which == signal.SIGCONT:
            self._stopped.discard(number)
        os.kill(self._commands[number].pid, which)

    def wait(self, seconds: float = LONGEST_SECONDS) -> list[int]:
        """Wait for all of them; return their statuses, minus the signal's number after a kill.

        A stopped process continues when the others have ended.

        Raises:
            TimeoutError: a process has not ended in this time.
        """
        running = [n for n in range(len(self._commands)) if n not in self._stopped]
        self._wait(running, seconds)
        self.ended = time.monotonic()
        stopped = [*self._stopped]
        for number in stopped:
            self.signal(number, signal.SIGCONT)
        self._wait(stopped, seconds)
        return [command.wait() for command in self._commands]

    def _wait(self, numbers: Sequence[int], seconds: float) -> None:
        end = time.monotonic() + seconds
        for number in numbers:
            command = self._commands[number]
            command.wait_for(lambda: False, end - time.monotonic())
            if command.poll() is None:
                raise TimeoutError(f"process {number} hangs: {command.printed()}")

    def printed(self, number: int) -> str:
        """Return what one of them has printed."""
        file = self._place / f"printed{number}"
        return file.read_text(errors="replace") if file.exists() else ""

    def errors(self, number: int) -> list[str]:
        """Return the errors that one of them has printed, and tracebacks."""
        lines = self.printed(number).replace("\r", "\n").splitlines()
        return [line for line in lines if line.startswith(("error: ", "Traceback"))]

    def named_slow(self) -> list[int]:
        """Return the processes that process 0 has named as slow, in the order of its warnings."""
        return [int(number) for number in _SLOW.findall(self.printed(0))]

    def last_step(self) -> int:
        """Return the last step that process 0 has begun in this start; 0 before the first one."""
        lines = _whole_lines(self._place / "rows0")
        return int(lines[-1].split(" ", 1)[0]) if lines else 0

    def rows(self, number: int) -> Rows:
        """Return the rows that one of them has loaded, of each step that it has begun."""
        return read_rows(self._place / f"rows{number}")


def read_rows(file: Path) -> Rows:
    """Read what `recorded_pretrain` has written."""
    found: Rows = {}
    for line in _whole_lines(file):
        step, *rows = line.split()
        pairs = (row.split(":") for row in rows)
        found[int(step)] = {int(number): digest for number, digest in pairs}
    return found


def _whole_lines(file: Path) -> list[str]:
    return file.read_text().split("\n")[:-1] if file.exists() else []
