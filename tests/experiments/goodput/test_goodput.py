"""The ledger of a run sums to its wall time, whenever and however often it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from etils import epath

from experiments.goodput import clock as clocks
from experiments.goodput.attempts import KINDS, Attempt, summarize
from experiments.goodput.clock import Activity, ActivityClock
from experiments.goodput.ledger import GOODPUT_FILE, LOCAL_SECONDS, Ledger, read_attempts
from experiments.pages.goodput import format_goodput

ROOT = Path(__file__).parents[3]
# A run without a model: it steps until it is killed, and saves every tenth step.
STAND_IN = """
import sys, time
time.sleep(1)  # imports that come before the clock
from etils import epath
from experiments.goodput.clock import Activity, during, start_clock_of_command, this_clock
from experiments.goodput.ledger import Ledger
workdir, saved = epath.Path(sys.argv[1]), epath.Path(sys.argv[1]) / "saved"
start_clock_of_command()
step = int(saved.read_text()) if saved.exists() else 0
with Ledger(workdir, this_clock()) as ledger:
    ledger.begin(step)
    with during(Activity.STEPPING):
        while step < int(sys.argv[2]):
            step += 1
            ledger.advance(step, 0.0)
            time.sleep(0.02)
            if step % 10 == 0:
                with during(Activity.SAVING):
                    saved.write_text(str(step))
                ledger.save(step)
            if step == 15:
                ledger.write()
                print("fifteen", flush=True)
    ledger.complete()
"""


def seconds_of(**seconds: float) -> dict[str, float]:
    return seconds


def test_lost_steps_and_time_between_attempts_are_named_and_everything_sums() -> None:
    killed = Attempt(1000.0, seconds_of(start_up=15, stepping=80, saving=5), 0, 50, [(40, 64.0)])
    resumed = Attempt(1110.0, seconds_of(start_up=10, stepping=20), 40, 60, [(60, 20.0)], "stopped")
    again = Attempt(1150.0, seconds_of(start_up=10, stepping=30), 60, 80, [], "done")
    goodput = summarize([killed, resumed, again])
    assert (goodput.lost_steps, goodput.starts) == (10, 3)
    assert goodput.seconds["lost"] == pytest.approx(16)
    assert goodput.seconds["down"] == pytest.approx(10 + 10)
    assert goodput.seconds["stepping"] == pytest.approx(64 + 20 + 30)
    assert goodput.wall_seconds == pytest.approx(1190 - 1000)  # from the first start to the end
    assert goodput.share == pytest.approx(114 / 190)
    assert goodput.format().startswith("goodput 60% of 3 min 10 s (3 starts, 10 steps lost): step")
    # An older checkpoint was used: what came after it in both attempts is lost.
    older = again._replace(first_step=20, last_step=80)
    goodput = summarize([killed, resumed, older])
    assert goodput.lost_steps == (50 - 20) + (60 - 40)
    assert goodput.seconds["lost"] == pytest.approx((80 - 32) + 20)
    assert goodput.wall_seconds == pytest.approx(190)
    # A run that was done and is continued a month later was not down in between.
    later = Attempt(10**7, seconds_of(stepping=10.0), 80, 90)
    assert summarize([again, later]).seconds["down"] == 0


def test_each_second_belongs_to_one_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clocks.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clocks.time, "time", lambda: now[0])
    clock = ActivityClock(start=93.0)
    clock.switch(Activity.OTHER)
    with clock.during(Activity.STEPPING):
        now[0] += 10
        clock.move(2.0, Activity.WAITING_FOR_DATA)
        with clock.during(Activity.EVALUATING):
            now[0] += 5
            clock.add_compilation("/jax/core/compile/backend_compile_duration", 3.0)
        now[0] += 1
    now[0] += 0.5
    seconds = clock.read()
    assert {name: value for name, value in seconds.items() if value} == {
        "start_up": 7,
        "stepping": 9,
        "waiting_for_data": 2,
        "evaluating": 2,
        "compiling": 3,
        "other": 0.5,
    }
    assert sum(seconds.values()) == now[0] - 93
    assert set(seconds) <= set(map(str, KINDS))


def test_a_killed_run_knows_where_its_time_went(tmp_path: Path) -> None:
    """Killed after step 15 it resumes at 10: five steps or a few more are lost, and the ledger
    spans the time from the first process's start to the last one's end, as seen from outside."""
    command = [sys.executable, "-c", STAND_IN, str(tmp_path)]
    begun = time.time()
    process = subprocess.Popen([*command, "400"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "fifteen\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    last_saved = int((tmp_path / "saved").read_text())
    subprocess.run([*command, str(last_saved + 10)], cwd=ROOT, check=True, capture_output=True)
    wall = (tmp_path / GOODPUT_FILE).stat().st_mtime - begun
    first, second = read_attempts(tmp_path)
    assert (first.ended, second.ended) == (None, "done")
    assert second.first_step == last_saved and second.last_step == last_saved + 10
    goodput = summarize([first, second])
    assert goodput.lost_steps == first.last_step - last_saved > 0
    assert 0 < goodput.seconds["lost"] < first.seconds["stepping"]
    assert first.start - begun < 1 < first.seconds["start_up"]
    assert goodput.wall_seconds == pytest.approx(wall, abs=1)
    assert sum(goodput.seconds.values()) == pytest.approx(goodput.wall_seconds)
    assert goodput.seconds["down"] < LOCAL_SECONDS + 3
    assert goodput.seconds["other"] < 0.05 * wall


def test_damaged_lines_cost_no_run_and_a_full_disk_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good = Attempt(1.0, {"stepping": 3.0}, 0, 5, [(5, 3.0)], "stopped")
    lines = [json.dumps(good._asdict()), '{"start": ', '{"start": 1}', "[" * 99999, '"\\u0000"']
    lines.append(json.dumps(good._replace(seconds={"stepping": "x"})._asdict()))
    (tmp_path / GOODPUT_FILE).write_text("\n".join(lines))
    assert read_attempts(tmp_path) == [good]
    assert "line 2 is damaged" in caplog.text

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("experiments.goodput.ledger._replace", fail)
    with Ledger(epath.Path(tmp_path), ActivityClock(time.time())) as ledger:
        ledger.begin(5)
        ledger.write()
    assert caplog.text.count("was not written: No space") == 1


def test_the_page_has_a_bar_of_the_whole_life() -> None:
    assert format_goodput([]) == ""
    attempts = [
        Attempt(0.0, {"stepping": 60.0, "start_up": 20.0}, 0, 10, [], "stopped"),
        Attempt(100.0, {"stepping": 100.0}, 10, 20, [], "done"),
    ]
    page = format_goodput(attempts)
    assert "goodput 80% of 3 min 20 s (2 starts)" in page
    for kind, share in (("stepping", 80), ("start up", 10), ("down", 10)):
        assert f'title="{kind}: ' in page and f"width:{share}.000%" in page
    assert 'title="lost' not in page


def test_a_forked_process_starts_with_its_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not start with the import of its parent, which may be hours before."""
    started = clocks.process_start()
    assert started <= time.time()
    monkeypatch.setattr(clocks, "_IMPORTED", started - 3600)
    assert clocks.process_start() == pytest.approx(started, abs=1)
