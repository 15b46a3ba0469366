"""Launch files, run by bash among stand-ins for the programs that they call."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.cli.exit_codes import ExitCode

FOLDER = Path("experiments/launch").resolve()
SLURM, MPI, TPU = (FOLDER / n for n in ("slurm.sbatch", "mpirun.sh", "tpu_queued_resource.sh"))
# Statuses after which a run starts again, and those after which it is over.
AGAIN = (ExitCode.PREEMPTED, ExitCode.LOST_PROCESS, 128 + signal.SIGKILL)
OVER = (ExitCode.DONE, ExitCode.BAD_INPUT, ExitCode.NON_FINITE, ExitCode.FAULTY_DEVICE, 1)

# Starts processes that end with the statuses in a file, one line each time; "wait" is the status 75
# after a signal. Its arguments are written one per line.
LAUNCHER = """
printf '%s\\n' "$@" > "$HERE/{name}.$(ls "$HERE" | grep -c '^{name}\\.')"
status=$(head -n 1 "$HERE/statuses")
sed -i 1d "$HERE/statuses"
if [ "$status" != wait ]; then exit "$status"; fi
{on_signal}
touch "$HERE/waiting"
until [ -e "$HERE/signaled" ]; do sleep 0.02; done
exit 75
"""


class Launch:
    """A launch file that runs among stand-ins.

    Args:
        file: the launch file.
        here: a directory of its own.
        programs: bodies of shell scripts by name.
        statuses: the statuses of the processes that are started, in turn.
    """

    def __init__(
        self, file: Path, here: Path, programs: Mapping[str, str], statuses: Sequence[object]
    ) -> None:
        self._file, self.here = file, here
        (here / "bin").mkdir()
        for name, body in programs.items():
            program = here / "bin" / name
            program.write_text(f"#!/bin/bash\necho {name} $* >> $HERE/calls\n{body}\n")
            program.chmod(0o755)
        (here / "statuses").write_text(
            "".join(f"{int(s) if s != 'wait' else s}\n" for s in statuses)
        )

    def start(self, *flags: str, **environment: str) -> "subprocess.Popen[str]":
        path = f"{self.here}/bin:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", self._file, *flags],
            env={"PATH": path, "HERE": str(self.here), **environment},
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.here,
        )

    def run(self, *flags: str, **environment: str) -> int:
        process = self.start(*flags, **environment)
        process.communicate(timeout=600)
        return process.returncode

    def calls(self, start: str) -> list[str]:
        lines = (self.here / "calls").read_text().splitlines()
        return [line for line in lines if line.startswith(start)]

    def given(self, name: str) -> list[str]:
        """The words that a launcher was given the first time."""
        return (self.here / f"{name}.0").read_text().splitlines()


def start_and_terminate(launch: Launch, **environment: str) -> int:
    process = launch.start(**environment)
    while not (launch.here / "waiting").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=600)
    return process.returncode
