"""Jobs: launched, failing in part, stopped, resumed; and their Slurm scripts."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import ROOT

from data_pipeline.errors import InputError
from experiments.cli.exit_codes import ExitCode
from experiments.launching import processes
from experiments.launching.devices import DeviceShare, divide_devices
from experiments.launching.job import Command, Job
from experiments.launching.processes import LocalLauncher
from experiments.launching.slurm import shell_lines, write_slurm_scripts

TOUCH = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"


def make_job(directory: Path, number: int, *codes: str, after: int | None = None) -> Job:
    """A job whose commands run Python code with the path of their product as argument."""
    products = [directory / f"product_{number}_{i}" for i in range(len(codes))]
    commands = tuple(
        Command(("python", "-c", code, str(product)), product)
        for code, product in zip(codes, products, strict=True)
    )
    return Job(number, f"row{number}, seed 7", f"row{number}-seed_7", commands, after)


class Launched:
    """A launcher's run: its log messages, and the states of the jobs."""

    def __init__(self, directory: Path, jobs: Sequence[Job], parallel: int = 1) -> None:
        self.logged: list[str] = []
        self.launcher = LocalLauncher(
            directory / "logs", [DeviceShare()] * parallel, self.logged.append
        )
        outcomes = self.launcher.run(jobs)
        self.states = [str(outcomes[number].state) for number in sorted(outcomes)]
        self.message = [outcomes[number].message for number in sorted(outcomes)]


def test_a_failed_job_is_reported_with_its_last_lines_and_the_others_run(tmp_path: Path) -> None:
    fails = "print('one'); print('two\\rthree'); raise SystemExit('the end of it')"
    jobs = [
        make_job(tmp_path, 0, TOUCH, fails, TOUCH),
        make_job(tmp_path, 1, TOUCH, after=0),
        make_job(tmp_path, 2, TOUCH, TOUCH),
        make_job(tmp_path, 3, "pass"),
        make_job(tmp_path, 4, TOUCH, after=2),
    ]
    run = Launched(tmp_path, jobs)
    assert run.states == ["failed", "blocked", "done", "failed", "done"]
    assert run.message[0].startswith("failed with exit status 1; its log ends\n")
    assert run.message[0].endswith("    one\n    two\n    three\n    the end of it")
    assert "job 0, which it comes after, failed" in run.message[1]
    assert "succeeded without writing" in run.message[3]
    assert not (tmp_path / "product_0_2").exists()
    assert not (tmp_path / "product_1_0").exists()
    assert any("job 0 (row0, seed 7) failed with exit status 1" in line for line in run.logged)


def test_finished_commands_are_not_repeated(tmp_path: Path) -> None:
    once = "import os, sys; os.mkdir(sys.argv[1])"  # fails the second time
    jobs = [make_job(tmp_path, 0, once, once)]
    assert Launched(tmp_path, jobs).states == ["done"]
    assert Launched(tmp_path, jobs).states == ["done"]
    (tmp_path / "product_0_1").rmdir()
    assert Launched(tmp_path, jobs).states == ["done"]
    assert (tmp_path / "logs/row0-seed_7.log").read_text().count("$ python") == 3


def test_jobs_run_at_once_and_one_waits_for_the_one_it_comes_after(tmp_path: Path) -> None:
    """Each of the first two ends only when the other has begun; the third finds both done."""
    meets = (
        "import pathlib, sys, time; here = pathlib.Path(sys.argv[1])\n"
        "(here.parent / f'began{here.name}').touch()\n"
        "while len(list(here.parent.glob('began*'))) < 2: time.sleep(0.01)\n"
        "here.touch()"
    )
    third = (
        "import pathlib, sys; here = pathlib.Path(sys.argv[1])\n"
        "assert (here.parent / 'product_1_0').exists(); here.touch()"
    )
    jobs = [
        make_job(tmp_path, 0, meets),
        make_job(tmp_path, 1, meets),
        make_job(tmp_path, 2, third, after=1),
    ]
    assert Launched(tmp_path, jobs, parallel=2).states == ["done"] * 3


@pytest.mark.parametrize("status", [ExitCode.PREEMPTED, ExitCode.DONE])
def test_a_signal_stops_the_jobs_which_save(tmp_path: Path, status: ExitCode) -> None:
    """Status 0 is that of a run whose last step was just being saved: its probe is left."""
    saves = (
        "import pathlib, signal, sys, time\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "def save(*_):\n"
        "    here.with_suffix('.saved').touch()\n"
        f"    {'here.touch()' if status is ExitCode.DONE else ''}\n"
        f"    sys.exit({int(status)})\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "here.with_suffix('.began').touch()\n"
        "time.sleep(60)"
    )
    jobs = [make_job(tmp_path, 0, saves, TOUCH), make_job(tmp_path, 1, TOUCH)]

    def interrupt() -> None:
        while not (tmp_path / "product_0_0.began").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    run = Launched(tmp_path, jobs)
    thread.join()
    assert run.launcher.stopped
    assert run.states == ["stopped", "stopped"]
    assert (tmp_path / "product_0_0.saved").exists()
    assert not (tmp_path / "product_0_1").exists()
    assert not (tmp_path / "product_1_0").exists()


def test_a_signal_that_comes_while_a_command_is_started_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen, started = subprocess.Popen, []

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        if len(started) == 2:  # the first command has ended, the second one is not known yet
            os.kill(os.getpid(), signal.SIGTERM)
        return popen(*arguments, **options)

    monkeypatch.setattr(processes.subprocess, "Popen", start)
    slow = "import pathlib, sys, time; time.sleep(20); pathlib.Path(sys.argv[1]).touch()"
    run = Launched(tmp_path, [make_job(tmp_path, 0, TOUCH, slow)])
    assert run.states == ["stopped"]
    assert not (tmp_path / "product_0_1").exists()


def test_a_job_that_is_still_running_is_waited_for(tmp_path: Path) -> None:
    """The launcher was killed; its child process goes on, and holds the log's lock."""
    slow = (
        "import pathlib, sys, time; here = pathlib.Path(sys.argv[1]); time.sleep(1.5); "
        "assert not here.exists(); here.touch()"
    )
    job = make_job(tmp_path, 0, slow)
    dies = (
        "import os, pathlib, sys, threading, time\n"
        "sys.path[:0] = [os.getcwd(), 'tests/experiments', 'tests/experiments/launching']\n"
        "from test_launching import DeviceShare, LocalLauncher, make_job\n"
        "here = pathlib.Path(sys.argv[1])\n"
        "def die():\n"
        "    while not list(here.glob('logs/*')): time.sleep(0.01)\n"
        "    time.sleep(0.3); os._exit(9)\n"
        "threading.Thread(target=die).start()\n"
        f"LocalLauncher(here / 'logs', [DeviceShare()], print).run([make_job(here, 0, {slow!r})])"
    )
    killed = subprocess.run([sys.executable, "-c", dies, tmp_path], cwd=ROOT, check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "product_0_0").exists()
    run = Launched(tmp_path, [job])
    assert run.states == ["done"]
    assert run.logged[0] == "job 0 (row0, seed 7) is still running: waiting"


def test_devices_are_divided_among_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 5, 6, 7})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert divide_devices(1, None) == [DeviceShare()]
    assert divide_devices(2, None) == [DeviceShare(("0", "1")), DeviceShare(("2", "3"))]
    assert divide_devices(2, ["5", "7"]) == [DeviceShare(("5",)), DeviceShare(("7",))]
    with pytest.raises(InputError, match=r"--max_parallel=3 must divide the 4 GPUs \(0, 1, 2, 3\)"):
        divide_devices(3, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert divide_devices(1, None) == [DeviceShare()]
    assert divide_devices(2, None) == [DeviceShare(cores=(1, 2)), DeviceShare(cores=(5, 6))]
    assert divide_devices(6, None) == [DeviceShare()] * 6


def test_jobs_run_on_their_own_cores(tmp_path: Path) -> None:
    cores = sorted(os.sched_getaffinity(0))
    tells = (
        "import os, pathlib, sys\n"
        "pathlib.Path(sys.argv[1]).write_text(str(sorted(os.sched_getaffinity(0))))"
    )
    jobs = [make_job(tmp_path, number, tells) for number in range(2)]
    shares = [DeviceShare(cores=(cores[0],)), DeviceShare(cores=(cores[-1],))]
    LocalLauncher(tmp_path / "logs", shares, print).run(jobs)
    told = {(tmp_path / f"product_{number}_0").read_text() for number in range(2)}
    assert told == {str([cores[0]]), str([cores[-1]])}
    assert sorted(os.sched_getaffinity(0)) == cores


def test_slurm_scripts_run_their_jobs_and_requeue_stopped_ones(tmp_path: Path) -> None:
    stops = f"import sys; sys.exit({int(ExitCode.PREEMPTED)})"
    jobs = [
        make_job(tmp_path, 0, TOUCH, TOUCH),
        make_job(tmp_path, 1, stops, TOUCH),
        make_job(tmp_path, 2, TOUCH, after=1),
    ]
    directory = tmp_path / "sweep"
    submit = write_slurm_scripts(jobs, directory, ["--partition=gpu"])
    assert "#SBATCH --array=1-2\n" in (directory / "jobs_0.sbatch").read_text()
    assert "#SBATCH --partition=gpu\n" in (directory / "jobs_1.sbatch").read_text()
    assert "--dependency=afterany:$job0 " in submit.read_text()
    assert len(shell_lines(jobs)) == 3

    binaries = tmp_path / "bin"
    binaries.mkdir()
    for name, text in {
        "srun": 'exec "$@"',
        "scontrol": f'echo "$@" > {tmp_path}/requeued',
        "python": f'exec {sys.executable} "$@"',
    }.items():
        (binaries / name).write_text(f"#!/bin/bash\n{text}\n")
        (binaries / name).chmod(0o755)

    def run(task: int) -> int:
        environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "SLURM_ARRAY_JOB_ID": "12"}
        environment["SLURM_ARRAY_TASK_ID"] = str(task)
        script = directory / "jobs_0.sbatch"
        return subprocess.run(["bash", script], env=environment, check=False).returncode

    assert run(1) == 0
    assert (tmp_path / "product_0_1").exists()
    assert run(2) == ExitCode.PREEMPTED
    assert (tmp_path / "requeued").read_text() == "requeue 12_2\n"
    assert not (tmp_path / "product_1_1").exists()
