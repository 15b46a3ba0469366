"""Handling of failed saves by Orbax: log messages, barriers, and the operating system's message."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from traceback import walk_tb
from types import TracebackType
from typing import Any

import orbax.checkpoint as ocp

# Orbax logs to absl, also from its own threads; asyncio logs the errors its tasks leave behind.
_LOGS = [logging.getLogger(name) for name in ("absl", "asyncio")]
_ORBAX = f"{os.sep}orbax{os.sep}"


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Silence what Orbax prints about failures that `Checkpoints` raises.

    Log filters and hook affect the whole process, so both are restored when the context ends.
    """
    noise, hook = _OrbaxNoise(), sys.unraisablehook

    def pass_others_on(unraisable: Any) -> None:
        # From a write whose result nobody waits for any more, since another write has failed.
        if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    for log in _LOGS:
        log.addFilter(noise)
    sys.unraisablehook = pass_others_on
    try:
        yield
    finally:
        for log in _LOGS:
            log.removeFilter(noise)
        sys.unraisablehook = hook


class _OrbaxNoise(logging.Filter):
    """Filter that drops what Orbax logs and `Checkpoints` raises or intends.

    Several threads log a failed save with its traceback, although it is raised too. If several of
    its tasks fail, the errors of all but the first are logged as never retrieved. Each save without
    metrics logs a warning.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "asyncio":
            return not (record.exc_info and _passes_through_orbax(record.exc_info[2]))
        if _ORBAX not in record.pathname:
            return True
        return not record.exc_info and "tracked_metric" not in str(record.msg)


def _passes_through_orbax(traceback: TracebackType | None) -> bool:
    return any(_ORBAX in frame.f_code.co_filename for frame, _ in walk_tb(traceback))


def barrier_of_threads() -> Callable[..., None]:
    """Return Orbax's barrier for threads, at which a process whose save has failed does not wait.

    In Orbax, a process whose save has failed waits until no process is saving any more, while the
    others wait until it has saved, and all of them give up after 10 minutes. Without that wait, its
    error is raised at once and ends the run on all processes.
    """
    wait = ocp.multihost.get_barrier_sync_fn()

    def wait_unless_failed(*, key: str, timeout_ms: int) -> None:
        if sys.exc_info()[1] is None:  # otherwise an error is propagating
            wait(key=key, timeout_ms=timeout_ms)

    return wait_unless_failed


def storage_failure(error: BaseException) -> str | None:
    """Return the operating system's message, such as "No space left on device", if it has one."""
    if isinstance(error, OSError):
        return str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None
