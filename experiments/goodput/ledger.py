"""The ledger of a run: a file with a line for each of its starts, correct whenever it is killed."""

import json
import logging
import math
import os
import threading
from pathlib import Path
from typing import Any

from etils import epath

from albert_jax.input_files import is_remote
from experiments.goodput.attempts import Attempt, Goodput, summarize
from experiments.goodput.clock import Activity, ActivityClock

GOODPUT_FILE = "goodput.jsonl"
# Seconds between two writes: the most that may be missing of a killed process's time.
LOCAL_SECONDS, REMOTE_SECONDS = 2.0, 60.0
_MOST_SAVED = 32  # saved steps of an attempt: a later one resumes from one of the last few

_log = logging.getLogger(__name__)


def read_attempts(workdir: epath.PathLike) -> list[Attempt]:
    """Read the attempts of a workdir's run; damaged lines are skipped with a warning."""
    path = epath.Path(workdir) / GOODPUT_FILE
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        attempt = _parse(line)
        if attempt is None:
            _log.warning("%s: line %d is damaged, and passed over", path, number)
        else:
            found.append(attempt)
    return found


class Ledger:
    """The ledger of a run, with a line for this process from `begin` on.

    A thread keeps that line up to date, so that little is missing if the process is killed. The
    line is written for the last time on leaving the context.

    Args:
        workdir: local or remote.
        clock: the clock of this process.
        enabled: True on the one process that writes.
    """

    def __init__(self, workdir: epath.Path, clock: ActivityClock, *, enabled: bool = True) -> None:
        self._workdir, self._path = workdir, workdir / GOODPUT_FILE
        self._clock, self._enabled = clock, enabled
        self._before: list[Attempt] = []
        self._first = self._last = 0
        self._stalled = 0.0
        self._saved: list[tuple[int, float]] = []
        self._ended = "stopped"
        self._lock, self._over, self._failed = threading.Lock(), threading.Event(), False
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *error: object) -> None:
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            self._write("failed" if error[0] is not None else self._ended)

    def begin(self, step: int) -> None:
        """Begin the line of this process, which resumes the run after a step."""
        self._first = self._last = step
        if self._enabled:
            self._before = read_attempts(self._workdir)
            self._write()
            self._thread = threading.Thread(target=self._keep, name="goodput", daemon=True)
            self._thread.start()

    def resume_at(self, step: int) -> None:
        """Note the step of the checkpoint that was restored, which may not be the newest one."""
        self._first = self._last = step

    def complete(self) -> None:
        """Note that the run is done: time after it no longer belongs to the run."""
        self._ended = "done"

    def advance(self, step: int, stalled_seconds: float) -> None:
        """Note that a step has begun.

        Args:
            step: the step.
            stalled_seconds: seconds that the loop has waited for data, in total.
        """
        self._last = step
        self._clock.move(stalled_seconds - self._stalled, Activity.WAITING_FOR_DATA)
        self._stalled = stalled_seconds

    def save(self, step: int) -> None:
        """Note that a step is saved."""
        stepping = self._clock.read()[Activity.STEPPING]
        self._saved = [*self._saved, (step, round(stepping, 3))][-_MOST_SAVED:]

    def summarize(self) -> Goodput:
        """Return what the run has spent its time on up to now."""
        return summarize([*self._before, self._attempt(None)])

    def write(self) -> None:
        """Write what is known up to now."""
        if self._thread is not None:
            self._write()

    def _attempt(self, ended: str | None) -> Attempt:
        return Attempt(
            round(self._clock.start, 3),
            {name: round(seconds, 3) for name, seconds in self._clock.read().items()},
            self._first,
            self._last,
            self._saved,
            ended,
        )

    def _keep(self) -> None:
        between = REMOTE_SECONDS if is_remote(self._path) else LOCAL_SECONDS
        while not self._over.wait(between):
            self.write()

    def _write(self, ended: str | None = None) -> None:
        """Replace the file.

        A failure of the disk or the store must not end the run here; its checkpoints will show it.
        """
        lines = [json.dumps(one._asdict()) for one in (*self._before, self._attempt(ended))]
        content = ("\n".join(lines) + "\n").encode()
        try:
            with self._lock:
                _replace(self._path, content)
        except Exception as error:
            if not self._failed:
                _log.warning("%s was not written: %s", self._path, error)
            self._failed = True
        else:
            self._failed = False


def _replace(path: epath.Path, content: bytes) -> None:
    """Replace a file without waiting for the disk.

    If the process is killed, nothing is lost; after a power cut, the line just ends earlier.
    """
    if is_remote(path):
        path.write_bytes(content)
        return
    partial = Path(path).with_name(f".{path.name}.new")  # the workdir is locked: no other run's
    partial.write_bytes(content)
    os.replace(partial, path)


def _parse(line: bytes) -> Attempt | None:
    try:
        row: Any = json.loads(line)
        attempt = Attempt(**row)
        known = {str(activity) for activity in Activity}
        times = [attempt.start, *attempt.seconds.values()]
        steps = [attempt.first_step, attempt.last_step]
        saved = [(int(step), float(seconds)) for step, seconds in attempt.saved]
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    if not (set(attempt.seconds) <= known and all(type(step) is int for step in steps)):
        return None
    if not all(type(value) in (int, float) and math.isfinite(value) for value in times):
        return None
    if attempt.ended is not None and not isinstance(attempt.ended, str):
        return None
    return attempt._replace(saved=saved)
