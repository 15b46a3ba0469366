"""Speed of the training step and the forward pass on batches that are already on the devices."""

import functools
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from albert_jax.attention.cudnn_slots import count_runs, slots_needed
from albert_jax.attention.slot_capacity import RowsAtOnce, fewest_slots
from albert_jax.batch import PretrainingBatch
from albert_jax.devices.flops import mesh_peak_flops
from albert_jax.devices.memory import memory_of
from albert_jax.devices.mesh import make_mesh
from albert_jax.devices.sharding import place_batch
from albert_jax.matmuls import Matmuls
from albert_jax.model import AlbertForPreTraining
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_eval_step, compile_train_step, initialize_state
from data_pipeline.errors import InputError
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.profile import profile
from experiments.benchmarks.report import processor_name
from experiments.benchmarks.timing import (
    Candidate,
    StepKind,
    Windows,
    measurement_rows,
    time_candidates,
)
from experiments.benchmarks.torch import TorchVariant, torch_candidates
from experiments.run.compiled_steps import model_of, objective_of, refuse_teacher
from experiments.run.compiler_options import compiler_options
from experiments.run.config import ExperimentConfig
from experiments.run.execution import open_mesh, resolve_execution

SYSTEM = "albert-jax"


def measure_step(
    config: ExperimentConfig,
    batches: Batches,
    kinds: Sequence[StepKind],
    windows: Windows,
    *,
    torch_variants: Sequence[TorchVariant] = (),
    profile_dir: str | None = None,
) -> list[dict[str, Any]]:
    """Return a row of a table for each kind of step, and for each variant of transformers.

    Args:
        config: the experiment, with the batches' shape.
        batches: the batches that the steps cycle through.
        kinds: training steps, forward passes, or both.
        windows: how long each candidate is timed.
        torch_variants: ways to run transformers on torch; none: it is not measured.
        profile_dir: write traces of our steps there, and print their longest operations.

    Raises:
        InputError: the rows do not divide over the devices, or transformers has no such model.
    """
    ours = step_candidates(config, batches, kinds)
    theirs = torch_candidates(config, batches, torch_variants, kinds) if torch_variants else []
    samples = time_candidates([*ours, *theirs], windows)
    for candidate in ours if profile_dir else []:
        directory = f"{profile_dir}/{candidate.work}"
        table = profile(candidate.run, candidate.program() or "", directory)
        print(f"{candidate.work}, trace in {directory}:\n{table}\n")
    return measurement_rows(
        [*ours, *theirs],
        samples,
        config,
        batches,
        peak_flops=mesh_peak_flops(make_mesh()),
        num_alternatives=len(theirs),
    )


def step_candidates(
    config: ExperimentConfig, batches: Batches, kinds: Sequence[StepKind]
) -> list[Candidate]:
    """Compile the experiment's steps, which cycle through batches on the devices.

    Raises:
        InputError: the rows do not divide over the devices.
    """
    if not config.run.accumulation_steps:
        raise InputError("--config.run.accumulation_steps=0 is for training: name a number here")
    refuse_teacher(config)
    mesh = open_mesh(config.run, config.global_batch_size)
    model, execution = _make_model(config, mesh, batches)
    objective = objective_of(config, model)
    optimizer = make_optimizer(config.optimizer, global_batch_size=config.global_batch_size)
    key = jax.random.key(config.seed)
    state = initialize_state(model.initialize, optimizer, key, mesh)
    placed = [place_batch(PretrainingBatch.from_numpy(b), mesh) for b in batches.batches]
    cycle = itertools.cycle(placed)

    def train(compiled: jax.stages.Compiled, steps: int) -> None:
        nonlocal state  # donated
        for _ in range(steps):
            state, _ = compiled(state, next(cycle), key)
        jax.block_until_ready(state)

    def forward(compiled: jax.stages.Compiled, steps: int) -> None:
        results = [compiled(state.params, next(cycle)) for _ in range(steps)]
        jax.block_until_ready(results)

    candidates = []
    system = SYSTEM if config.run.matmuls is Matmuls.SAME else f"{SYSTEM} {config.run.matmuls}"
    if StepKind.TRAIN in kinds:
        step = compile_train_step(
            objective.loss_fn,
            optimizer,
            state,
            mesh,
            weight_fn=objective.weight_fn,
            sampled_loss_fn=objective.sampled_loss_fn,
            accumulation_steps=config.run.accumulation_steps,
            parallelism=config.run.parallelism,
            reduction_dtype=config.run.reduction_dtype,
            compiler_options=compiler_options(config.run),
        )
        candidates.append(_candidate(system, StepKind.TRAIN, train, step, state, placed[0], key))
    if StepKind.FORWARD in kinds:
        step = compile_eval_step(objective.loss_fn, state.params, mesh)
        parts = forward, step, state.params, placed[0]
        candidates.append(_candidate(system, StepKind.FORWARD, *parts))
    return [candidate._replace(execution=execution) for candidate in candidates]


def _candidate(
    system: str,
    kind: StepKind,
    run: Callable[[jax.stages.Compiled, int], None],
    step: jax.stages.Wrapped,
    *arguments: Any,
) -> Candidate:
    """Compile a step for some arguments; `run` takes a number of steps with it."""
    started = time.perf_counter()
    compiled = step.lower(*arguments).compile()
    seconds = time.perf_counter() - started
    memory = functools.partial(memory_of, compiled)
    run_steps = functools.partial(run, compiled)
    return Candidate(system, kind, run_steps, seconds, memory, compiled.as_text)


def _make_model(
    config: ExperimentConfig, mesh: Mesh, batches: Batches
) -> tuple[AlbertForPreTraining, str]:
    slots = config.run.sequence_slots
    execution, message = resolve_execution(
        config.run,
        config.model,
        mesh,
        lengths=[config.data.max_seq_length],
        packed=batches.is_packed,
        sequence_slots=functools.partial(slots_of_batches, config, mesh, batches)
        if slots is None
        else slots,
    )
    print(message, file=sys.stderr, flush=True)
    model = model_of(config, execution)
    return model, message


def slots_of_batches(config: ExperimentConfig, mesh: Mesh, batches: Batches) -> int:
    """Return the sequence slots that a run would have on rows like these.

    See `Curriculum.find_slots`. There are more if these batches need more.
    """
    shards, micro_batches = mesh.size, config.run.accumulation_steps
    ids = [batch["sequence_ids"] for batch in batches.batches]
    rows = len(ids[0]) // (shards * micro_batches)
    times = config.optimizer.num_train_steps * shards * micro_batches
    room = batches.batches[0]["sentence_order_positions"].shape[1] + 1
    counts = np.bincount(count_runs(np.concatenate(ids)))[None]
    slots = fewest_slots([RowsAtOnce(counts, room, rows, times)])
    needed = (slots_needed(each, shards=shards, micro_batches=micro_batches) for each in ids)
    return slots and max(slots, *needed)


def device_name() -> str:
    """Return the kind and the number of the devices."""
    device = jax.devices()[0]
    kind = processor_name() if device.platform == "cpu" else device.device_kind
    return f"{kind} x {jax.device_count()}"
