"""Two processes of one run on this machine, and what happens to them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from compilation import XLA_FLAGS

ROOT = Path(__file__).parents[3]
STAND_IN = (sys.executable, str(ROOT / "tests/experiments/hosts/stand_in.py"))
LONGEST = 30.0  # seconds until the others end
# Starting a process may take minutes on a machine that runs other tests at the same time.
PATIENCE = 600.0


class Ended(NamedTuple):
    """How both processes ended."""

    statuses: list[int]
    errors: list[str]
    seconds: float  # from what happened to the end of the last one

    def fault(self, *expected: int) -> str | None:
        """What is wrong: another status, not one line, or too late."""
        if self.statuses != list(expected):
            return f"statuses {self.statuses}, not {list(expected)}: {self.errors}"
        for status, error in zip(self.statuses, self.errors, strict=True):
            lines = len(error.splitlines())
            if lines != (1 if status in (2, 3, 4) else 0):
                return f"status {status} with {lines} lines: {error}"
        if self.seconds > LONGEST:
            return f"{self.seconds:.1f} s"
        return None


class Pair:
    """Two processes of the stand-in command."""

    def __init__(
        self, directory: Path, *flags: str, own: Sequence[Sequence[str]] = ((), ())
    ) -> None:
        self._outputs = [directory / f"output{number}" for number in range(2)]
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        shared = [f"--coordinator_address=localhost:{port}", "--num_processes=2"]
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": XLA_FLAGS,
            "PYTHONPATH": str(ROOT),
        }
        self.processes = []
        for number, flags_of_one in enumerate(own):
            with self._outputs[number].open("w") as output:
                self.processes.append(
                    subprocess.Popen(
                        [
                            *(*STAND_IN, *shared, f"--process_id={number}"),
                            *(*flags, *flags_of_one),
                        ],
                        env=environment,
                        stdout=output,
                        stderr=subprocess.PIPE,
                        text=True,
                    )
                )

    def wait_for(self, line: str, number: int = 0) -> None:
        """Wait until a process has printed a line."""
        deadline = time.monotonic() + PATIENCE
        while f"\n{line}\n" not in f"\n{self._outputs[number].read_text()}":
            if self.processes[number].poll() is not None:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {number} did not print {line!r}")
            time.sleep(0.02)

    def signal(self, number: int, which: signal.Signals) -> None:
        self.processes[number].send_signal(which)

    def end(self, happened: float | None = None, *, continues: int | None = None) -> Ended:
        """Wait for both. A stopped one continues when the other has ended."""
        order = [0, 1] if continues is None else [1 - continues, continues]
        errors, seconds = {}, 0.0
        for number in order[: len(self.processes)]:
            if number == continues:
                self.signal(number, signal.SIGCONT)
            errors[number] = self.processes[number].communicate(timeout=PATIENCE)[1]
            if number != continues:
                seconds = time.monotonic() - (happened or time.monotonic())
        statuses = [process.returncode for process in self.processes]
        return Ended(statuses, [errors[number] for number in sorted(errors)], seconds)


@contextlib.contextmanager
def started(*arguments: object, **named: object) -> Iterator[Pair]:
    """Yield a pair, and leave nothing of it behind."""
    pair = Pair(*arguments, **named)  # type: ignore[arg-type]
    try:
        yield pair
    finally:
        for process in pair.processes:
            process.kill()
            process.wait()


def strike(
    directory: Path, which: signal.Signals, victim: int, delay: float, *flags: str
) -> tuple[Ended, int]:
    """Send a signal to one of two that are stepping."""
    with started(directory, *flags) as pair:
        pair.wait_for("step 1")
        time.sleep(delay)
        pair.signal(victim, which)
        happened = time.monotonic()
        return pair.end(happened, continues=victim if which == signal.SIGSTOP else None), victim


def kill(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    ended, _ = strike(directory, signal.SIGKILL, victim, delay, *flags)
    return ended.fault(*((-9, 4) if victim == 0 else (4, -9)))


def stop(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    ended, _ = strike(directory, signal.SIGSTOP, victim, delay, *flags)
    return ended.fault(4, 4)


def terminate(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    ended, _ = strike(directory, signal.SIGTERM, victim, delay, *flags)
    return ended.fault(75, 75)


def fail(failure: str, *, statuses: Callable[[int], tuple[int, int]]) -> Callable[..., str | None]:
    """Let one of two fail."""

    def scenario(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
        at = 1 + int(10 * delay)
        given = (f"--fails_on={victim}", f"--fails_at={at}", f"--failure={failure}")
        with started(directory, *given, *flags) as pair:
            pair.wait_for(f"step {at}", 1 - victim)
            ended = pair.end(time.monotonic())
        if failure == "bug" and "ZeroDivisionError: a bug" in ended.errors[victim]:
            ended.errors[victim] = ""  # a traceback
        return ended.fault(*statuses(victim))

    return scenario


def differ(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    with started(directory, *flags, own=(["--fact=1"], [f"--fact={2 + victim}"])) as pair:
        pair.wait_for("joined", 0)
        ended = pair.end(time.monotonic())
    wanted = f"seed is 1 on process 0, {2 + victim} on process 1"
    missing = None if all(wanted in error for error in ended.errors) else f"{ended.errors}"
    return ended.fault(2, 2) or missing


def one_alone(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    with started(directory, "--join_seconds=4", *flags) as pair:
        pair.signal(victim, signal.SIGKILL)
        pair.wait_for("started", 1 - victim)
        ended = pair.end(time.monotonic())
    expected = (-9, 2) if victim == 0 else (2, -9)
    wanted = f"process {victim} "
    missing = None if wanted in ended.errors[1 - victim] else f"{ended.errors}"
    return ended.fault(*expected) or missing


def say_goodbye_late(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    late = (f"--late={victim}", f"--late_seconds={2 * delay}", "--steps=3")
    with started(directory, *late, *flags) as pair:
        pair.wait_for("done", victim)
        return pair.end(time.monotonic()).fault(0, 0)


def kill_late(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    """The other one is done and stays so."""
    late = (f"--late={victim}", "--late_seconds=100", "--steps=3")
    with started(directory, *late, *flags) as pair:
        pair.wait_for("done", 0)
        pair.wait_for("done", 1)
        time.sleep(1 + delay)
        pair.signal(victim, signal.SIGKILL)
        return pair.end(time.monotonic()).fault(*((-9, 0) if victim == 0 else (0, -9)))


def hang(failure: str) -> Callable[..., str | None]:
    """Let one of two hang; the watchdogs of both end them, with the stacks of all threads."""

    def scenario(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
        given = (f"--fails_on={victim}", f"--failure={failure}", "--hang_seconds=4")
        with started(directory, *given, *flags) as pair:
            pair.wait_for("step 3", 1 - victim)
            ended = pair.end(time.monotonic())
        return hung_fault(ended, "in fail", victim)

    return scenario


def fail_to_save(directory: Path, victim: int, delay: float, *flags: str) -> str | None:
    """Let both save, one of them on what is as good as a full disk."""
    given = (f"--fails_on={victim}", "--failure=save", f"--directory={directory}/checkpoints")
    with started(directory, *given, *flags) as pair:
        pair.wait_for("step 2", 1 - victim)
        ended = pair.end(time.monotonic())
    wrong = [error for error in ended.errors if "cannot save step 1" not in error]
    return ended.fault(2, 2) or (f"{ended.errors}" if wrong else None)


def hung_fault(ended: Ended, function: str, victim: int) -> str | None:
    if ended.statuses != [75, 75] or ended.seconds > LONGEST:
        return f"{ended}"
    for error in ended.errors:
        if "Thread 0x" not in error or "no step for" not in error.splitlines()[-1]:
            return error
    return None if function in ended.errors[victim] else ended.errors[victim]


SCENARIOS: dict[str, Callable[..., str | None]] = {
    "kill": kill,
    "stop": stop,
    "terminate": terminate,
    "bad input": fail("input", statuses=lambda victim: (2, 2)),
    "bug": fail("bug", statuses=lambda victim: (1, 4) if victim == 0 else (4, 1)),
    "no room to save": fail_to_save,
    "differ": differ,
    "one alone": one_alone,
    "late goodbye": say_goodbye_late,
    "kill after the end": kill_late,
    "hanging loader": hang("loader"),
    "waiting for each other": hang("other barrier"),
}
