"""The plan and the journal: time limits, failures, and processes that are killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ROOT
from measured_environment import MADE

from data_pipeline.errors import InputError
from experiments.benchmarks.accelerator.journal import Journal
from experiments.benchmarks.accelerator.picture import draw
from experiments.benchmarks.accelerator.plan import Item, NotMeasured, Plan


def ceiling(name: str = "product, large", rate: float = 700.0, unit: str = "TFLOP/s"):
    return {"kind": "ceiling", "operation": name, "shape": "8 x 8", "rate": rate, "unit": unit}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def item(self, name, expected, taken, error=None):
        def measure():
            self.now += taken
            if error:
                raise error
            return [ceiling(name)]

        return Item(name, expected, measure)


def test_a_time_limit_loses_what_does_not_fit_and_says_so(tmp_path):
    clock, journal = Clock(), Journal(tmp_path, MADE)
    items = [
        clock.item("first", 20, 40),  # from now on all is expected to take (20 + 40) / (20 + 20)
        clock.item("second", 20, 20),
        clock.item("too long", 30, 1),
        clock.item("short", 5, 5),
        clock.item("late", 20, 20),
    ]
    Plan(items, journal, deadline=75, clock=clock).run()
    assert [row["item"] for row in journal.rows] == ["first", "second", "short"]
    report = (tmp_path / "README.md").read_text()
    assert "| too long | time |\n| late | time |" in report
    assert "| second | 8 x 8 |" in report
    # Started again, what is missing is measured, and nothing else.
    again = Journal(tmp_path, MADE)
    Plan(items, again, deadline=1000, clock=clock).run()
    assert [row["item"] for row in again.rows[3:]] == ["too long", "late"]
    assert "Not measured" not in (tmp_path / "README.md").read_text()
    with pytest.raises(InputError, match="another commit"):
        Journal(tmp_path, MADE | {"commit": "def"})


def test_a_failure_costs_no_other_item_and_a_bug_is_raised_at_the_end(tmp_path):
    clock, journal = Clock(), Journal(tmp_path, MADE)
    items = [
        clock.item("elsewhere", 1, 1, NotMeasured("torch is not installed")),
        clock.item("kernel", 1, 1, RuntimeError("INTERNAL: no such tile\nstack")),
        clock.item("bug", 1, 1, TypeError("a bug")),
        clock.item("last", 1, 1),
    ]
    with pytest.raises(TypeError, match="a bug"):
        Plan(items, journal, deadline=1000, clock=clock).run()
    assert journal.items == {"last"}
    report = (tmp_path / "README.md").read_text()
    assert "| elsewhere | torch is not installed |" in report
    assert "| kernel | failed: RuntimeError: INTERNAL: no such tile |" in report


CHILD = """
import sys, time
from pathlib import Path
from experiments.benchmarks.accelerator.journal import Journal
from experiments.benchmarks.accelerator.plan import Item, Plan

directory, seconds, made = Path(sys.argv[1]), float(sys.argv[2]), eval(sys.argv[3])
row = {"kind": "ceiling", "operation": "copy", "rate": 3.2, "unit": "TB/s"}

def endless():
    plan.end_process_at(time.monotonic() + seconds, lambda: print("the end"))
    time.sleep(1000)

items = [Item("quick", 1, lambda: [row]), Item("endless", 1, endless), Item("never", 1, list)]
plan = Plan(items, Journal(directory, made), time.monotonic() + 1000)
plan.run()
"""


def start_child(directory: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory), str(seconds), repr(MADE)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_loses_nothing_and_a_deadline_ends_one(tmp_path):
    killed, ended = start_child(tmp_path / "killed", 1000), start_child(tmp_path / "ended", 0.1)
    file = tmp_path / "killed" / "README.md"
    for _ in range(3000):
        if file.exists() and "| copy |" in file.read_text():
            break
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert "| endless | time |" in file.read_text()
    with (tmp_path / "killed" / "measurements.jsonl").open("a") as journal:
        journal.write('{"item": "endl')  # what a kill in the middle of a line leaves
    assert [row["rate"] for row in Journal(tmp_path / "killed", MADE).rows] == [3.2]
    output, _ = ended.communicate(timeout=300)
    assert (ended.returncode, output) == (0, "the end\n")
    report = (tmp_path / "ended" / "README.md").read_text()
    assert "| endless | time: stopped while it was measured |\n| never | time |" in report


def test_a_picture_needs_matplotlib_and_says_so(tmp_path, monkeypatch, capsys):
    part = {"milliseconds": 40.0, "bound_milliseconds": 30.0, "bound_by": "memory"}
    named = {"size": "base", "rows": 128, "length": 512, "packing": "packed"}
    step = {"kind": "step", "system": "albert-jax", "variant": "default", "share_of_peak": 0.4}
    profile = {"kind": "profile", "counted": "a step", "idle_milliseconds": 2.0}
    rows = [step | named, profile | named | {"parts": {"matmuls": part}}, ceiling()]
    path = draw(rows, tmp_path, "a GPU")
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    assert draw(rows, tmp_path / "none", "a GPU") is None
    assert "no picture: matplotlib is not installed" in capsys.readouterr().err
