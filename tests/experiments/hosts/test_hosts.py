"""Processes on this machine that are one run: they compute, fall and stop together."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import COMMAND, assert_same_params, start
from echoes import write_echoes

from experiments.cli.exit_codes import ExitCode
from experiments.metrics.metrics_file import read_metrics

sys.path.insert(0, str(Path(__file__).parent))

from pairs import SCENARIOS, STAND_IN

STEPS = 400
QUICK = ("kill", "differ", "terminate")


@pytest.mark.parametrize(
    "scenario",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in SCENARIOS if name not in QUICK),
    ],
)
def test_two_processes_end_as_documented_whatever_happens_to_one(
    tmp_path: Path, scenario: str
) -> None:
    fault = SCENARIOS[scenario](tmp_path, len(scenario) % 2, 0.3)
    assert fault is None


def test_a_single_process_that_hangs_prints_its_stacks() -> None:
    done = subprocess.run(
        [*STAND_IN, "--hang_seconds=1", "--fails_on=-3", "--failure=loader"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == ExitCode.PREEMPTED, done.stderr
    assert "in fail" in done.stderr
    assert "error: no step for" in done.stderr.splitlines()[-1]
    assert done.stdout.splitlines()[-1] == "step 2"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
    return port


def start_both(
    corpus: Path, workdir: Path, *flags: str, second: tuple[str, ...] = ()
) -> list[subprocess.Popen[str]]:
    shared = [f"--coordinator_address=localhost:{free_port()}", "--num_processes=2", *flags]
    return [
        start(corpus, workdir, *shared, f"--process_id={number}", *own, program=COMMAND)
        for number, own in enumerate([(), second])
    ]


def wait_for_checkpoint(workdir: Path, after: int) -> int:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        steps = [int(path.name) for path in workdir.glob("checkpoints/[0-9]*[0-9]")]
        if steps and max(steps) > after:
            return max(steps)
        time.sleep(0.05)
    raise TimeoutError("no checkpoint appeared")


@pytest.mark.slow
def test_two_processes_compute_what_one_does_and_fall_and_stop_together(tmp_path: Path) -> None:
    corpus = write_echoes(tmp_path / "corpus")
    flags = [f"--config.optimizer.num_train_steps={STEPS}", "--config.run.evaluate_every=200"]
    reference, workdir = tmp_path / "one", tmp_path / "two"
    one = start(corpus, reference, *flags, devices=2)
    one.communicate(timeout=900)
    assert one.returncode == 0

    step = 0
    for victim in (1, 0):
        both = start_both(corpus, workdir, *flags)
        step = wait_for_checkpoint(workdir, step)
        os.kill(both[victim].pid, signal.SIGKILL)
        killed = time.monotonic()
        _, said = both[1 - victim].communicate(timeout=90)
        assert time.monotonic() - killed < 30
        assert both[1 - victim].returncode == ExitCode.LOST_PROCESS
        assert f"error: process {victim} of 2 was lost" in said.splitlines()[-1]
        both[victim].communicate()

    both = start_both(corpus, workdir, *flags)
    wait_for_checkpoint(workdir, step)
    os.kill(both[1].pid, signal.SIGTERM)
    said = [process.communicate(timeout=90)[1] for process in both]
    assert [process.returncode for process in both] == [ExitCode.PREEMPTED] * 2, said
    assert "stopped and saved at step" in said[0]
    assert "saved at step" not in said[1]  # one process logs

    both = start_both(corpus, workdir, *flags)
    said = [process.communicate(timeout=900)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert_same_params(workdir, reference, rtol=1e-6)


@pytest.mark.slow
def test_of_three_hosts_exactly_the_slow_one_is_named(tmp_path: Path) -> None:
    """Its loader alone takes some steps' time for each batch."""
    corpus, workdir = write_echoes(tmp_path / "corpus"), tmp_path / "run"
    port, slow = free_port(), 1
    flags = ("--config.optimizer.num_train_steps=24", "--config.run.log_every=4")
    processes = [
        start(
            corpus,
            workdir,
            *(f"--coordinator_address=localhost:{port}", "--num_processes=3", *flags),
            *(f"--process_id={number}", "--config.run.evaluate_every=24"),
            *("--config.global_batch_size=18", "--config.run.evaluation_batch_size=30"),
            program=(str(Path(__file__).with_name("slow_pretrain.py")),),
            LOADER_SECONDS="2" if number == slow else "0",
        )
        for number in range(3)
    ]
    said = [process.communicate(timeout=900)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    named = [line for line in said[0].splitlines() if "is slow" in line]
    assert named and all(f"process {slow} ({socket.gethostname()})" in line for line in named)
    assert not any("is slow" in line for text in said[1:] for line in text.splitlines())
    entries = [entry for entry in read_metrics(workdir) if entry["split"] == "train"]
    assert len(entries) == 6
    for entry in entries[1:]:
        assert entry["host_stall_share_max_process"] == slow
        assert entry["loader_wait_share_max_process"] == slow
        assert entry["host_stall_share_median"] < 0.2 < entry["host_stall_share_max"]
        assert entry["host_seconds_per_step_max"] > 1.4 > entry["host_seconds_per_step_median"]
    assert len(named) == 1


@pytest.mark.slow
def test_processes_with_other_experiments_or_a_mistake_do_not_train(tmp_path: Path) -> None:
    corpus, workdir = write_echoes(tmp_path / "corpus"), tmp_path / "run"
    other = write_echoes(tmp_path / "other", documents=500)
    for second, expected in (
        (
            ("--config.optimizer.num_train_steps=70", "--config.optimizer.learning_rate=0.5"),
            "--config.optimizer.num_train_steps is 60 on process 0, 70 on process 1",
        ),
        ((f"--config.data.corpus_dir={other}",), "fingerprint of the corpus is"),
        ((f"--config.data.corpus_dir={tmp_path}/none",), f"{tmp_path}/none"),
    ):
        both = start_both(corpus, workdir, second=second)
        said = [process.communicate(timeout=600)[1] for process in both]
        assert [process.returncode for process in both] == [ExitCode.BAD_INPUT] * 2, said
        assert all(expected in text.splitlines()[-1] for text in said), said
        assert not workdir.exists()
