"""Jobs as processes of this machine, one after another or several at once."""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import IO, NamedTuple

from experiments.cli.exit_codes import ExitCode
from experiments.launching.devices import DeviceShare
from experiments.launching.job import Job

_POLL_SECONDS = 0.2
_TAIL_LINES = 12


class State(StrEnum):
    """The final state of a job."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # to be resumed
    BLOCKED = "blocked"  # the job that it comes after is not done


class Outcome(NamedTuple):
    """The end of a job."""

    state: State
    message: str  # of a failed job, with the last lines of its log


class _Process:
    """A running job: its current command, and those left."""

    def __init__(self, job: Job, log: IO[bytes], share: DeviceShare) -> None:
        self.job, self.share = job, share
        self._log = log
        self._left = deque(c for c in job.commands if not c.product.exists())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> bool:
        """Start the next command; return False if none is left."""
        if not self._left:
            return False
        command = self._left.popleft()
        # Unbuffered, or the log would lack the lines before an error.
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        if self.share.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.share.gpus)
        self._log.write(f"\n$ {command}\n".encode())
        self._log.flush()
        with _on_cores(self.share.cores):
            # A session of its own: Ctrl-C reaches only the launcher, which stops the jobs.
            self._process = subprocess.Popen(
                [sys.executable, *command.argv[1:]],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        return True

    def stop(self) -> None:
        """Ask the job to save and exit."""
        self._left.clear()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def outcome(self) -> Outcome | None:
        """Return how the job ended; None while it runs."""
        status = ExitCode.DONE if self._process is None else self._process.poll()
        if status is None or (status == ExitCode.DONE and self.start()):
            return None
        missing = [c for c in self.job.commands if not c.product.exists()]
        if status == ExitCode.DONE and not missing:
            return Outcome(State.DONE, "done")
        if status in (ExitCode.PREEMPTED, -signal.SIGTERM):
            return Outcome(State.STOPPED, "stopped; the same command resumes it")
        message = f"failed with exit status {status}"
        if status == ExitCode.DONE:
            message = f"failed: {missing[0]} succeeded without writing {missing[0].product}"
        return Outcome(State.FAILED, f"{message}; its log ends\n{self._last_lines()}")

    def close(self) -> None:
        """Close the log, which releases its lock."""
        self._log.close()

    def _last_lines(self) -> str:
        text = Path(self._log.name).read_text(encoding="utf-8", errors="replace")
        lines = [line for line in re.split(r"[\r\n]+", text) if line.strip()]
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:])


@contextlib.contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """Make processes that are started inside the context run on these cores."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class LocalLauncher:
    """A launcher of jobs on this machine, as many at once as there are shares of its devices.

    Each job has a log, which is locked while one of its processes is alive. If the launcher is
    killed, its processes go on, and the next launcher waits for them.

    Args:
        logs: the directory of the logs.
        shares: the devices of each of the jobs that run at once.
        log: receives a message when a job starts or ends.
    """

    def __init__(
        self, logs: Path, shares: Sequence[DeviceShare], log: Callable[[str], None]
    ) -> None:
        self._logs, self._free, self._report = logs, list(shares), log
        self._running: list[_Process] = []
        self._pending: list[Job] = []
        self._outcomes: dict[int, Outcome] = {}
        self._waited_for: set[int] = set()
        self.stopped = False  # by a signal

    def run(self, jobs: Sequence[Job]) -> dict[int, Outcome]:
        """Run all jobs, whether or not others fail; return outcomes by the jobs' numbers."""
        self._logs.mkdir(parents=True, exist_ok=True)
        self._pending = list(jobs)
        with self._signals():
            while self._running or self._pending:
                for job in list(self._pending):
                    self._start_if_ready(job)
                for process in list(self._running):
                    if outcome := process.outcome():
                        self._running.remove(process)
                        self._free.append(process.share)
                        process.close()
                        self._end(process.job, outcome)
                time.sleep(_POLL_SECONDS)
        return self._outcomes

    def _start_if_ready(self, job: Job) -> None:
        """Start a pending job if devices are free and the job that it comes after is done."""
        after = job.after
        before = None if after is None else self._outcomes.get(after)
        if self.stopped:
            self._end(job, Outcome(State.STOPPED, "was not started"))
        elif before is not None and before.state is not State.DONE:
            message = f"not started: job {after}, which it comes after, {before.state}"
            self._end(job, Outcome(State.BLOCKED, message))
        elif self._free and not self._waits(job) and (log := self._lock(job)):
            self._pending.remove(job)
            self._running.append(_Process(job, log, self._free.pop()))
            self._report(f"job {job.number} ({job.name}): log {log.name}")

    def _waits(self, job: Job) -> bool:
        """Return True while the job that it comes after has not ended."""
        open_jobs = self._pending + [process.job for process in self._running]
        return job.after in {one.number for one in open_jobs}

    def _end(self, job: Job, outcome: Outcome) -> None:
        if job in self._pending:
            self._pending.remove(job)
        self._outcomes[job.number] = outcome
        left = len(self._pending) + len(self._running)
        self._report(
            f"job {job.number} ({job.name}) {outcome.message}"
            + (f"; {left} to go" if outcome.state is State.DONE else "")
        )

    def _lock(self, job: Job) -> IO[bytes] | None:
        """Return the job's log, locked; None while another process holds it."""
        log = (self._logs / f"{job.log_name}.log").open("ab")
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.close()
            if job.number not in self._waited_for:
                self._waited_for.add(job.number)
                self._report(f"job {job.number} ({job.name}) is still running: waiting")
            return None
        return log

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass SIGTERM and Ctrl-C on to the jobs, which save and exit."""

        def stop(*_: object) -> None:
            self.stopped = True
            for process in self._running:
                process.stop()

        handled = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, stop) for number in handled]
        try:
            yield
        finally:
            for number, handler in zip(handled, before, strict=True):
                signal.signal(number, handler)


def run_jobs(jobs: Sequence[Job], logs: Path, shares: Sequence[DeviceShare]) -> ExitCode:
    """Run jobs on this machine with messages on stderr; return DONE if all of them are done."""

    def log(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    launcher = LocalLauncher(logs, shares, log)
    outcomes = launcher.run(jobs).values()
    if all(outcome.state is State.DONE for outcome in outcomes):
        return ExitCode.DONE
    failed = any(outcome.state in (State.FAILED, State.BLOCKED) for outcome in outcomes)
    return ExitCode.FAILED_POINTS if failed and not launcher.stopped else ExitCode.PREEMPTED
