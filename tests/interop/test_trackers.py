"""W&B offline and MLflow on a local database, as they are installed: a run that is resumed."""

import os
import re
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import start
from echoes import write_echoes

from experiments.cli.exit_codes import ExitCode
from experiments.metrics.metrics_file import read_metrics

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # MLflow's use of SQLAlchemy
]

RUN = (
    "--config.run.trackers=tensorboard,wandb,mlflow",
    *("--config.run.log_every=10", "--config.run.evaluate_every=15"),
    "--config.run.checkpoint_every=20",
)


def open_mlflow(directory: Path) -> str:
    """Make an experiment whose pictures go to a directory; return the address of its database."""
    from mlflow.tracking import MlflowClient

    address = f"sqlite:///{directory}/mlflow.db"
    client = MlflowClient(tracking_uri=address)
    client.create_experiment("albert-jax", artifact_location=(directory / "pictures").as_uri())
    return address


def stop_and_resume(directory: Path) -> Path:
    """Interrupt a run after step 30, so that it repeats some steps, and resume it to its end."""
    corpus, workdir = write_echoes(directory / "corpus"), directory / "base"
    environment = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": open_mlflow(directory)}
    with start(
        corpus, workdir, *RUN, "--config.optimizer.num_train_steps=400", **environment
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if re.match(r"step 30 validation", line):
                os.kill(run.pid, signal.SIGINT)
                break
        run.stderr.read()
    shorter = "--config.run.change_num_train_steps=true"
    last = max(entry["step"] for entry in read_metrics(workdir)) // 20 * 20 + 40
    steps = f"--config.optimizer.num_train_steps={last}"
    with start(corpus, workdir, *RUN, shorter, steps, **environment) as run:
        _, errors = run.communicate()
    assert run.returncode == ExitCode.DONE, errors
    return workdir


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    return stop_and_resume(tmp_path_factory.mktemp("tracked"))


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a file of W&B: a LevelDB log after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, offset, part = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while offset + 7 <= len(content):
        if (left := 32768 - offset % 32768) < 7:
            offset += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, offset)
        part += content[offset + 7 : offset + 7 + length]
        offset += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(part)
            part = b""


def test_wandb_offline_has_each_step_once_in_one_run(resumed: Path) -> None:
    files = sorted(resumed.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2  # of one run, for `wandb sync --append`
    assert len({path.name for path in files}) == 1
    steps, configs = [], []
    for path in files:
        for record in wandb_records(path):
            items = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "train/loss" in items:
                steps.append(int(items["_step"]))
            configs += [update.key for update in record.config.update]
            configs += ["/".join(update.nested_key) for update in record.config.update]
    expected = [entry["step"] for entry in read_metrics(resumed) if entry["split"] == "train"]
    assert steps == expected
    assert "optimizer.learning_rate" in configs


def test_mlflow_has_each_step_once_in_one_run(resumed: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{resumed.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("albert-jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("base", "FINISHED")
    assert run.data.params["optimizer.name"] == "adamw"
    steps = client.get_metric_history(run.info.run_id, "train/loss")
    expected = [entry["step"] for entry in read_metrics(resumed) if entry["split"] == "train"]
    assert sorted(metric.step for metric in steps) == expected
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["curves.png"]


def test_tensorboard_shows_the_hyperparameters(resumed: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(resumed)).Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    expected = [entry["step"] for entry in read_metrics(resumed) if entry["split"] == "train"]
    assert [event.step for event in events.Scalars("train/loss")] == expected
    assert events.Tags()["images"] == ["curves"]
