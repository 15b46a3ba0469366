"""Steps that are not applied: those that are not finite, and spikes of the loss or gradient norm.

The decision is made on the devices, from sums over the global batch and from earlier steps. So it
is the same on all processes, and an interruption does not change it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Float32, Int32

WINDOW = 128  # finite steps, applied or not, that a step is compared with
FEWEST = WINDOW // 2  # finite steps required before any step counts as a spike


class StepHistory(NamedTuple):
    """What is known of earlier steps to decide whether a step is applied.

    The index of a finite step is the number of finite steps before it, modulo `WINDOW`.
    """

    losses: Float32[Array, "window"]
    grad_norms: Float32[Array, "window"]
    finite_steps: Int32[Array, ""]  # number of all finite steps
    nonfinite_in_a_row: Int32[Array, ""]  # steps, up to the last one


def empty_history() -> StepHistory:
    """Return the history before the first step."""
    zero = jnp.zeros((), jnp.int32)
    values = jnp.zeros(WINDOW, jnp.float32)
    return StepHistory(values, values.copy(), zero, zero.copy())


def extend_history(
    history: StepHistory,
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    finite: Bool[Array, ""],
) -> StepHistory:
    """Return the history after a step.

    It includes spikes, so that a loss that has risen for good soon is the new level. A step that is
    not finite only counts towards those in a row.
    """
    index = history.finite_steps % WINDOW

    def put(values: Array, value: Array) -> Array:
        return jnp.where(finite, values.at[index].set(value.astype(values.dtype)), values)

    return StepHistory(
        put(history.losses, loss),
        put(history.grad_norms, grad_norm),
        history.finite_steps + finite.astype(jnp.int32),
        jnp.where(finite, 0, history.nonfinite_in_a_row + 1),
    )


def deviations(
    values: Float32[Array, "window"], count: Int32[Array, ""], value: Float[Array, ""]
) -> Float32[Array, ""]:
    """Return by how many standard deviations a value lies above the last `WINDOW` ones.

    The deviation is that of a sample (divided by N - 1), as in OLMo and MaxText, and at least a
    millionth of the mean, which is about the rounding error of the mean. Return 0 if fewer than
    `FEWEST` values are known.

    Example: 7 lies 4 deviations above values with the mean 3 and the deviation 1.
    """
    known = jnp.minimum(count, WINDOW)
    is_known = jnp.arange(WINDOW) < known
    mean = jnp.where(is_known, values, 0).sum() / jnp.maximum(known, 1)
    squares = jnp.where(is_known, jnp.square(values - mean), 0).sum()
    deviation = jnp.sqrt(squares / jnp.maximum(known - 1, 1))
    deviation = jnp.maximum(deviation, 1e-6 * jnp.abs(mean))
    above = (value.astype(values.dtype) - mean) / jnp.where(deviation > 0, deviation, 1)
    return jnp.where(known >= FEWEST, above, 0)
