"""Detection of silent data corruption: a step is computed twice, and each device's bits compared.

Both times the same program computes from the same numbers, so a different result comes from a
faulty device or from a kernel that is not deterministic. A wrong gradient spreads to all devices
with the sum over the batch. Therefore the gradients of each shard of the batch are compared before
the sum, and the new state is compared on each device. Devices that hold copies of the same part of
the state must also hold the same bits.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import UInt32

from albert_jax.devices.fingerprint import fingerprint
from albert_jax.devices.mesh import MESH_AXES, ROW_AXES
from albert_jax.devices.sharding import ROWS, P, state_shardings
from albert_jax.training.losses import LossFn, Metrics, WeightFn
from albert_jax.training.parallel import CompilerOption, TrainStep, map_over_rows
from albert_jax.training.train_step import FINGERPRINTS, TrainState, make_train_step


class DeterminismError(ArithmeticError):
    """A device computed different bits than before, or than the other devices.

    Attributes:
        devices: those that differ.
    """

    def __init__(self, message: str, devices: Sequence[jax.Device]) -> None:
        super().__init__(message)
        self.devices = tuple(devices)


class StepFingerprints(NamedTuple):
    """Fingerprints of the results of a step."""

    gradients: UInt32[Array, " shards"]  # of gradients and metrics, for each shard of the rows
    states: UInt32[Array, "data fsdp tensor"]  # of the new state, on each device


def compile_step_fingerprints(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    mesh: Mesh,
    *,
    weight_fn: WeightFn,
    sampled_loss_fn: LossFn | None = None,
    accumulation_steps: int = 1,
    reduction_dtype: DTypeLike = jnp.float32,
    spike_sigmas: float | None = None,
    compiler_options: Mapping[str, CompilerOption] | None = None,
) -> jax.stages.Wrapped:
    """Jit ``(state, batch, rng) -> StepFingerprints``, with equal results on all processes.

    It computes a step and discards it; the state is not donated. Arguments are those of
    `parallel.compile_train_step`, whose step is the same under either parallelism.
    """
    row_axes = [axis for axis in ROW_AXES if mesh.shape[axis] > 1]
    step = make_train_step(
        loss_fn,
        optimizer,
        weight_fn=weight_fn,
        sampled_loss_fn=sampled_loss_fn,
        accumulation_steps=accumulation_steps,
        reduction_dtype=reduction_dtype,
        spike_sigmas=spike_sigmas,
        fingerprints=True,
        row_axes=row_axes,
        map_over_rows=map_over_rows(mesh, row_axes),
    )
    shardings = state_shardings(state, mesh)
    of_each_device = jax.shard_map(
        lambda state: fingerprint(state).reshape(1, 1, 1),
        mesh=mesh,
        in_specs=(jax.tree.map(lambda sharding: sharding.spec, shardings),),
        out_specs=P(*MESH_AXES),
        check_vma=False,
    )

    def fingerprints(state: TrainState, batch: Any, rng: Array) -> StepFingerprints:
        after, metrics = step(state, batch, rng)
        after = jax.lax.with_sharding_constraint(after, shardings)
        return StepFingerprints(metrics[FINGERPRINTS].sum, of_each_device(after))

    replicated = NamedSharding(mesh, P())
    return jax.jit(
        fingerprints,
        in_shardings=(shardings, NamedSharding(mesh, ROWS), replicated),
        out_shardings=replicated,
        compiler_options=dict(compiler_options or {}) or None,
    )


class CheckedStep:
    """A `TrainStep` that computes one step in `every` twice before taking it.

    Args:
        train_step: the step.
        fingerprints: the function that `compile_step_fingerprints` jits.
        mesh: the devices.
        every: a step is checked if its number is a multiple of this.
        step: number of steps taken.

    Raises:
        DeterminismError: when it is called, if the results of a step differ.
    """

    def __init__(
        self,
        train_step: TrainStep,
        fingerprints: Callable[[TrainState, Any, Array], StepFingerprints],
        mesh: Mesh,
        *,
        every: int,
        step: int,
    ) -> None:
        self._train_step, self._fingerprints = train_step, fingerprints
        self._mesh, self._every, self._step = mesh, every, step

    def __call__(self, state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        self._step += 1
        if self._step % self._every == 0:
            compute = functools.partial(self._fingerprints, state, batch, key)
            first, second = (jax.device_get(compute()) for _ in range(2))
            compare_fingerprints(first, second, self._mesh, self._step)
        return self._train_step(state, batch, key)


def compare_fingerprints(
    first: StepFingerprints, second: StepFingerprints, mesh: Mesh, step: int
) -> None:
    """Compare the fingerprints of a step that was computed twice.

    Raises:
        DeterminismError: they differ, or copies of the state differ from each other.
    """
    grid = mesh.devices

    def check(differs: ArrayLike, devices: np.ndarray, what: str) -> None:
        found = list(devices[np.asarray(differs)].flat)
        if found:
            names = ", ".join(f"{device} (process {device.process_index})" for device in found)
            raise DeterminismError(
                f"step {step}, computed twice, is wrong on {names}: {what}", found
            )

    by_shard = grid.reshape(-1, grid.shape[-1])  # devices that share a matmul share the gradients
    check(first.gradients != second.gradients, by_shard, "its gradients differ in bits")
    check(first.states != second.states, grid, "its new state differs in bits")
    check(
        np.apply_along_axis(_outliers, 0, first.states),
        grid,
        "its state differs in bits from the copies on other devices",
    )


def _outliers(copies: np.ndarray) -> np.ndarray:
    """Return True for copies that differ from the majority, or for all if there is none."""
    values, counts = np.unique(copies, return_counts=True)
    if 2 * counts.max() <= len(copies) and len(values) > 1:
        return np.ones(len(copies), bool)
    return copies != values[counts.argmax()]
