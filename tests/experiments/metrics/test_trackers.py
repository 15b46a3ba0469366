"""Trackers: chosen by name, none of them ends a run, and each gets every step once."""

import errno
import importlib.util
import json
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest

from albert_jax.settings import FieldError
from data_pipeline.errors import InputError
from experiments.metrics import tracking
from experiments.metrics.metrics_file import read_metrics
from experiments.metrics.run_log import RunLog, StepWork
from experiments.metrics.tracker import Ending, TrackedRun
from experiments.metrics.trackers import check_trackers, make_trackers, parse_trackers
from experiments.run.config import RunConfig

EXTENDING = Path(__file__).parents[3] / "docs/extending.md"


class Recorder:
    """A tracker that keeps what it gets, and fails where a test wants it."""

    rewinds = False

    def __init__(self, fails_at: int | str | None = None) -> None:
        self.fails_at, self.runs, self.endings = fails_at, list[TrackedRun](), list[Ending]()
        self.logged: list[tuple[int, str]] = []

    def start(self, run: TrackedRun) -> str:
        if self.fails_at == "start":
            raise ConnectionError("no\nnetwork")
        self.runs.append(run)
        return run.run_id or "seven"

    def log_metrics(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        assert threading.current_thread().name == "tracker recorder"
        if self.fails_at == step:
            raise ConnectionError("no\nnetwork")
        self.logged += [(step, name) for name in metrics]

    def log_picture(self, step: int, name: str, png: bytes) -> None:
        self.logged.append((step, f"{name}:{png.decode()}"))

    def end(self, ending: Ending) -> None:
        self.endings.append(ending)


def run_steps(workdir: Path, tracker: Recorder, *steps: int, first_step: int = 0) -> None:
    with RunLog(
        workdir,
        first_step=first_step,
        num_steps=60,
        work_of_step=lambda _: StepWork(1, 1),
        peak_flops=None,
    ) as log:
        log.track({"recorder": tracker}, {"seed": 1})
        for step in steps:
            log.report(step, "validation", {"loss": 1 / step})
        if 60 in steps:
            (workdir / "curves.png").write_bytes(b"PNG")
            log.complete(60, workdir / "curves.png")


def steps_of(tracker: Recorder) -> list[int]:
    return [step for step, name in tracker.logged if name == "validation/loss"]


def test_a_resumed_run_is_the_same_run_and_logs_each_step_once(tmp_path: Path) -> None:
    first, second = Recorder(), Recorder()
    run_steps(tmp_path, first, 10, 20, 30)
    assert (first.runs[0].run_id, first.runs[0].name) == (None, tmp_path.name)
    run_steps(tmp_path, second, 30, 40, 60, first_step=20)
    assert second.runs == [TrackedRun(str(tmp_path), {"seed": 1}, 20, "seven")]
    assert steps_of(first) == [10, 20, 30]
    assert steps_of(second) == [40, 60]
    assert second.logged[-1] == (60, "curves:PNG")
    assert (first.endings, second.endings) == ([Ending.STOPPED], [Ending.COMPLETE])


def test_a_run_that_fails_is_said_to_have_failed(tmp_path: Path) -> None:
    tracker = Recorder()
    with pytest.raises(ZeroDivisionError):
        run_steps(tmp_path, tracker, 10, 0)
    assert tracker.endings == [Ending.FAILED]


def test_a_tracker_that_fails_is_named_once_and_later_gets_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, mended = Recorder(fails_at=20), Recorder()
    run_steps(tmp_path, failing, 10, 20, 30, 40)
    assert steps_of(failing) == [10]
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [10, 20, 30, 40]
    (warning,) = (line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert "tracker recorder failed at step 20 (ConnectionError: no network): training" in warning
    assert "metrics.jsonl has everything" in warning
    run_steps(tmp_path, mended, 40, 50, first_step=30)  # 40 was never logged
    assert steps_of(mended) == [20, 30, 40, 50]
    late = Recorder()
    (tmp_path / "trackers.json").write_text("{}")  # a tracker that is new to the run
    run_steps(tmp_path, late, 60, first_step=50)
    assert steps_of(late) == [10, 20, 30, 40, 50, 60]


def test_a_disk_that_is_full_for_trackers_too_is_said_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings are errors here, including that of a thread that ends with an exception."""

    class FullDisk(Recorder):
        def log_metrics(self, *arguments: Any) -> None:
            monkeypatch.setattr(tracking, "replace", fail)
            fail()

    def fail(*_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    run_steps(tmp_path, FullDisk(), 10, 20)
    failed, unwritten = (line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert "tracker recorder failed at step 10" in failed
    assert "trackers.json was not written (OSError: [Errno 28] No space left" in unwritten


@pytest.mark.parametrize("content", ['{"recorder": 7}', '{"recorder": {"run_id": 7}}', "{", "[]"])
def test_a_damaged_file_of_trackers_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "trackers.json").write_text(content)
    with pytest.raises(InputError, match=r"trackers\.json"):
        run_steps(tmp_path, Recorder(), 10)


def test_a_tracker_that_cannot_start_ends_a_new_run_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"recorder cannot be started \(ConnectionError: no netw"):
        run_steps(tmp_path, Recorder(fails_at="start"), 10)
    run_steps(tmp_path, Recorder(), 10, 20)
    run_steps(tmp_path, Recorder(fails_at="start"), 30, first_step=20)
    assert "training goes on without it" in capsys.readouterr().err
    mended = Recorder()
    run_steps(tmp_path, mended, 40, first_step=30)
    assert steps_of(mended) == [30, 40]


def test_a_tracker_that_hangs_does_not_hold_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.metrics.tracking.END_SECONDS", 0.05)
    released = threading.Event()
    tracker = Recorder()
    monkeypatch.setattr(tracker, "log_metrics", lambda *_: released.wait(60))
    run_steps(tmp_path, tracker, 10, 20)
    assert "recorder has not ended within 0.05 seconds" in capsys.readouterr().err
    released.set()


@pytest.mark.parametrize(
    ("trackers", "message"),
    [
        ("tensorbord", "must be tensorboard, wandb, mlflow or module:Class.*; did you mean tensor"),
        ("tensorboard,wand", r"got 'tensorboard,wand'; did you mean wandb\?"),
        ("tensorboard,tensorboard", "must be different ones of"),
        ("", "got ''"),
        ("a.b:", "got 'a.b:'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(trackers: str, message: str) -> None:
    with pytest.raises(FieldError, match=f"trackers .*{message}"):
        RunConfig(trackers=trackers)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", r"trackers=wandb needs the package wandb: pip install 'albert-jax\[wandb\]'"),
        ("no_such:Tracker", r"trackers=no_such:Tracker: there is no module no_such"),
        ("json:JSONEncode", r"json has no class JSONEncode; did you mean JSONEncoder\?"),
        ("json:JSONEncoder", r"lacks rewinds, start, log_metrics, log_picture, end: see docs/ext"),
    ],
)
def test_a_tracker_that_cannot_be_is_known_before_the_run(
    monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "wandb" else find_spec(name)
    )
    check_trackers(parse_trackers(None))
    with pytest.raises(InputError, match=message):
        check_trackers(parse_trackers(name))


def test_the_tracker_of_the_documents_works_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(
        r"```python\n(# my_package/module.py\n.*?)```", EXTENDING.read_text(), re.S
    )
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/module.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    name = "my_package.module:MyTracker"
    check_trackers([name])
    (tracker,) = make_trackers(parse_trackers(name)).values()
    workdir = tmp_path / "run"
    workdir.mkdir()
    run_steps(workdir, tracker, 10, 60)  # type: ignore[arg-type]
    lines = [json.loads(line) for line in (workdir / "my_metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"seed": 1},
        {"step": 10, "validation/loss": 0.1},
        {"step": 60, "validation/loss": 1 / 60},
        {"ending": "complete"},
    ]
    del sys.modules["my_package.module"], sys.modules["my_package"]
