"""Failures of Orbax's saves: what it prints of them, and the operating system's message."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

ORBAX_LOG = logging.getLogger("absl")  # Orbax logs here, also from threads of its own


@contextlib.contextmanager
def quiet_orbax() -> Iterator[None]:
    """Keep what Orbax prints of failures that `Checkpoints` raises off the terminal.

    Log and hook are the whole process's, so both are as before when the context ends.
    """
    noise, hook = _OrbaxNoise(), sys.unraisablehook

    def pass_others_on(unraisable: Any) -> None:
        # Of a write whose result nobody waits for any more, since another one has failed.
        if unraisable.object is not None or str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    ORBAX_LOG.addFilter(noise)
    sys.unraisablehook = pass_others_on
    try:
        yield
    finally:
        ORBAX_LOG.removeFilter(noise)
        sys.unraisablehook = hook


class _OrbaxNoise(logging.Filter):
    """Filter for what Orbax logs and `Checkpoints` raises or intends.

    A save that fails is logged with its traceback by several threads, and raised too; a save
    without metrics is warned about each time.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if f"{os.sep}orbax{os.sep}" not in record.pathname:
            return True
        return not record.exc_info and "tracked_metric" not in str(record.msg)


def storage_failure(error: BaseException) -> str | None:
    """Return the operating system's message, such as "No space left on device", if it has one."""
    if isinstance(error, OSError):
        return str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None
