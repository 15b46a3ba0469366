"""Compilation of the steps for a mesh.

Plain ``jit`` would gather a shared layer over ``fsdp``, and reduce its gradient over ``data`` and
``fsdp``, inside the loop over layers, once per layer. Here the gradient function is mapped over
both by ``shard_map``, so parameters are gathered once before it and gradients stay local until the
one reduction at its end; ``tensor`` is left to the compiler.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import DTypeLike
from jaxtyping import PyTree

from albert_jax.devices.mesh import DATA_AXIS, ROW_AXES
from albert_jax.devices.sharding import ROWS, P, state_shardings
from albert_jax.training.losses import LossFn, Metrics, WeightFn
from albert_jax.training.train_step import (
    GradientFn,
    TrainState,
    create_train_state,
    make_eval_step,
    make_train_step,
)

CompilerOption = bool | int | float | str
TrainStep = Callable[[TrainState, Any, Array], tuple[TrainState, Metrics]]


class Parallelism(StrEnum):
    """Transformation that distributes a step over devices."""

    PJIT = "pjit"  # jit over the whole mesh
    PMAP = "pmap"  # pmap over the data axis only


def initialize_state(
    initialize: Callable[[Array], PyTree],
    optimizer: optax.GradientTransformation,
    key: Array,
    mesh: Mesh,
    *,
    keep_history: bool = False,
) -> TrainState:
    """Initialize a sharded state; each shard is computed on the devices that hold it.

    Args:
        initialize: maps a key to parameters.
        optimizer: the gradient transformation, for its state.
        key: random key of the parameters.
        mesh: the devices.
        keep_history: True for a run that skips steps.
    """

    def create(key: Array) -> TrainState:
        return create_train_state(initialize(key), optimizer, keep_history=keep_history)

    shardings = state_shardings(jax.eval_shape(create, key), mesh)
    return jax.jit(create, out_shardings=shardings)(key)


def map_over_rows(mesh: Mesh, row_axes: Sequence[str]) -> Callable[[GradientFn], GradientFn]:
    """Return a transformation that maps a gradient function over the row axes."""

    # Pallas kernels cannot be called where JAX checks what varies over which axis (VMA), and XLA
    # cannot shard an unchecked function over further axes. No run needs both.
    tensor_parallel = mesh.shape["tensor"] > 1
    # All other axes are mapped, including those of one device: Mosaic, which compiles such kernels
    # for TPUs, rejects a kernel that XLA might shard over an axis that is not mapped.
    axes = row_axes if tensor_parallel else mesh.axis_names

    def transform(gradients: GradientFn) -> GradientFn:
        if not row_axes:
            return gradients

        def local(params: PyTree, batch: Any, key: Array) -> tuple[PyTree, Metrics]:
            # With the check, the gradient of parameters that are equal on all shards would be
            # reduced wherever they are used, that is, in each layer.
            if tensor_parallel:
                params = jax.lax.pcast(params, tuple(row_axes), to="varying")
            return gradients(params, batch, key)

        return jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(P(), P(tuple(row_axes)), P()),
            out_specs=P(),
            check_vma=tensor_parallel,
            axis_names=set(axes),
        )

    return transform


def compile_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
    *,
    weight_fn: WeightFn,
    sampled_loss_fn: LossFn | None = None,
    accumulation_steps: int = 1,
    parallelism: Parallelism = Parallelism.PJIT,
    reduction_dtype: DTypeLike = jnp.float32,
    spike_sigmas: float | None = None,
    compiler_options: Mapping[str, CompilerOption] | None = None,
) -> jax.stages.Wrapped:
    """Jit the training step, a `TrainStep`, for a mesh.

    It is compiled at its first call, or ahead of time by its `lower`, and donates the state. State
    and batches are the same global arrays under either parallelism.

    Args:
        loss_fn: the task's loss.
        optimizer: the gradient transformation.
        state: the state, or its shapes.
        mesh: the devices.
        weight_fn: the denominators of the task's objectives.
        sampled_loss_fn: see `make_train_step`.
        accumulation_steps: number of micro-batches of a step.
        parallelism: the transformation that distributes the step.
        reduction_dtype: dtype in which gradients are summed over devices.
        spike_sigmas: see `make_train_step`.
        compiler_options: XLA's options by name.

    Raises:
        ValueError: `pmap` with more than the data axis.
    """
    options = dict(compiler_options or {}) or None
    make_step = functools.partial(
        make_train_step,
        loss_fn,
        optimizer,
        weight_fn=weight_fn,
        sampled_loss_fn=sampled_loss_fn,
        accumulation_steps=accumulation_steps,
        reduction_dtype=reduction_dtype,
        spike_sigmas=spike_sigmas,
    )
    if parallelism is Parallelism.PMAP:
        return _pmap_train_step(make_step(), mesh, options)
    row_axes = [axis for axis in ROW_AXES if mesh.shape[axis] > 1]
    step = make_step(row_axes=row_axes, map_over_rows=map_over_rows(mesh, row_axes))
    shardings = state_shardings(state, mesh)
    replicated = NamedSharding(mesh, P())
    return jax.jit(
        step,
        in_shardings=(shardings, NamedSharding(mesh, ROWS), replicated),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
        compiler_options=options,
    )


def _pmap_train_step(
    step: TrainStep, mesh: Mesh, options: dict[str, CompilerOption] | None
) -> jax.stages.Wrapped:
    for axis in ("fsdp", "tensor"):
        if mesh.shape[axis] > 1:
            raise ValueError(
                f"run.parallelism=pmap shards rows alone: run.{axis} must be 1, "
                f"got {mesh.shape[axis]}; run.parallelism=pjit supports it"
            )
    mapped = jax.pmap(
        step,
        axis_name=DATA_AXIS,
        in_axes=(None, 0, None),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=0,
    )
    devices = mesh.shape[DATA_AXIS]

    def train_step(state: TrainState, batch: Any, rng: Array) -> tuple[TrainState, Metrics]:
        by_device = jax.tree.map(lambda x: x.reshape(devices, -1, *x.shape[1:]), batch)
        return mapped(state, by_device, rng)

    return jax.jit(train_step, donate_argnums=0, compiler_options=options)


def compile_eval_step(loss_fn: LossFn, params: PyTree, mesh: Mesh) -> jax.stages.Wrapped:
    """Jit the evaluation step ``(params, batch) -> metrics`` for a mesh."""
    replicated = NamedSharding(mesh, P())
    return jax.jit(
        make_eval_step(loss_fn),
        in_shardings=(state_shardings(params, mesh), NamedSharding(mesh, ROWS)),
        out_shardings=replicated,
    )


def compile_predict_step(
    predict: Callable[[PyTree, Any], PyTree], params: PyTree, mesh: Mesh
) -> Callable[[PyTree, Any], PyTree]:
    """Jit a function of parameters and batch for a mesh; its outputs are replicated."""
    replicated = NamedSharding(mesh, P())
    return jax.jit(
        predict,
        in_shardings=(state_shardings(params, mesh), NamedSharding(mesh, ROWS)),
        out_shardings=replicated,
    )
