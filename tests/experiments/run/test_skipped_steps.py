"""Runs that skip steps: interrupted, resumed, with the settings changed in between."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import assert_same_params
from echoes import make_experiment, with_part, write_echoes
from short_runs import use_one_device

from albert_jax.training import skipping
from albert_jax.training.determinism import CheckedStep
from experiments.cli.command import call
from experiments.cli.exit_codes import ExitCode
from experiments.metrics.metrics_file import read_metrics
from experiments.pretrain import pretrain
from experiments.run import training as training_run

STEPS = 16
POISONED = {5, 6, 11}  # batches
SIGMAS = 0.5  # so small that there are spikes


@pytest.fixture(scope="module", autouse=True)
def one_device_and_a_short_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        use_one_device(patch)
        patch.setattr(skipping, "FEWEST", 3)
        yield


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_echoes(tmp_path_factory.mktemp("echoes") / "corpus", documents=200, held_out=40)


def run(
    corpus: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    start: int = 0,
    stop_after: int | None = None,
    **settings: Any,
) -> ExitCode:
    """Start a run on batches some of which are poisoned; it gets SIGTERM at a batch."""
    place_batch, number = training_run.place_batch, start

    def place_and_poison(batch: Any, mesh: Any) -> Any:
        nonlocal number
        if number in POISONED:
            nan = np.float32("nan")
            batch = batch._replace(masked_lm_weights=batch.masked_lm_weights * nan)
        if number == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        number += 1
        return place_batch(batch, mesh)

    settings = {"evaluation_pairs": 32, "log_every": 4} | settings
    config = make_experiment(corpus, num_train_steps=STEPS, **settings)
    config = with_part(config, "optimizer", learning_rate=1e-6)  # the loss stays, and varies
    with monkeypatch.context() as patch:
        patch.setattr(training_run, "place_batch", place_and_poison)
        return call(lambda: pretrain(config, workdir))


def rows(workdir: Path, split: str) -> list[dict[str, Any]]:
    entries = [entry for entry in read_metrics(workdir) if entry["split"] == split]
    return [{k: v for k, v in entry.items() if k != "time"} for entry in entries]


def test_an_interrupted_run_skips_as_one_that_nothing_interrupted(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"skip_nonfinite_steps": 2, "skip_spike_sigmas": SIGMAS}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run(corpus, whole, monkeypatch, **settings) is ExitCode.DONE
    skipped = rows(whole, "skipped")
    assert {row["batch"] for row in skipped if "nonfinite_in_a_row" in row} == POISONED
    assert len(skipped) > len(POISONED)
    assert sum(row.get("skipped_steps", 0) for row in rows(whole, "train")) == len(skipped)

    code = run(corpus, stopped, monkeypatch, stop_after=8, **settings)
    assert code is ExitCode.PREEMPTED
    reached = max(int(path.name) for path in stopped.glob("checkpoints/[0-9]*"))
    assert 6 < reached < 11
    assert (stopped / f"checkpoints/{reached}/history").is_dir()
    assert run(corpus, stopped, monkeypatch, start=reached, **settings) is ExitCode.DONE
    assert_same_params(stopped, whole)
    assert str(rows(stopped, "skipped")) == str(skipped)
    assert sum(row["steps"] for row in rows(stopped, "train")) == STEPS


@pytest.mark.slow
def test_the_settings_may_change_when_a_run_is_resumed(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checked: list[int] = []

    class NotedStep(CheckedStep):
        def __init__(self, *args: Any, every: int, step: int) -> None:
            checked.extend((every, step))
            super().__init__(*args, every=every, step=step)

    monkeypatch.setattr(training_run, "CheckedStep", NotedStep)
    settings: dict[str, Any] = {"skip_nonfinite_steps": 1, "skip_spike_sigmas": SIGMAS}
    assert run(corpus, tmp_path, monkeypatch, checkpoint_every=5) is ExitCode.NON_FINITE
    for start in (5, 5):  # the same batch again, until it is skipped
        code = run(corpus, tmp_path, monkeypatch, start=start, **settings)
        assert code is ExitCode.NON_FINITE
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: step 7 has a loss or gradients that are not finite, as have the 1 before it; "
        "the last good checkpoint is step 5"
    )
    settings |= {"skip_nonfinite_steps": 2, "check_determinism_every": 3}
    code = run(corpus, tmp_path, monkeypatch, start=5, stop_after=9, **settings)
    assert code is ExitCode.PREEMPTED
    assert checked == [3, 5]
    reached = max(int(path.name) for path in tmp_path.glob("checkpoints/[0-9]*"))
    assert (tmp_path / f"checkpoints/{reached}/history").is_dir()
    POISONED.remove(11)
    assert run(corpus, tmp_path, monkeypatch, start=reached) is ExitCode.DONE
    assert not (tmp_path / f"checkpoints/{STEPS}/history").exists()
