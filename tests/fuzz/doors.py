"""What a case of fuzzing is allowed: little time, little memory, and the ends of a command."""

import contextlib
import io
import resource
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NamedTuple

from experiments.cli.command import call

_MEMORY = 2 << 30  # beyond what the process has mapped already
_SECONDS = 20


class Hang(BaseException):
    """A case took too long."""


class End(NamedTuple):
    """The end of a case: its exit status, and what it printed on stderr."""

    status: int
    errors: str


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Make requests for much more memory fail, as they would on a small machine."""
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + _MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Raise `Hang` if a case takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def end_of(command: Callable[[], Any]) -> End:
    """Call a function as a command is called; raise any error that is not a user's mistake."""
    errors = io.StringIO()

    def main() -> None:
        command()

    with (
        contextlib.redirect_stderr(errors),
        contextlib.redirect_stdout(io.StringIO()),
        limited_time(),
    ):
        try:
            status = int(call(main))
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return End(status, errors.getvalue())
