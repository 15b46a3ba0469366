"""The training step for batches of several shapes."""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from albert_jax.losses import Metrics
from albert_jax.parallel import TrainStep
from albert_jax.train_step import TrainState


class CompiledSteps:
    """A training step, compiled ahead of its use for each shape that a batch comes in.

    It is itself a `TrainStep`, and says what it compiles and how long that takes.

    Args:
        step: what `parallel.compile_train_step` gives.
        say: takes a line for people.
        costs: describes what the first compiled step will cost.
    """

    def __init__(
        self,
        step: jax.stages.Wrapped,
        say: Callable[[str], None],
        costs: Callable[[jax.stages.Compiled], str],
    ) -> None:
        self._step, self._say, self._costs = step, say, costs
        self._compiled: dict[tuple[tuple[int, ...], ...], TrainStep] = {}

    def __call__(self, state: TrainState, batch: Any, key: Array) -> tuple[TrainState, Metrics]:
        return self.prepare(state, batch, key)(state, batch, key)

    def prepare(self, state: TrainState, batch: Any, key: Array) -> TrainStep:
        """The step for batches of this one's shape."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._compiled:
            first = not self._compiled
            rows = "" if first else f" for {' x '.join(map(str, shapes[0]))} positions"
            self._say(f"compiling the training step{rows} ...")
            start = time.perf_counter()
            compiled = self._step.lower(state, batch, key).compile()
            said = f"compiled in {time.perf_counter() - start:.1f} s"
            self._say(f"{said}: {self._costs(compiled)}" if first else said)
            self._compiled[shapes] = compiled
        return self._compiled[shapes]
