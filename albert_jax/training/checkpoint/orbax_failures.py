"""Failures of Orbax's saves: what it logs of them, and the operating system's message."""

import logging
import os
import re

ORBAX_LOG = logging.getLogger("absl")  # Orbax logs here, also from threads of its own


class OrbaxNoise(logging.Filter):
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
