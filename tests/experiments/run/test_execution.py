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

from albert_jax.attention import dispatch, slot_capacity
from albert_jax.attention.dispatch import Attention, choose_attention
from albert_jax.attention.implementation import AttentionImplementation, AttentionWorkload
from albert_jax.attention.slot_capacity import RowsAtOnce
from albert_jax.config import AlbertConfig
from albert_jax.devices.mesh import make_mesh
from albert_jax.encoder import Remat
from albert_jax.matmuls import Matmuls
from albert_jax.settings import FieldError
from albert_jax.training.objective import Objective
from albert_jax.training.train_step import TrainState
from data_pipeline.config import Packing
from data_pipeline.corpus.reader import open_corpus
from data_pipeline.errors import InputError
from data_pipeline.pretraining.dataset import PretrainingDataset
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.step import slots_of_batches
from experiments.hosts.agreement import find_differences
from experiments.run import compiled_steps, execution
from experiments.run.compiled_steps import StepCompiler
from experiments.run.config import (
    ExperimentConfig,
    PhaseConfig,
    PhasesConfig,
    RunConfig,
    TrainingRunConfig,
)
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


CUDNN_LINE = "attention: cudnn, within 0.002 of the reference on this device"
OFF = "it is 0.5 off the reference on this device, 0.02 allowed"


@pytest.mark.parametrize(
    ("wanted", "right", "line"),
    [
        (Attention.AUTO, (True, True), f"{CUDNN_LINE}, 3 sequence slots a row"),
        (Attention.CUDNN, (True, True), f"{CUDNN_LINE}, 3 sequence slots a row"),
        (
            Attention.AUTO,
            (False, True),
            f"{CUDNN_LINE}; not with 3 sequence slots a row: xla; not cudnn: {OFF}",
        ),
        (
            Attention.CUDNN,
            (False, True),
            f"{CUDNN_LINE}; not with 3 sequence slots a row: cudnn cannot be used: {OFF}; xla and "
            "auto can",
        ),
        (
            Attention.AUTO,
            (False, False),
            f"attention: xla; not cudnn: {OFF}; not with 3 sequence slots a row: xla; not cudnn: "
            f"{OFF}",
        ),
    ],
)
def test_slots_of_the_data_are_used_where_they_are_right_on_the_device(
    monkeypatch: pytest.MonkeyPatch, wanted: Attention, right: tuple[bool, bool], line: str
) -> None:
    """As on a GPU, on which cudnn is right with slots, without them, or not at all."""
    described: Any = AttentionImplementation(lambda _: None, lambda _: None, "cpu")  # type: ignore
    monkeypatch.setattr(Attention.CUDNN, "implementation", described)
    monkeypatch.setattr(Attention.BLOCKED, "implementation", None)
    errors = {True: 0.002, False: 0.5}

    def error_of(_: Any, workload: AttentionWorkload) -> float:
        return errors[right[0 if workload.slotted else 1]]

    monkeypatch.setattr(dispatch, "error_of", error_of)
    monkeypatch.setattr(dispatch, "tolerance", lambda _: 0.02)
    mesh = make_mesh(devices=jax.devices()[:1])
    run = TrainingRunConfig(attention=wanted)
    resolved, said = execution.resolve_execution(
        run, CONFIG, mesh, lengths=[512], packed=True, sequence_slots=lambda: 3
    )
    assert resolved.sequence_slots == (3 if right[0] else None)
    assert said == line
    resolved, said = execution.resolve_execution(
        run, CONFIG, mesh, lengths=[512], packed=True, sequence_slots=0
    )
    assert resolved.sequence_slots is None
    assert "slots" not in said


@pytest.mark.parametrize(
    ("run", "packed", "supported", "found"),
    [
        ({"attention": Attention.XLA}, True, True, 3),
        ({"accumulation_steps": 0}, True, True, 3),
        ({}, False, True, 3),
        ({}, True, False, 3),  # another device or dtype, run.tensor > 1, another JAX
        ({}, True, True, 0),  # the rows do not gain by it
    ],
)
def test_slots_of_the_data_are_passed_over_where_they_cannot_be(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any], packed: bool, supported: bool, found: int
) -> None:
    workloads, reads = [], []

    def choose(wanted: Attention, workload: AttentionWorkload) -> tuple[Attention, str]:
        workloads.append(workload)
        return Attention.CUDNN, "attention: cudnn"

    def find_slots() -> int:
        reads.append(found)
        return found

    monkeypatch.setattr(execution, "choose_attention", choose)
    monkeypatch.setattr(
        dispatch, "unsupported_reason", lambda *_: None if supported else "it is for NVIDIA GPUs"
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    resolved, line = execution.resolve_execution(
        TrainingRunConfig(**run),
        CONFIG,
        mesh,
        lengths=[512],
        packed=packed,
        sequence_slots=find_slots,
    )
    assert resolved.sequence_slots is None
    assert line == "attention: cudnn"
    assert not workloads[0].slotted
    assert bool(reads) == (found == 0), "the plan is read only where it matters"


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
    RunConfig(tensor=2, accumulation_steps=0)  # by the plan, where that can be


@pytest.mark.parametrize("given", [True, False])
def test_a_batch_with_more_sequences_than_slots_is_rejected_in_words(
    tmp_path: Path, given: bool
) -> None:
    corpus = write_echoes(tmp_path / "corpus")
    mesh = make_mesh(devices=jax.devices()[:2])

    def read(slots: int | None) -> list[Any]:
        run = {"accumulation_steps": 2} | ({"sequence_slots": slots} if given else {})
        config = make_experiment(corpus, num_train_steps=20, **run)
        curriculum = Curriculum(open_corpus(corpus), config, mesh)
        curriculum.limit_sequences(slots)
        return list(itertools.islice(curriculum.batches(0), 4))

    ids = np.stack([batch.sequence_ids for batch in read(None)])
    runs = (np.diff(ids, axis=-1) != 0).sum(-1) + 1
    # Rows of a batch by device, then by micro-batch: rows 0, 2, ... and 1, 3, ... of each device.
    needed = int(np.ceil(runs.reshape(4, 2, -1, 2).mean(axis=2).max()))
    assert len(read(needed)) == 4
    got = f"{needed - 1}$" if given else f"None; the plan of the rows gave {needed - 1}$"
    message = rf"^--config\.run\.sequence_slots must be at least {needed} for .* got {got}"
    assert needed > 2, "the example needs more than the fewest slots"
    with pytest.raises(InputError, match=message):
        read(needed - 1)


def test_slots_follow_from_the_plan_of_each_phase_and_suffice(tmp_path: Path) -> None:
    """Rows of two lengths, several ways of cutting, two devices and two micro-batches."""
    corpus = write_echoes(tmp_path / "corpus")
    config = make_experiment(corpus, num_train_steps=20, accumulation_steps=2)
    first = PhaseConfig(
        num_steps=8, max_seq_length=24, max_predictions_per_seq=4, global_batch_size=32
    )
    data = dataclasses.replace(config.data, num_plan_variants=2, max_pairs_per_row=8)
    config = dataclasses.replace(config, data=data, phases=PhasesConfig(first))
    mesh = make_mesh(devices=jax.devices()[:2])
    curriculum = Curriculum(open_corpus(corpus), config, mesh)
    parts: list[RowsAtOnce] = []

    def fewest(given: list[RowsAtOnce]) -> int:
        parts.extend(given)
        return slot_capacity.fewest_slots(given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.run.curriculum.fewest_slots", fewest)
        slots = curriculum.find_slots()
    assert [(part.rows, part.times) for part in parts] == [(8, 8 * 4), (4, 12 * 4)]
    for part, phase in zip(parts, curriculum.phases, strict=True):
        dataset = PretrainingDataset(
            open_corpus(corpus), phase.data, seed=phase.seed, global_batch_size=16
        )
        np.testing.assert_array_equal(
            part.counts, dataset.plan.count_sequences(phase.data, phase.rows)
        )
        assert part.room == dataset.max_pairs_per_row + 1
    curriculum.limit_sequences(slots or max(part.room for part in parts))
    assert len(list(itertools.islice(curriculum.batches(0), 20))) == 20
    unpacked = dataclasses.replace(data, packing=Packing.UNPACKED)
    alone = Curriculum(open_corpus(corpus), dataclasses.replace(config, data=unpacked), mesh)
    assert alone.find_slots() == 0


def test_the_benchmark_has_the_slots_of_a_run_on_such_rows() -> None:
    ids = np.array([[1, 2, 3, 0], [1, 1, 2, 2]])
    labels = np.zeros((2, 16))
    batches = Batches([{"sequence_ids": ids, "sentence_order_positions": labels}], "test")
    config, mesh = ExperimentConfig(), make_mesh(devices=jax.devices()[:1])
    assert slots_of_batches(config, mesh, batches) == 4  # both rows may have four, as one has
    many = Batches([{name: np.repeat(x, 256, 0) for name, x in batches.batches[0].items()}], "")
    assert slots_of_batches(config, mesh, many) == 4  # 3.3 would do
    two = np.array([[1, 2, 2, 2], [1, 1, 1, 1]])
    many.batches[0]["sequence_ids"] = np.repeat(two, 256, 0)
    assert slots_of_batches(config, mesh, many) == 2
    many.batches[0]["sentence_order_positions"] = labels[:, :1]
    assert slots_of_batches(config, mesh, many) == 0  # no fewer than there is room for


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
    compiler.step_of(1)
    assert given == [{"xla_gpu_autotune_level": "2"}]


def test_fused_layers_are_verified_or_rejected_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    cpu_line = choose_attention(Attention.AUTO, workload_of(jax.devices()[0]))[1]

    def resolve(wanted: bool | None) -> tuple[bool, str]:
        run = TrainingRunConfig(fused_layers=wanted)
        resolved, line = execution.resolve_execution(run, CONFIG, mesh, lengths=[8], packed=False)
        return resolved.fused, line

    def fail(*_: Any) -> float:
        raise ValueError("they are 1 off")

    assert resolve(None) == (False, cpu_line)  # not a word about GPUs
    with pytest.raises(
        InputError,
        match=r"^--config\.run\.fused_layers must be false or none here \(they are for NV",
    ):
        resolve(True)
    monkeypatch.setattr(execution, "unsupported_reason", lambda _: None)
    monkeypatch.setattr(execution, "check_fused_layers", lambda *_: 0.002)
    for wanted in (True, None):
        within = "; fused layers, within 0.002 of the plain ones on this device"
        assert resolve(wanted) == (True, cpu_line + within)
    monkeypatch.setattr(execution, "check_fused_layers", fail)
    assert resolve(False) == (False, cpu_line)  # neither asked nor compared
    with pytest.raises(InputError, match=r"must be false or none here \(they are 1 off\)"):
        resolve(True)
    assert execution.resolve_fused_layers(None, workload_of(GPU)) == (
        False,
        "; not fused layers: they are 1 off",
    )


GPU: Any = SimpleNamespace(platform="gpu", compute_capability="9.0")


def workload_of(device: Any) -> AttentionWorkload:
    return AttentionWorkload(CONFIG, "float32", (8,), False, device)


def test_hosts_that_resolved_another_execution_differ_in_words() -> None:
    ours = execution.Execution(Remat.NONE, Attention.CUDNN, 12, 3, True)
    theirs = dataclasses.replace(ours, sequence_slots=None, fused=False)
    facts = {0: execution.execution_facts(ours), 1: execution.execution_facts(theirs)}
    assert find_differences(facts) == [
        "--config.run.sequence_slots (resolved) is 3 on process 0, None on process 1",
        "--config.run.fused_layers (resolved) is True on process 0, False on process 1",
    ]
    assert not find_differences({0: facts[0], 1: execution.execution_facts(ours)})


def test_matmuls_in_bfloat16_are_named() -> None:
    mesh = make_mesh(devices=jax.devices()[:1])
    run = TrainingRunConfig(matmuls=Matmuls.BFLOAT16)
    resolved, line = execution.resolve_execution(run, CONFIG, mesh, lengths=[8], packed=False)
    assert resolved.matmuls is Matmuls.BFLOAT16
    assert line.endswith("; bfloat16 matmuls")


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
    monkeypatch.setattr(execution, "compiler_options", lambda *_: {"as": "in the step"})
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


def test_all_layers_are_compiled_as_one_where_a_loop_costs_time() -> None:
    depth = CONFIG.num_hidden_layers
    for platform, layers in (("gpu", depth), ("cpu", depth), ("tpu", 1)):
        device: Any = SimpleNamespace(platform=platform)
        assert execution.resolve_unroll(RunConfig(), CONFIG, device) == layers
        assert execution.resolve_unroll(RunConfig(unroll=3), CONFIG, device) == 3
    for platform, layers in (("gpu", depth), ("cpu", 1), ("tpu", 1)):
        device = SimpleNamespace(platform=platform)
        assert execution.resolve_unroll(RunConfig(remat="full"), CONFIG, device) == layers
