"""Speed of the training step and of the forward pass on batches that lie on the devices."""

import functools
import itertools
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.flops import mesh_peak_flops
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import (
    compile_eval_step,
    compile_train_step,
    initialize_state,
    make_mesh,
    place_batch,
)
from data_pipeline.errors import InputError
from experiments.benchmarks.batches import Batches
from experiments.benchmarks.report import processor_name
from experiments.benchmarks.timing import Candidate, StepKind
from experiments.run.config import ExperimentConfig
from experiments.run.device_memory import memory_of
from experiments.run.execution import open_mesh, resolve_execution

SYSTEM = "albert-jax"


def step_candidates(
    config: ExperimentConfig, batches: Batches, works: Sequence[StepKind]
) -> list[Candidate]:
    """The experiment's steps, compiled. They go round the batches, which lie on the devices.

    Raises:
        InputError: the rows do not divide over the devices.
    """
    if not config.run.accumulation_steps:
        raise InputError("--config.run.accumulation_steps=0 is for training: name a number here")
    mesh = open_mesh(config.run, config.global_batch_size)
    execution, line = resolve_execution(
        config.run,
        config.model,
        mesh,
        lengths=[config.data.max_seq_length],
        packed=batches.is_packed,
    )
    print(line, file=sys.stderr, flush=True)
    model = AlbertForPreTraining(config.model, dtype=config.run.dtype, execution=execution)
    objective = pretraining_objective(model)
    optimizer = make_optimizer(config.optimizer, global_batch_size=config.global_batch_size)

    def initialize(key: jax.Array) -> PyTree:
        return model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]

    key = jax.random.key(config.seed)
    state = initialize_state(initialize, optimizer, key, mesh)
    placed = [place_batch(PretrainingBatch.from_numpy(b), mesh) for b in batches.batches]
    turns = itertools.cycle(placed)

    def candidate(work: StepKind, step: jax.stages.Wrapped, *arguments: Any) -> Candidate:
        started = time.perf_counter()
        compiled = step.lower(*arguments).compile()
        seconds = time.perf_counter() - started

        def train(steps: int) -> None:
            nonlocal state  # donated
            for _ in range(steps):
                state, _ = compiled(state, next(turns), key)
            jax.block_until_ready(state)

        def forward(steps: int) -> None:
            results = [compiled(state.params, next(turns)) for _ in range(steps)]
            jax.block_until_ready(results)

        run = train if work is StepKind.TRAIN else forward
        memory = functools.partial(memory_of, compiled)
        return Candidate(SYSTEM, work, run, seconds, memory, compiled.as_text)

    candidates = []
    if StepKind.TRAIN in works:
        train_step = compile_train_step(
            objective.loss_fn,
            optimizer,
            state,
            mesh,
            weight_fn=objective.weight_fn,
            accumulation_steps=config.run.accumulation_steps,
            parallelism=config.run.parallelism,
            reduction_dtype=config.run.reduction_dtype,
        )
        candidates.append(candidate(StepKind.TRAIN, train_step, state, placed[0], key))
    if StepKind.FORWARD in works:
        forward_step = compile_eval_step(objective.loss_fn, state.params, mesh)
        candidates.append(candidate(StepKind.FORWARD, forward_step, state.params, placed[0]))
    return candidates


def device_name() -> str:
    """What the devices are, and how many."""
    device = jax.devices()[0]
    kind = processor_name() if device.platform == "cpu" else device.device_kind
    return f"{kind} x {jax.device_count()}"


def total_peak_flops() -> float | None:
    """The peak of all devices together, or None where it is not known."""
    return mesh_peak_flops(make_mesh())
