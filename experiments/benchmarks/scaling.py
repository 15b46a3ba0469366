"""Weak scaling as the compiler sees it: the step on 1, 2, 4, ... devices, each with as many rows.

Simulated devices show no speed. They show what a pod would wait for: the time of the compilation,
and the bytes that devices exchange.
"""

import collections
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from albert_jax.batch import PretrainingBatch
from albert_jax.devices.collectives import Collective, parse_collectives
from albert_jax.devices.mesh import DATA_AXIS, make_mesh
from albert_jax.encoder import Execution
from albert_jax.model import AlbertForPreTraining
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.training.optimizer import make_optimizer
from albert_jax.training.parallel import compile_train_step
from albert_jax.training.train_step import TrainState, create_train_state
from experiments.benchmarks.report import rounded
from experiments.run.config import ExperimentConfig
from experiments.run.execution import compiler_options, resolve_unroll


def measure_scaling(
    config: ExperimentConfig, devices: Sequence[jax.Device]
) -> list[dict[str, Any]]:
    """Return a row for each number of devices, and for each way to shard parameters over all.

    Args:
        config: the experiment; its global batch is the batch of each device.
        devices: the available ones.
    """
    numbers = [2**n for n in range(len(devices).bit_length())]
    shapes = [(number, 1, 1) for number in numbers]
    if len(devices) > 1:
        shapes += [(numbers[-1], 2, 1), (numbers[-1], 1, 2)]
    return [
        _measure(config, make_mesh(fsdp=fsdp, tensor=tensor, devices=devices[:number]))
        for number, fsdp, tensor in shapes
    ]


def _measure(config: ExperimentConfig, mesh: Mesh) -> dict[str, Any]:
    run = config.run
    unroll = resolve_unroll(run, config.model, mesh.devices.flat[0])
    execution = Execution(run.remat, unroll=unroll)
    model = AlbertForPreTraining(config.model, dtype=run.dtype, execution=execution)
    rows = config.global_batch_size * mesh.size
    optimizer = make_optimizer(config.optimizer, global_batch_size=rows)

    def create(key: jax.Array) -> TrainState:
        return create_train_state(model.initialize(key), optimizer)

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(create, key)
    objective = pretraining_objective(model, config.data.sentence_objective.metric_name)
    step = compile_train_step(
        objective.loss_fn,
        optimizer,
        state,
        mesh,
        weight_fn=objective.weight_fn,
        accumulation_steps=max(1, run.accumulation_steps),
        reduction_dtype=run.reduction_dtype,
        compiler_options=compiler_options(run),
    )
    lowered = step.lower(state, _shapes(config, rows), key)
    started = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    found = parse_collectives(compiled.as_text() or "", mesh)
    over_data = [c for c in found if DATA_AXIS in c.axes]
    parameters = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    return {
        "devices": mesh.size,
        "mesh": " x ".join(str(size) for size in mesh.devices.shape),
        "rows": rows,
        "compile_seconds": rounded(seconds, 3),
        "parameters_mb": rounded(parameters / 1e6),
        "over_data_mb": rounded(sum(c.bytes for c in over_data) / 1e6),
        "over_data_in_loops": sum(c.in_loop for c in over_data),
        "collectives": _format(found),
    }


def _shapes(config: ExperimentConfig, rows: int) -> PretrainingBatch:
    """Return the shapes of a batch."""
    data = config.data
    row = jax.ShapeDtypeStruct((rows, data.max_seq_length), jnp.int32)
    slot = jax.ShapeDtypeStruct((rows, data.max_predictions_per_seq), jnp.int32)
    pair = jax.ShapeDtypeStruct((rows, 1), jnp.int32)
    batch: Any = PretrainingBatch(*[row] * 4, *[slot] * 3, *[pair] * 3)  # type: ignore[arg-type]
    weights = {
        name: getattr(batch, name).update(dtype=jnp.float32)
        for name in ("masked_lm_weights", "sentence_order_weights")
    }
    return batch._replace(**weights)


def _format(found: list[Collective]) -> str:
    """Summarize the collectives of each kind along each axis, in loops and outside: number, bytes.

    Example: ``all-reduce over data: 1 of 46.8 MB; all-gather over fsdp in loops: 4 of 9.4 MB``.
    """
    groups: dict[tuple[str, str, bool], list[int]] = collections.defaultdict(list)
    for c in found:
        groups[c.kind, " and ".join(c.axes), c.in_loop].append(c.bytes)
    return (
        "; ".join(
            f"{kind} over {axes or 'one device'}{' in loops' * looping}: {len(sizes)} of "
            f"{sum(sizes) / 1e6:.3g} MB"
            for (kind, axes, looping), sizes in sorted(groups.items())
        )
        or "none"
    )
