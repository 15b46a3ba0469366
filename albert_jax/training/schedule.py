"""Learning-rate schedules."""

import math

import jax.numpy as jnp
import optax
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from albert_jax.training.config import OptimizerConfig, ScheduleName


def make_schedule(config: OptimizerConfig, *, global_batch_size: int) -> optax.Schedule:
    """Return the learning rate of each step, counted from 0.

    With W warm-up steps beginning at step B, N steps in total, power p and D steps of decay, the
    rate as a fraction of its peak is

    - before B + W: ``(step - B) / W``, not below 0;
    - then, ``legacy_poly``: ``(1 - step / N)^p``;
    - then, ``poly``: ``(1 - (step - B - W) / (N - B - W))^p``;
    - then, ``cosine``: ``(1 + cos(pi (step - B - W) / (N - B - W))) / 2``;
    - then, ``warmup_stable_decay``: 1, and in the last D steps ``((N - step) / D)^p``;
    - then, ``inverse_root``: ``sqrt(W / (step - B))``; it does not end at N.

    Example: the defaults give 0 at step 0, 1.7594e-3 at 3124, 1.7160e-3 at 3125, 8.8e-4 at 62,500
    and 0 at 125,000; under ``poly`` 1.76e-3 at 3125 is followed by a decay without a jump. With
    B = 0, W = 10, N = 110 and D = 20 the fraction is 0.5 at step 5; at step 60 it is 0.4545, 0.5,
    0.5, 1 and 0.4082 in the order of `ScheduleName`, with the power 1.

    Args:
        config: the schedule's parameters.
        global_batch_size: sequences per step; read only if `config.reference_batch_size` is set.
            Then the peak is `learning_rate` times the square root of the quotient of the two, the
            rule by which LAMB's authors scaled BERT from 512 to 32k sequences.
    """
    peak = config.learning_rate
    if config.reference_batch_size is not None:
        peak *= math.sqrt(global_batch_size / config.reference_batch_size)
    start, warmup_steps = config.start_warmup_step, config.num_warmup_steps
    decay = _decay(config)

    def schedule(step: ArrayLike) -> Float[Array, ""]:
        step = jnp.asarray(step)
        warmup = jnp.maximum(step - start, 0).astype(float) / max(warmup_steps, 1)
        return peak * jnp.where(step < start + warmup_steps, warmup, decay(step))

    return schedule


def _decay(config: OptimizerConfig) -> optax.Schedule:
    """Return the rate after warm-up as a fraction of its peak."""
    start, end, power = config.start_warmup_step, config.num_train_steps, config.poly_power
    warm = start + config.num_warmup_steps
    match config.schedule:
        case ScheduleName.LEGACY_POLY:
            return lambda step: _remaining(step, 0, end) ** power
        case ScheduleName.POLY:
            return lambda step: _remaining(step, warm, end) ** power
        case ScheduleName.COSINE:
            return lambda step: (1 - jnp.cos(math.pi * _remaining(step, warm, end))) / 2
        case ScheduleName.WARMUP_STABLE_DECAY:
            return lambda step: _remaining(step, end - config.num_decay_steps, end) ** power
        case ScheduleName.INVERSE_ROOT:
            return lambda step: jnp.sqrt(config.num_warmup_steps / jnp.maximum(step - start, 1))


def _remaining(step: Array, begin: int, end: int) -> Float[Array, ""]:
    """Return the fraction of the steps from `begin` to `end` that is left; 1 before them.

    It computes with integers up to the division: the ``1 - count / transition_steps`` of optax's
    schedules, in float32, is wrong by 0.5 % at the last of 125,000 steps and by 19 % at the last of
    10,000,000.
    """
    return (end - jnp.clip(step, begin, end)).astype(float) / max(end - begin, 1)
