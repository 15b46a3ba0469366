"""A user's way: commands from an empty home, one after another, each timed, in so many minutes."""

import contextlib
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Journey:
    """A user's directory, home and clock.

    Args:
        directory: a new directory.
        say: prints a line where whoever runs the tests sees it.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self.here, home = directory / "project", directory / "home"
        self.here.mkdir(parents=True)
        home.mkdir()
        self.seconds = self.processor_seconds = 0.0
        self._say = say
        # What a new account has, and this checkout: no cache, no setting.
        self.environment = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
        }

    def start(self, command: str, **environment: str) -> "subprocess.Popen[str]":
        """Start a command that begins with ``python``; errors go where its output goes."""
        return subprocess.Popen(
            [sys.executable, *shlex.split(command)[1:]],
            cwd=self.here,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """Run a command, which must end with status 0, and return what it printed."""
        with self.timed(shlex.split(command)[2]):
            process = self.start(command)
            output = process.communicate()[0]
        assert process.returncode == 0, f"exit status {process.returncode}: {output[-3000:]}"
        return output

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add a step to the clock, and print how long it took, and how long processors did."""
        start, worked = time.monotonic(), _processor_seconds()
        yield
        seconds, worked = time.monotonic() - start, _processor_seconds() - worked
        self.seconds += seconds
        self.processor_seconds += worked
        self._say(f"  {seconds:6.1f} s  {worked:6.1f} s of processors  {name}")


def _processor_seconds() -> float:
    """The processor time of the processes that have ended, whatever else the machine does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
