"""Commands in processes forked from this one, which has imported everything but used no device."""

import importlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import command_server
from command_server import MODULES, Request, execute

from tests.campaigns import ROOT

_POLL_SECONDS = 0.003


def import_commands() -> None:
    """Import all commands, so that the processes of commands need not."""
    for module in MODULES:
        importlib.import_module(module)


class ForkedCommand:
    """A command in a process of its own.

    Args:
        argv: a module or a Python file, and its arguments.
        output: the file for what it prints.
        environment: variables to be set.
        seconds: the time after which it is ended as hanging.

    Attributes:
        pid: its process id.
        status: its exit status, minus the signal's number after a kill; None while it runs.
    """

    def __init__(
        self,
        argv: Sequence[str],
        output: Path,
        environment: Mapping[str, str] | None = None,
        *,
        seconds: int = 900,
    ) -> None:
        self.output, self._seconds = output, seconds
        request = Request(list(argv), str(ROOT), str(output), dict(environment or {}), False)
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            command_server.TIMEOUT_SECONDS = seconds
            execute(request)
            os._exit(70)  # not reached

    def poll(self) -> int | None:
        """Return the exit status, minus the signal's number after a kill; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self) -> int:
        """Wait for its end; return the exit status."""
        self.wait_for(lambda: False, self._seconds)
        if self.status is None:
            self.kill()
            raise TimeoutError(f"a command hangs: {self.printed()}")
        return self.status

    def wait_for(self, mark: Callable[[], bool], seconds: float) -> bool:
        """Wait for a mark; return False if the command ended or the time ran out first."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            if mark():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def kill(self) -> bool:
        """Kill it; return False if it has ended before."""
        if self.poll() is not None:
            return False
        os.kill(self.pid, signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        return self.status == -signal.SIGKILL

    def printed(self) -> str:
        """Return the end of what it printed."""
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return text[-1500:]


def succeeds(action: Callable[[], Any], output: Path) -> bool:
    """Run an action that uses devices in a forked process; return True if it raised nothing."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException as error:
            output.write_text(repr(error))
        os._exit(status)
    return os.waitpid(pid, 0)[1] == 0
