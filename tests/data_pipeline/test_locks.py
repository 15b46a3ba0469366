"""Locks of directories: one user at a time; a killed one leaves nothing that blocks."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_pipeline import locks
from data_pipeline.errors import InputError
from data_pipeline.locks import LOCK_FILE, lock

HOLD = """
import sys, time
from data_pipeline.locks import lock
with lock(sys.argv[1], "run"):
    print("locked", flush=True)
    time.sleep(600)
"""


def hold_in_another_process(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_second_is_refused_by_name_and_a_killed_one_does_not_block(tmp_path: Path) -> None:
    process = hold_in_another_process(tmp_path)
    try:
        with (
            pytest.raises(
                InputError,
                match=rf"{tmp_path} is in use by another run \(host {os.uname().nodename}, "
                rf"process {process.pid}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\)",
            ),
            lock(tmp_path, "run"),
        ):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (tmp_path / LOCK_FILE).exists()
    with lock(tmp_path, "run") as check:
        assert json.loads((tmp_path / LOCK_FILE).read_text())["process"] == os.getpid()
        check()
        with pytest.raises(InputError, match=f"process {os.getpid()}"), lock(tmp_path, "run"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_many_at_once_are_never_two(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0

    def enter() -> None:
        nonlocal inside, most, entered
        for _ in range(100):
            try:
                with lock(tmp_path, "run"):
                    inside += 1
                    most, entered = max(most, inside), entered + 1
                    time.sleep(0)
                    inside -= 1
            except InputError:
                time.sleep(0)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered > 10


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory as a store without locks, in whose leases a second is as long as a minute."""
    monkeypatch.setattr(locks, "is_remote", lambda _: True)
    monkeypatch.setattr(locks, "RENEWAL_SECONDS", 0.1)
    monkeypatch.setattr(locks, "EXPIRY_SECONDS", 0.6)
    monkeypatch.setattr(locks, "SETTLING_SECONDS", 0.02)


def test_a_lease_that_is_renewed_refuses_others(tmp_path: Path, quick_leases: None) -> None:
    with lock(tmp_path, "run") as check:
        with pytest.raises(InputError, match=f"in use by another run .*process {os.getpid()}"):
            lock(tmp_path, "run").__enter__()
        check()
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_nobody_renews_expires(
    tmp_path: Path, quick_leases: None, caplog: pytest.LogCaptureFixture
) -> None:
    left_behind = {"host": "node7", "process": 4711, "since": "2026-01-31 12:00:00 UTC"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(left_behind))
    with lock(tmp_path, "run"):
        pass
    assert "the lease of another run (host node7, process 4711, since 2026-01-31" in caplog.text


def test_a_lease_that_was_lost_is_noticed(tmp_path: Path, quick_leases: None) -> None:
    with lock(tmp_path, "run") as check:
        other = {"host": "node7", "process": 4711, "since": "2026-01-31 12:00:00 UTC"}
        (tmp_path / LOCK_FILE).write_text(json.dumps(other))
        time.sleep(0.3)
        with pytest.raises(InputError, match="host node7, process 4711"):
            check()
    assert (tmp_path / LOCK_FILE).exists()  # the other one's
