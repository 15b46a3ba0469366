"""A run compiled for simulated devices: its phases, its communication, and what does not fit."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from echoes import make_experiment, with_part

from albert_jax.devices.memory import exhausted_memory
from albert_jax.devices.specifications import SPECIFICATIONS
from experiments.compiling import compiled_run
from experiments.compiling.compiled_run import CompiledPhase, compile_run
from experiments.compiling.report import format_json, format_report, report_row
from experiments.compiling.topologies import Topology
from experiments.run.compiled_steps import SizedStep
from experiments.run.config import ExperimentConfig, PhaseConfig, PhasesConfig

TWO = Topology("cpu:2", 1, "cpu", 2)
MADE = {
    "device": "none",
    "host": "h",
    "python": "3",
    "versions": {},
    "commit": "c",
    "date": "d",
    "command": "compile",
}


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    """An experiment without a corpus."""
    experiment = make_experiment(Path(), num_train_steps=60)
    experiment = with_part(experiment, "model", hidden_dropout_prob=0)  # compiles in less time
    return with_part(experiment, "data", corpus_dir="")


@pytest.fixture(scope="module")
def phase(config: ExperimentConfig) -> CompiledPhase:
    """The one compilation of this file."""
    (compiled,) = compile_run(config, TWO, lambda _: None)
    return compiled


def test_a_step_is_compiled_and_reported(config: ExperimentConfig, phase: CompiledPhase) -> None:
    row = report_row(phase, config)
    assert (row["steps"], row["batch"]) == (60, "16 x 32")
    assert (row["devices"], row["mesh"], row["fits"]) == (2, "2 x 1 x 1", "yes")
    reduced = row["collective_bytes"]["data"]["all-reduce"]
    assert row["parameters_mb"] * 1e6 <= reduced <= 1.02 * row["parameters_mb"] * 1e6
    assert row["predicted_ms"] is None, "nobody says what a CPU can do"
    assert row["gb_between_matmuls"] > 0
    as_tpu = report_row(phase._replace(known=SPECIFICATIONS["TPU v5 lite"]), config)
    assert as_tpu["predicted_ms"] > 0
    assert as_tpu["fraction_of_peak"] < 1
    report = format_report([phase], [as_tpu], MADE)
    assert "none of which was measured" in report
    assert report.count("| cpu:2 |") == 2, "memory and communication, and times"
    assert json.loads(format_json([as_tpu], MADE))["rows"] == [as_tpu]


def test_each_phase_is_compiled_for_its_rows(
    config: ExperimentConfig, phase: CompiledPhase, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = []

    def compile_nothing(step: Any, count: int, *arguments: Any) -> SizedStep:
        shapes.append(arguments[1].input_ids.shape)
        return phase.asked

    monkeypatch.setattr(compiled_run, "compile_sized", compile_nothing)
    first = PhaseConfig(num_steps=20, max_seq_length=16, max_predictions_per_seq=3)
    phased = dataclasses.replace(config, phases=PhasesConfig(first=first))
    rows = [report_row(one, phased) for one in compile_run(phased, TWO, lambda _: None)]
    assert [(row["steps"], row["batch"]) for row in rows] == [(20, "16 x 16"), (40, "16 x 32")]
    assert shapes == [(16, 16), (16, 32)]
    assert rows[0]["gflop"] < rows[1]["gflop"]


def test_what_does_not_fit_is_taken_in_more_micro_batches(
    config: ExperimentConfig, phase: CompiledPhase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(step: Any, count: int, *arguments: Any) -> SizedStep:
        if count < 4:  # as TPUs' compiler says it
            return SizedStep(count, None, 2**40)
        return phase.asked._replace(micro_batches=count)

    monkeypatch.setattr(compiled_run, "compile_sized", too_large)
    (taken,) = compile_run(config, TWO, lambda _: None)
    row = report_row(taken, config)
    assert (row["fits"], row["micro_batches"]) == ("not in 1 micro-batches", 4)
    advice = format_report([taken], [row], MADE).rpartition("- cpu:2")[2]
    assert "in 1 micro-batches a step needs 1024.0 of" in advice
    assert "--config.run.accumulation_steps=4 is the smallest that fits" in advice
    never = taken._replace(fitting=None, program=None)
    row = report_row(never, config)
    assert (row["fits"], row["predicted_ms"], row["collectives"]) == ("no", None, None)
    assert "and too much in more of them; " in format_report([never], [row], MADE)


def test_the_compiler_s_own_word_on_memory_is_understood() -> None:
    for text, size in {
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (20.5G) exceeds available HBM (15.75G).": 20.5 * 2**30,
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 512.0M of 15.75G hbm.": 2**29,
        "INTERNAL: Used 512.0M": None,
    }.items():
        assert exhausted_memory(RuntimeError(text)) == size
