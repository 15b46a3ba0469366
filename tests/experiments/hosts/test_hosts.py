"""Two processes on this machine are one run: they compute, fall and stop together."""

import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from commands import COMMAND, assert_same_params, start
from echoes import write_echoes

from experiments.cli.exit_codes import ExitCode

STEPS = 400


def start_both(corpus: Path, workdir: Path, *flags: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = [f"--coordinator_address=localhost:{port}", "--num_processes=2", *flags]
    return [
        start(corpus, workdir, *shared, f"--process_id={number}", program=COMMAND)
        for number in range(2)
    ]


def wait_for_checkpoint(workdir: Path, after: int) -> int:
    deadline = time.monotonic() + 180
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
    one.communicate(timeout=300)
    assert one.returncode == 0

    step = 0
    for victim in (1, 0):
        both = start_both(corpus, workdir, *flags)
        step = wait_for_checkpoint(workdir, step)
        os.kill(both[victim].pid, signal.SIGKILL)
        killed = time.monotonic()
        _, said = both[1 - victim].communicate(timeout=90)
        assert time.monotonic() - killed < 60
        assert both[1 - victim].returncode not in (0, ExitCode.PREEMPTED)
        assert re.search(r"lost another one of 2|another task died|heartbeat", said), said
        both[victim].communicate()

    both = start_both(corpus, workdir, *flags)
    wait_for_checkpoint(workdir, step)
    os.kill(both[1].pid, signal.SIGTERM)
    said = [process.communicate(timeout=90)[1] for process in both]
    assert [process.returncode for process in both] == [ExitCode.PREEMPTED] * 2, said
    assert "stopped and saved at step" in said[0]
    assert "saved at step" not in said[1]  # one process logs

    both = start_both(corpus, workdir, *flags)
    said = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert_same_params(workdir, reference, rtol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_processes=2"], "several hosts need all of --coordinator_address, --num_proc"),
        (
            ["--coordinator_address=localhost:1", "--num_processes=2", "--process_id=2"],
            "--process_id must be from 0 to 1, got 2",
        ),
    ],
)
def test_host_flags_that_do_not_fit_are_reported(
    tmp_path: Path, flags: list[str], message: str
) -> None:
    process = start(tmp_path / "corpus", tmp_path / "run", *flags)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == ExitCode.BAD_INPUT
    assert errors.splitlines()[-1].startswith(f"error: {message}")
