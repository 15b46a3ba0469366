"""Printing is never what fails; progress is a bar on a terminal and lines elsewhere."""

import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_pipeline import terminal
from data_pipeline.terminal import (
    ByteProgress,
    elapsed_time,
    format_seconds,
    log_in_lines,
    suggest,
)

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


def test_durations_have_two_units() -> None:
    seconds = (4.06, 35.4, 59.7, 125, 4800, 273_600)
    shown = ["4.1 s", "35 s", "1 min 0 s", "2 min 5 s", "1 h 20 min", "3 d 4 h"]
    assert list(map(format_seconds, seconds)) == shown


def without_numbers(text: str) -> list[str]:
    return re.sub(r"\d+\.\d+|\d+(?= s)", "N", text).splitlines()


def test_progress_that_nobody_watches_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with ByteProgress("Encoding", 3_000_000) as progress:
        progress.move_to(1_000_000)  # too soon to be told
        monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0)
        progress.move_to(2_000_000)
    first, last = without_numbers(capsys.readouterr().err)
    assert re.fullmatch(r"Encoding: N MB of N MB, N [MG]B/s, N s to go", first)
    assert re.fullmatch(r"Encoding: N MB in N s, N [MG]B/s", last)

    said, thought_on = [], threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if text.endswith("so far"):
            thought_on.set()

    monkeypatch.setattr(terminal, "say", say)
    monkeypatch.setattr(terminal, "_SECONDS_BETWEEN_LINES", 0.01)
    with elapsed_time("Thinking"):
        assert thought_on.wait(60)
    first, second, *_, last = without_numbers("\n".join(said))
    assert (first, second) == ("Thinking ...", "Thinking: N s so far")
    assert last == "Thinking: N s"


def test_a_terminal_has_a_bar_instead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "is_watched", lambda: True)
    with ByteProgress("Encoding", 3_000_000) as progress, elapsed_time("Thinking"):
        progress.move_to(3_000_000)
    shown = capsys.readouterr().err
    assert "3.00M/3.00M" in shown and "Thinking: 00:00" in shown
    assert " in " not in shown and "..." not in shown


def test_a_warning_is_one_line_whatever_handlers_libraries_add(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler()])
    log_in_lines()
    logging.getLogger("library").warning("step %d was damaged", 20)
    assert capsys.readouterr().err == "warning: step 20 was damaged\n"


def test_the_next_command_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    suggest("experiments.predict", "--text=Paris is [MASK].")
    line = "next: python -m experiments.predict '--text=Paris is [MASK].'\n"
    assert capsys.readouterr().err == line
