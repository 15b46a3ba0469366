"""The execution of a run, resolved for devices that this machine does not have."""

import contextlib
import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from echoes import make_experiment, write_echoes

from albert_jax.attention.dispatch import Attention
from albert_jax.attention.implementation import AttentionWorkload
from albert_jax.config import AlbertConfig
from albert_jax.devices.mesh import make_mesh
from albert_jax.matmuls import Matmuls
from albert_jax.settings import FieldError
from albert_jax.training.objective import Objective
from albert_jax.training.train_step import TrainState
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.step import sequence_slots
from experiments.run import compiled_steps, execution
from experiments.run.compiled_steps import StepCompiler
from experiments.run.config import ExperimentConfig, RunConfig, TrainingRunConfig
from experiments.run.curriculum import Curriculum

CONFIG = AlbertConfig(attention_probs_dropout_prob=0.0)


@pytest.mark.parametrize(
    ("chosen", "packed", "slots", "words"),
    [
        (Attention.CUDNN, True, 2, ", 2 sequence slots a row"),
        (Attention.XLA, True, None, "sequence_slots=2 is for cudnn on packed rows: not used"),
        (Attention.CUDNN, False, None, "sequence_slots=2 is for cudnn on packed rows: not used"),
    ],
)
def test_slots_are_for_packed_rows_under_cudnn(
    monkeypatch: pytest.MonkeyPatch,
    chosen: Attention,
    packed: bool,
    slots: int | None,
    words: str,
) -> None:
    workloads = []

    def choose(wanted: Attention, workload: AttentionWorkload) -> tuple[Attention, str]:
        workloads.append(workload)
        return chosen, str(wanted)

    monkeypatch.setattr(execution, "choose_attention", choose)
    mesh = make_mesh(devices=jax.devices()[:1])
    resolved, line = execution.resolve_execution(
        TrainingRunConfig(), CONFIG, mesh, lengths=[512], packed=packed, sequence_slots=2
    )
    assert resolved.sequence_slots == slots
    assert line.endswith(words)
    assert workloads[0].slotted is packed  # what the verification covers


@pytest.mark.parametrize(
    "settings",
    [
        {"sequence_slots": 1},
        {"sequence_slots": -1},
        {"sequence_slots": 2, "tensor": 2},
        {"sequence_slots": 2, "accumulation_steps": 0},
    ],
)
def test_impossible_slots_are_rejected(settings: dict[str, int]) -> None:
    with pytest.raises(FieldError, match=r"^sequence_slots must be"):
        RunConfig(**settings)
    RunConfig(sequence_slots=2)


def test_a_batch_with_more_sequences_than_slots_is_rejected_in_words(tmp_path: Path) -> None:
    corpus = write_echoes(tmp_path / "corpus")
    config = make_experiment(corpus, num_train_steps=20, accumulation_steps=2)
    mesh = make_mesh(devices=jax.devices()[:2])

    def read(slots: int | None) -> list[Any]:
        batches = Curriculum(open_corpus(corpus), config, mesh, sequence_slots=slots).batches(0)
        return list(itertools.islice(batches, 4))

    ids = np.stack([batch.sequence_ids for batch in read(None)])
    runs = (np.diff(ids, axis=-1) != 0).sum(-1) + 1
    # Rows of a batch by device, then by micro-batch: rows 0, 2, ... and 1, 3, ... of each device.
    needed = int(np.ceil(runs.reshape(4, 2, -1, 2).mean(axis=2).max()))
    assert len(read(needed)) == 4
    message = rf"^--config\.run\.sequence_slots must be at least {needed} for .* got {needed - 1}"
    assert needed > 2, "the example needs more than the fewest slots"
    with pytest.raises(InputError, match=message):
        read(needed - 1)


def test_the_benchmark_finds_the_slots_of_its_batches() -> None:
    ids = np.array([[1, 2, 3, 0], [1, 1, 2, 2]])
    batches = Batches([{"sequence_ids": ids}], "test")
    config = ExperimentConfig()
    gpu: Any = SimpleNamespace(
        devices=np.array([SimpleNamespace(platform="gpu")]), shape={"tensor": 1}, size=1
    )
    assert sequence_slots(config, gpu, batches) == 3
    assert sequence_slots(config, make_mesh(devices=jax.devices()[:1]), batches) == 0
    gpu.shape = {"tensor": 2}
    assert sequence_slots(config, gpu, batches) == 0


def test_compiler_options_are_those_of_the_platform_and_the_run_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, more = "xla_gpu_enable_triton_gemm", "xla_gpu_autotune_level"
    assert execution.compiler_options(TrainingRunConfig()) == {}  # on a CPU
    options = {known: False, "xla_of_another_version": True}
    monkeypatch.setitem(execution.COMPILER_OPTIONS, "cpu", options)
    monkeypatch.setitem(execution.FLOAT8_OPTIONS, "cpu", {more: 1})
    float8 = TrainingRunConfig(matmuls=Matmuls.FLOAT8)
    assert execution.compiler_options(float8) == {known: False, more: 1}
    for text, expected in {
        "": {known: False},
        "none": {},
        f"{more}=2": {known: False, more: "2"},
        f"{known}=true, {more}=0": {known: True, more: "0"},
    }.items():
        assert execution.compiler_options(TrainingRunConfig(compiler_options=text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xla_no_such_option=1", "No such compile option: 'xla_no_such_option'"),
        ("xla_gpu_autotune_level=high", "'high' is not a valid int32 value"),
        ("xla_gpu_autotune_level", "name=value"),
        ("xla_gpu_autotune_level=", "name=value"),
    ],
)
def test_compiler_options_that_cannot_be_are_rejected_before_the_run(
    text: str, message: str
) -> None:
    run = TrainingRunConfig(compiler_options=text)
    with pytest.raises(InputError, match=r"^--config\.run\.compiler_options must be ") as raised:
        execution.open_mesh(run, 8)
    assert message in str(raised.value)
    assert repr(text) in str(raised.value)


def test_steps_are_compiled_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def compile_train_step(*_: Any, **options: Any) -> None:
        given.append(options["compiler_options"])

    monkeypatch.setattr(compiled_steps, "compile_train_step", compile_train_step)
    run = TrainingRunConfig(compiler_options="xla_gpu_autotune_level=2")
    mesh = make_mesh(devices=jax.devices()[:1])
    objective = Objective(lambda *_: {}, lambda _: {}, lambda *_: {})
    state = TrainState(jnp.zeros((), jnp.int32), {}, {})
    compiler = StepCompiler(
        run,
        objective,
        optax.identity(),
        state,
        mesh,
        say=print,
        compiling=contextlib.nullcontext,
    )
    compiler.train_step(lambda _: "")._step_of(1)
    assert given == [{"xla_gpu_autotune_level": "2"}]


def test_fused_layers_are_verified_or_rejected_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    run = TrainingRunConfig(fused_layers=True)

    def resolve() -> tuple[execution.Execution, str]:
        return execution.resolve_execution(run, CONFIG, mesh, lengths=[8], packed=False)

    with pytest.raises(
        InputError, match=r"^--config\.run\.fused_layers must be false here \(they are for NV"
    ):
        resolve()
    monkeypatch.setattr(execution, "unsupported_reason", lambda _: None)
    monkeypatch.setattr(execution, "check_fused_layers", lambda *_: 0.002)
    resolved, line = resolve()
    assert resolved.fused
    assert line.endswith("; fused layers, within 0.002 of the plain ones on this device")

    def fail(*_: Any) -> float:
        raise ValueError("fused layers are 1 off")

    monkeypatch.setattr(execution, "check_fused_layers", fail)
    with pytest.raises(InputError, match=r"must be false here \(fused layers are 1 off\)"):
        resolve()


def test_float8_is_verified_or_rejected_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    run = TrainingRunConfig(matmuls=Matmuls.FLOAT8)

    def resolve(config: AlbertConfig = CONFIG) -> tuple[execution.Execution, str]:
        return execution.resolve_execution(run, config, mesh, lengths=[8], packed=False)

    given: list[Any] = []

    def check(*arguments: Any) -> float:
        given.append(arguments)
        if len(given) > 1:
            raise ValueError("XLA makes 0 of 6 matmuls ones in float8")
        return 0.05

    monkeypatch.setattr(execution, "check_float8", check)
    monkeypatch.setattr(execution, "compiler_options", lambda _: {"as": "in the step"})
    resolved, line = resolve()
    assert resolved.matmuls is Matmuls.FLOAT8
    assert line.endswith(
        "; float8 matmuls, emulated, slowly, within 0.05 of float32 on this device"
    )
    assert given[0][-1] == {"as": "in the step"}
    with pytest.raises(
        InputError,
        match=r"^--config\.run\.matmuls must be same here \(XLA makes 0 of 6 .*\), got .*float8",
    ):
        resolve()
    with pytest.raises(
        InputError, match=r"same here \(model\.hidden_size must be a multiple of 16"
    ):
        resolve(dataclasses.replace(CONFIG, hidden_size=24, num_attention_heads=2))
