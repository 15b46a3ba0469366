"""Schedules: the share of the peak learning rate that a step is taken with."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from albert_jax.training.config import ScheduleName


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Steps are counted from 0. With W warm-up steps beginning at step B, N steps in all, power p
    and D steps of decay, the share of the peak is

    - before B + W: ``(step - B) / W``, not below 0;
    - then, ``legacy_poly``: ``(1 - step / N)^p``;
    - then, ``poly``: ``(1 - (step - B - W) / (N - B - W))^p``;
    - then, ``cosine``: ``(1 + cos(pi (step - B - W) / (N - B - W))) / 2``;
    - then, ``warmup_stable_decay``: 1, and in the last D steps ``((N - step) / D)^p``;
    - then, ``inverse_root``: ``sqrt(W / (step - B))``; it does not end at N.
    """

    name: ScheduleName
    warmup_begin: int  # B
    warmup_steps: int  # W
    end: int  # N
    power: float  # p
    decay_steps: int  # D

    def __call__(self, step: ArrayLike) -> Float[Array, ""]:
        """The share of the peak.

        Example: with B = 0, W = 10, N = 110 and D = 20 the share is 0.5 at step 5; at step 60 it is
        0.4545, 0.5, 0.5, 1 and 0.4082 in the order of `ScheduleName`, with the power 1.
        """
        step = jnp.asarray(step)
        # Whole numbers up to the division: 1 - step / N in float32 would blur the last steps.
        risen = jnp.maximum(step - self.warmup_begin, 0).astype(float)
        rising = risen / max(self.warmup_steps, 1)
        falling = _FALLING[self.name](self, step)
        return jnp.where(step < self.warmup_begin + self.warmup_steps, rising, falling)

    def _left(self, step: Array, begin: int) -> Float[Array, ""]:
        """The share still to come of the steps from `begin` to the end; 1 before them."""
        left = (self.end - jnp.clip(step, begin, self.end)).astype(float)
        return left / max(self.end - begin, 1)

    @property
    def _warm(self) -> int:
        return self.warmup_begin + self.warmup_steps

    def _legacy_poly(self, step: Array) -> Float[Array, ""]:
        return self._left(step, 0) ** self.power

    def _poly(self, step: Array) -> Float[Array, ""]:
        return self._left(step, self._warm) ** self.power

    def _cosine(self, step: Array) -> Float[Array, ""]:
        return (1 - jnp.cos(math.pi * self._left(step, self._warm))) / 2

    def _warmup_stable_decay(self, step: Array) -> Float[Array, ""]:
        return self._left(step, self.end - self.decay_steps) ** self.power

    def _inverse_root(self, step: Array) -> Float[Array, ""]:
        counted = jnp.maximum(step - self.warmup_begin, 1).astype(float)
        return jnp.sqrt(self.warmup_steps / counted)


_FALLING: Mapping[ScheduleName, Callable[[Schedule, Array], Array]] = {
    ScheduleName.LEGACY_POLY: Schedule._legacy_poly,
    ScheduleName.POLY: Schedule._poly,
    ScheduleName.COSINE: Schedule._cosine,
    ScheduleName.WARMUP_STABLE_DECAY: Schedule._warmup_stable_decay,
    ScheduleName.INVERSE_ROOT: Schedule._inverse_root,
}
