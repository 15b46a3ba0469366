"""The end of a process, which its other threads cannot delay."""

import contextlib
import faulthandler
import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from data_pipeline.terminal import print_error


class Ending:
    """The end of this process, for the reason of the first thread that begins it.

    Args:
        directory: the process's temporary directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begun = threading.Lock()

    @property
    def begun(self) -> bool:
        """True once a thread has begun to end the process."""
        return self._begun.locked()

    def begin(self, *, wait: bool = False) -> bool:
        """Return True to the first thread that calls this; with `wait`, block the others."""
        return self._begun.acquire(blocking=wait)

    def print(self, line: str | None, *, stacks: bool = False) -> None:
        """Print an error, after the stacks of all threads if they are asked for."""
        with contextlib.suppress(OSError):  # the reader of the output may be gone
            if stacks:
                faulthandler.dump_traceback(all_threads=True)
            if line is not None:
                if getattr(tqdm, "_instances", None):  # a progress bar occupies the last line
                    print(file=sys.stderr)
                print_error(line)

    def exit(self, status: int) -> NoReturn:
        """End the process at once: no thread, destructor or library's barrier can delay it."""
        shutil.rmtree(self._directory, ignore_errors=True)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
