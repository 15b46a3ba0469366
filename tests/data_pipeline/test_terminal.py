"""Printing is never what fails: poor encodings, readers that leave, closed and full streams."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PRINT = """
import sys
from data_pipeline.terminal import protect_output
protect_output()
for number in range(20_000 if "much" in sys.argv else 1):
    print("an é, a ≈ and a 中")
    print("a warning: é ≈ 中", file=sys.stderr)
sys.stdout.flush()
open(sys.argv[1], "w").write("worked")
"""


def run_it(
    tmp_path: Path, redirections: str, *arguments: str, encoding: str = "utf-8"
) -> "subprocess.CompletedProcess[bytes]":
    script = tmp_path / "prints.py"
    script.write_text(PRINT)
    words = " ".join([sys.executable, str(script), str(tmp_path / "done"), *arguments])
    return subprocess.run(
        ["bash", "-c", f"{words} {redirections}"],
        capture_output=True,
        env={
            **os.environ,
            "PYTHONIOENCODING": encoding,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        check=False,
    )


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "an é, a ≈ and a 中\n".encode()),
        ("latin-1", b"an \xe9, a ? and a ?\n"),
        ("ascii", b"an ?, a ? and a ?\n"),
    ],
)
def test_characters_that_a_terminal_has_not_are_replaced(
    tmp_path: Path, encoding: str, expected: bytes
) -> None:
    done = run_it(tmp_path, "", encoding=encoding)
    assert (done.returncode, done.stdout) == (0, expected)
    assert done.stderr.startswith(b"a warning: ")


@pytest.mark.parametrize(
    "redirections",
    ["| head -1", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", "2>&1 | head -1"],
)
def test_streams_that_are_closed_or_that_nobody_reads_stop_nothing(
    tmp_path: Path, redirections: str
) -> None:
    done = run_it(tmp_path, redirections, "much")
    assert done.returncode == 0
    assert b"Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "done").read_text() == "worked"  # and nothing that was printed is in it


def test_results_that_a_full_disk_does_not_take_are_an_error_once(tmp_path: Path) -> None:
    done = run_it(tmp_path, ">/dev/full")
    assert done.returncode == 1
    assert done.stderr.decode().endswith("OSError: [Errno 28] No space left on device\n")
