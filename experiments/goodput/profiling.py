"""Profiles of a run's steps: JAX's traces, of one host or all."""

import shutil
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

import jax
from etils import epath

from albert_jax.input_files import is_remote
from albert_jax.settings import FieldError
from data_pipeline.remote import make_directory
from experiments.goodput.clock import Activity, during

PROFILE_DIRECTORY = "profile"  # in a workdir
MOST_STEPS = 100  # a second of a trace may take 100 MB


class ProfiledProcesses(StrEnum):
    """Processes of a run that write a profile."""

    FIRST = "first"
    ALL = "all"


class ProfiledSteps(NamedTuple):
    """The first and last step of a profile, both included."""

    first: int
    last: int


def parse_steps(text: str | None) -> ProfiledSteps | None:
    """Return the steps of a text such as ``100:110``; None for None.

    Raises:
        FieldError: it has another form, or names too many steps.
    """
    if text is None:
        return None
    first, colon, last = (part.strip() for part in text.partition(":"))
    if colon and first.isdecimal() and last.isdecimal():
        steps = ProfiledSteps(int(first), int(last))
        if 1 <= steps.first <= steps.last < steps.first + MOST_STEPS:
            return steps
    allowed = f"FIRST:LAST, from 1 on and at most {MOST_STEPS} steps, or none"
    raise FieldError("profile_steps", allowed, text)


def check_profile(text: str | None, num_steps: int) -> None:
    """Check that a run takes the steps to be profiled.

    Raises:
        FieldError: it ends before them.
    """
    if (steps := parse_steps(text)) and steps.last > num_steps:
        allowed = f"up to the run's last step, optimizer.num_train_steps ({num_steps})"
        raise FieldError("run.profile_steps", allowed, text)


class ProfileSettings(Protocol):
    """The settings of a run about its profile."""

    @property
    def profile_steps(self) -> str | None: ...

    @property
    def profile_processes(self) -> ProfiledProcesses: ...


class Profiler:
    """A profile of some steps, written into ``profile/process_<number>`` of the workdir.

    Args:
        run: which steps, and which processes write a profile.
        workdir: local or remote.
        say: prints a line.
    """

    def __init__(
        self, run: ProfileSettings, workdir: epath.Path, say: Callable[[str], None]
    ) -> None:
        number = jax.process_index()
        takes_part = number == 0 or run.profile_processes is ProfiledProcesses.ALL
        self._steps = parse_steps(run.profile_steps) if takes_part else None
        self._target = workdir / PROFILE_DIRECTORY / f"process_{number}"
        self._say, self._local = say, Path(self._target)
        self._is_active, self._first = False, 0

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_active:
            self._stop()

    def advance(self, step: int) -> None:
        """Begin or end the profile, if due, between a step and the next one.

        The results of the steps before the given one are known.
        """
        if self._steps is None:
            return
        if self._is_active:
            if step > self._steps.last:
                self._stop()
        elif self._steps.first <= step + 1 <= self._steps.last:
            self._start(step + 1)

    def _start(self, first: int) -> None:
        if is_remote(self._target):  # JAX writes to local directories
            self._local = Path(tempfile.mkdtemp(prefix="albert-jax-profile-"))
        jax.profiler.start_trace(str(self._local))
        self._is_active, self._first = True, first

    def _stop(self) -> None:
        assert self._steps is not None
        with during(Activity.LOGGING):
            jax.profiler.stop_trace()
            self._is_active, last, self._steps = False, self._steps.last, None
            if is_remote(self._target):
                for file in filter(Path.is_file, self._local.rglob("*")):
                    copy = self._target / file.relative_to(self._local).as_posix()
                    make_directory(copy.parent)
                    copy.write_bytes(file.read_bytes())
                shutil.rmtree(self._local)
        self._say(f"profile of steps {self._first} to {last}: {self._target}")
