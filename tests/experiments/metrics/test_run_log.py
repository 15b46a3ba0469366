"""The log of a run: resumed, it has each step once; damage is mended."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

from experiments.metrics import run_log
from experiments.metrics.event_files import read_events
from experiments.metrics.metrics_file import METRICS_FILE, read_metrics
from experiments.metrics.run_log import RunLog, StepWork
from experiments.metrics.trackers.tensorboard import TensorBoardTracker
from experiments.metrics.tracking import TRACKERS_FILE

SETTINGS = {"optimizer.learning_rate": 1e-3, "run.remat": "none", "run.fsdp": None}


def open_log(workdir: Path, *, first_step: int = 0) -> RunLog:
    return RunLog(
        workdir,
        first_step=first_step,
        num_steps=60,
        work_of_step=lambda _: StepWork(1, 1),
        peak_flops=None,
    )


def train_metrics(step: int) -> dict[str, float]:
    return {"loss": 1 / step, "seconds_per_step": 0.5, "loader_wait_share": 0.0}


def report_steps(workdir: Path, *steps: int, first_step: int = 0) -> None:
    with open_log(workdir, first_step=first_step) as log:
        log.track({"tensorboard": TensorBoardTracker()}, SETTINGS)
        for step in steps:
            log.report(step, "train", train_metrics(step))


def tensorboard_steps(workdir: Path) -> list[int]:
    """The steps of all events, as TensorFlow, which checks their checksums, reads them."""
    files = sorted(map(str, workdir.glob("events.out.tfevents.*")))
    records = tf.data.TFRecordDataset(files).as_numpy_iterator()
    events = [tf.compat.v1.Event.FromString(record) for record in records]
    return [event.step for event in events if event.step]


def test_a_line_tells_each_entry_of_training_where_no_terminal_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([100.0, 120.0, 140.0])
    monkeypatch.setattr(run_log.time, "monotonic", lambda: next(seconds))
    ratios = {"trust_ratio/encoder/kernel": 0.25}
    entry = train_metrics(10) | {"learning_rate": 0.00176, "loader_wait_share": 0.1}
    with open_log(tmp_path) as log:
        log.advance(1)
        log.report(10, "train", entry)  # 20 s after the first step
        log.report(10, "optimizer", ratios)
        log.report(10, "validation", {"masked_lm_accuracy": 0.03955, "pairs": 96.0})
        log.report(60, "train", train_metrics(60))
    assert capsys.readouterr().err.splitlines() == [
        "step 10 of 60: loss 0.100, learning rate 0.00176, 2 rows/s, waiting for data 10%, "
        "1 min 51 s to go",
        "step 10, validation: masked LM accuracy 0.0396, pairs 96",
        "step 60 of 60: loss 0.017, 2 rows/s",
    ]
    assert read_metrics(tmp_path)[1]["trust_ratio/encoder/kernel"] == 0.25


def test_a_terminal_has_a_bar_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_log, "is_watched", lambda: True)
    with open_log(tmp_path) as log:
        log.report(60, "train", train_metrics(60))
        log.advance(60)
    shown = capsys.readouterr().err
    assert "60/60" in shown and "loss 0.017" in shown and "step 60 of" not in shown


def test_events_are_those_that_tensorboard_reads(tmp_path: Path) -> None:
    report_steps(tmp_path, 10)
    (path,) = tmp_path.glob("events.out.tfevents.*")
    head, settings, event = read_events(path)
    assert head.file_version == "brain.Event:2"
    (summary,) = settings.summary.value
    plugin = summary.metadata.plugin_data
    stored = parse_session_start_info_plugin_data(plugin.content).hparams
    assert (plugin.plugin_name, summary.tag) == ("hparams", "_hparams_/session_start_info")
    assert stored["optimizer.learning_rate"].number_value == 1e-3
    assert stored["run.remat"].string_value == stored["run.fsdp"].string_value == "none"
    values = {value.tag: value.simple_value for value in event.summary.value}
    assert values["train/loss"] == pytest.approx(0.1)
    assert values["train/rows_per_second"] == 2.0
    assert tensorboard_steps(tmp_path) == [10]


def test_a_resumed_run_has_each_step_once_in_every_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_steps(tmp_path, 10, 20, 30)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    with events.open("ab") as file:  # killed while it wrote
        file.write(b"\x20\0\0\0\0\0\0\0part")
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 40, "spl')
    report_steps(tmp_path, 30, 40, first_step=20)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [10, 20, 30, 40]
    assert tensorboard_steps(tmp_path) == [10, 20, 30, 40]
    assert "steps up to 30 were taken before" in capsys.readouterr().err
    (tmp_path / TRACKERS_FILE).unlink()  # as in earlier workdirs
    report_steps(tmp_path, 50, first_step=40)
    assert tensorboard_steps(tmp_path) == [10, 20, 30, 40, 50]


def test_damaged_lines_are_mended_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report_steps(tmp_path, 10, 20, 30)
    path = tmp_path / METRICS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    damages: list[bytes] = [
        b"\0" * 300 + b"\n",
        b"\xff\xfe\n",
        b"[10]\n",
        b'{"step": "10", "split": "train"}\n',
        b'{"step": 10}\n',
        b'{"step": 10, "split": "train", "loss": "low"}\n',
        b"[" * 100_000 + b"\n",
        b'{"step": ' + b"1" * 6000 + b"}\n",
    ]
    for damage in damages:
        path.write_bytes(lines[0] + damage + lines[2] + b"\0" * 4096)
        caplog.clear()
        assert [entry["step"] for entry in read_metrics(tmp_path)] == [10, 30]
        assert "line 2, 4 is damaged or incomplete" in caplog.text
        with open_log(tmp_path, first_step=30):
            pass
        assert path.read_bytes() == lines[0] + lines[2]


def test_any_flipped_bit_leaves_the_other_lines(tmp_path: Path) -> None:
    report_steps(tmp_path, 10, 20, 30)
    path, choose = tmp_path / METRICS_FILE, random.Random(0)
    content = path.read_bytes()
    whole: list[Any] = [json.loads(line) for line in content.splitlines()]
    for _ in range(300):
        flipped = bytearray(content)
        flipped[choose.randrange(len(content))] ^= 1 << choose.randrange(8)
        path.write_bytes(flipped)
        kept = read_metrics(tmp_path)
        assert sum(entry in whole for entry in kept) >= 1
        with open_log(tmp_path, first_step=60):
            pass
        assert read_metrics(tmp_path) == [entry for entry in kept if entry["step"] <= 60]
