"""The loop: for each batch a step, and now and then a log line, an evaluation, a checkpoint.

It opens no data file and knows no task: batches come placed on the devices, the rest by callables.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from albert_jax.training.losses import Metrics, Ratio, summarize
from albert_jax.training.parallel import TrainStep
from albert_jax.training.train_step import TrainState


class NonFiniteStepError(ArithmeticError):
    """A step's loss or gradients were not finite; it was not applied."""

    def __init__(self, step: int) -> None:
        super().__init__(f"step {step} has a loss or gradients that are not finite")
        self.step = step


class Intervals(NamedTuple):
    """Steps between two of each."""

    log: int
    evaluate: int
    checkpoint: int


@runtime_checkable
class LoopHooks(Protocol):
    """A run's part in the loop. Steps are counted from 1: the number of steps taken."""

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return held-out metrics of a state."""

    def should_stop_early(self) -> bool:
        """Return True if the evaluations so far end the run; the state is saved first."""

    def save(
        self, step: int, state: TrainState, finite: Array, metrics: dict[str, float] | None
    ) -> None:
        """Save a checkpoint; `metrics` are those of `evaluate`, if this step was evaluated."""

    def report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Log the metrics of a split: ``train`` or ``validation``."""

    def advance(self, step: int) -> None:
        """Take note of a step. Called after every one, without waiting for its result."""

    def should_stop(self, step: int) -> bool:
        """Return True if the run is asked to save and leave after this step."""


class BatchQueue:
    """Keeps batches placed ahead of their use, and counts how long the loader was waited for.

    Args:
        batches: host batches.
        place: puts a host batch on the devices, without waiting for the transfer.
        ahead: batches placed before they are asked for.
    """

    def __init__(
        self, batches: Iterator[Any], place: Callable[[Any], Any], *, ahead: int = 2
    ) -> None:
        self.waited_seconds = 0.0
        self._batches = batches
        self._place = place
        self._placed = deque(self._load() for _ in range(ahead))

    def _load(self) -> Any:
        start = time.perf_counter()
        batch = next(self._batches)
        self.waited_seconds += time.perf_counter() - start
        return self._place(batch)

    @property
    def next(self) -> Any:
        """What `take` will give, left in its place."""
        return self._placed[0]

    def take(self) -> Any:
        """The next batch, already on its way to the devices."""
        return self._placed.popleft()

    def refill(self) -> None:
        """Loads one more; to be called while the devices are at work."""
        self._placed.append(self._load())


class _Window:
    """The metrics since the last log line. Those of a step are read once the next one is under
    way, so that the devices never wait for the host."""

    def __init__(self, queue: BatchQueue) -> None:
        self._queue = queue
        self._pending: deque[tuple[int, Metrics]] = deque()
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._steps = 0
        self._start = time.perf_counter()
        self._waited = self._queue.waited_seconds

    def add(self, step: int, metrics: Metrics, *, keep: int = 1) -> None:
        """Takes a step's metrics and reads those of all but the last `keep` steps."""
        self._pending.append((step, metrics))
        self.read(keep=keep)

    def read(self, *, keep: int = 0) -> None:
        """Adds pending metrics up.

        Raises:
            NonFiniteStepError: one of them is not finite.
        """
        while len(self._pending) > keep:
            step, metrics = self._pending.popleft()
            metrics = jax.device_get(metrics)
            if not metrics["finite"].sum:
                raise NonFiniteStepError(step)
            self._steps += 1
            for name, ratio in metrics.items():
                self._sums[name] = self._sums.get(name, 0) + np.asarray(ratio, np.float64)

    def summarize(self) -> dict[str, float]:
        """Figures since the last call."""
        self.read()
        seconds = time.perf_counter() - self._start
        waited = self._queue.waited_seconds - self._waited
        figures = summarize({name: Ratio(*sums) for name, sums in self._sums.items()})
        figures.pop("finite")
        figures |= {
            "seconds_per_step": seconds / self._steps,
            "loader_wait_share": waited / seconds,
        }
        self._reset()
        return figures

    def pause(self) -> None:
        """Leaves out the time until `resume`."""
        self._paused = time.perf_counter()

    def resume(self) -> None:
        """Ends a `pause`."""
        self._start += time.perf_counter() - self._paused


def train(
    state: TrainState,
    train_step: TrainStep,
    queue: BatchQueue,
    key: Array,
    *,
    num_steps: int,
    intervals: Intervals,
    hooks: LoopHooks,
) -> TrainState:
    """Trains from the state's step up to `num_steps`, or until a hook ends it.

    The last step is evaluated and saved whatever the intervals say, and so is the step at which
    the run is told to stop (saved, not evaluated).

    Args:
        state: where to start; donated.
        train_step: what `parallel.compile_train_step` gives.
        queue: batches from the state's step on.
        key: the run's root key.
        num_steps: steps of the whole run.
        intervals: when to do what.
        hooks: what to do then.

    Raises:
        NonFiniteStepError: a step was not finite. Nothing of it, and nothing later, was saved.
    """
    step, window = int(state.step), _Window(queue)
    while step < num_steps:
        state, metrics = train_step(state, queue.take(), key)
        step += 1
        last, stopped = step == num_steps, hooks.should_stop(step)
        if not last and not stopped:
            queue.refill()
        window.add(step, metrics)
        hooks.advance(step)

        if last or step % intervals.log == 0:
            hooks.report(step, "train", window.summarize())
        evaluates = last or (step % intervals.evaluate == 0 and not stopped)
        saves = last or stopped or step % intervals.checkpoint == 0
        if evaluates or saves:
            window.read()
            window.pause()
            evaluation = hooks.evaluate(state) if evaluates else None
            if evaluation:
                hooks.report(step, "validation", evaluation)
            stopped = stopped or (evaluates and hooks.should_stop_early())
            if saves or stopped:
                hooks.save(step, state, metrics["finite"].sum, evaluation)
            window.resume()
        if stopped:
            break
    return state
