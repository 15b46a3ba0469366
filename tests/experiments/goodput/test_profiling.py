"""A profile is written of the steps that are asked for, and nonsense is refused."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from albert_jax.settings import FieldError
from experiments.goodput.profiling import (
    PROFILE_DIRECTORY,
    ProfiledProcesses,
    Profiler,
    check_profile,
    parse_steps,
)
from experiments.run.config import ExperimentConfig, RunConfig


@pytest.mark.parametrize("text", ["", "3", "3-4", "4:3", "0:2", "-1:2", "1:101", "a:b", "1:2:3"])
def test_other_texts_than_first_and_last_are_refused(text: str) -> None:
    with pytest.raises(FieldError, match=r"^profile_steps must be FIRST:LAST, from 1 on"):
        parse_steps(text)


def test_steps_that_a_run_does_not_take_are_refused() -> None:
    assert parse_steps("100:110") == (100, 110) and parse_steps(None) is None
    check_profile("100:110", 110)
    run = RunConfig(profile_steps="100:110")
    with pytest.raises(FieldError, match=r"^run.profile_steps must be up to the run's last step"):
        ExperimentConfig(
            run=run,
            optimizer=dataclasses.replace(
                ExperimentConfig().optimizer, num_train_steps=109, num_warmup_steps=10
            ),
        )


def test_a_profile_has_the_steps_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of steps 3 and 4, whatever the steps around them; and none twice."""
    said: list[str] = []
    run = RunConfig(profile_steps="3:4")
    with Profiler(run, epath.Path(tmp_path), said.append) as profiler:
        profiler.advance(0)
        for step in range(1, 8):
            with jax.profiler.TraceAnnotation(f"step {step}"):
                jnp.arange(3.0).sum().block_until_ready()
            profiler.advance(step)
    directory = tmp_path / PROFILE_DIRECTORY / "process_0"
    (trace,) = directory.rglob("*.xplane.pb")
    content = trace.read_bytes()
    traced = [step for step in range(1, 8) if f"step {step}".encode() in content]
    assert traced == [3, 4, 5]  # it ends when the result of step 4 is known: with step 5
    assert said == [f"profile of steps 3 to 4: {directory}"]
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    for processes, active in (("first", False), ("all", True)):
        run = RunConfig(profile_steps="3:4", profile_processes=ProfiledProcesses(processes))
        assert (Profiler(run, epath.Path(tmp_path), said.append)._steps is not None) is active


def test_a_run_that_stops_says_which_steps_its_profile_has(tmp_path: Path) -> None:
    said: list[str] = []
    with Profiler(RunConfig(profile_steps="3:9"), epath.Path(tmp_path), said.append) as profiler:
        for step in range(6):
            profiler.advance(step)
    assert said == [f"profile of steps 3 to 5: {tmp_path / PROFILE_DIRECTORY / 'process_0'}"]
