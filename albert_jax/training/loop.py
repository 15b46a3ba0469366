"""The training loop: a step per batch; at intervals logging, evaluation and checkpoints.

It opens no data file and knows no task: batches come from a queue, everything else is a hook's.
"""

import contextlib
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
    """The loss or the gradients of a step were not finite; the step was not applied."""

    def __init__(self, step: int) -> None:
        super().__init__(f"step {step} has a loss or gradients that are not finite")
        self.step = step


class Intervals(NamedTuple):
    """Numbers of steps between two log entries, evaluations and checkpoints."""

    log: int
    evaluate: int
    checkpoint: int


@runtime_checkable
class LoopHooks(Protocol):
    """The run that a loop belongs to. A step is numbered by the steps taken: the first one is 1."""

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return the held-out metrics of a state."""

    def should_stop_early(self) -> bool:
        """Return True, after an evaluation, if the run shall be saved and end here."""

    def save(
        self, step: int, state: TrainState, finite: Array, metrics: dict[str, float] | None
    ) -> None:
        """Save a checkpoint. `metrics` are those of `evaluate`, None if it was not called."""

    def report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Log the metrics of a split: ``train`` or ``validation``."""

    def advance(self, step: int) -> None:
        """Count a step. Called after each one, before its result is known."""

    def should_stop(self, step: int) -> bool:
        """Return True if the run shall be saved and left after this step (SIGTERM)."""


class BatchQueue:
    """Prefetching of batches to the devices.

    Args:
        batches: host batches.
        place: starts the transfer of a host batch to the devices.
        ahead: number of batches to place ahead of their use.

    Attributes:
        waited_seconds: time spent waiting for `batches`.
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
        """The next batch, which stays in the queue."""
        return self._placed[0]

    def take(self) -> Any:
        """Remove and return the next batch."""
        return self._placed.popleft()

    def refill(self) -> None:
        """Load one more batch; to be called while the devices are busy."""
        self._placed.append(self._load())


class _MetricsWindow:
    """Metrics since the last log entry.

    The metrics of a step are fetched after the next step was dispatched, so that the devices never
    wait for the host.
    """

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
        """Add the metrics of a step, and fetch those of all but the last `keep` steps."""
        self._pending.append((step, metrics))
        self.fetch(keep=keep)

    def fetch(self, *, keep: int = 0) -> None:
        """Fetch and sum pending metrics.

        Raises:
            NonFiniteStepError: a step was not finite.
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
        """Return the metrics since the last call, and the speed."""
        self.fetch()
        seconds = time.perf_counter() - self._start
        waited = self._queue.waited_seconds - self._waited
        metrics = summarize({name: Ratio(*sums) for name, sums in self._sums.items()})
        metrics.pop("finite")
        metrics |= {
            "seconds_per_step": seconds / self._steps,
            "loader_wait_share": waited / seconds,
        }
        self._reset()
        return metrics

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time that a block takes from the speed."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start


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
    """Train from the state's step up to `num_steps`, or until a hook ends the run.

    The last step is always evaluated and saved; a step at which the run is asked to stop is saved.

    Args:
        state: the initial or restored state; donated.
        train_step: a step compiled by `parallel.compile_train_step`.
        queue: batches from the state's step on.
        key: the run's root key.
        num_steps: number of steps of the whole run.
        intervals: when to log, evaluate and save.
        hooks: how to log, evaluate and save.

    Returns:
        The state after the last step taken.

    Raises:
        NonFiniteStepError: a step was not finite. Neither it nor a later one was saved.
    """
    step, window = int(state.step), _MetricsWindow(queue)
    while step < num_steps:
        state, metrics = train_step(state, queue.take(), key)
        step += 1
        last, stops = step == num_steps, hooks.should_stop(step)
        if not last and not stops:
            queue.refill()
        window.add(step, metrics)
        hooks.advance(step)

        if last or step % intervals.log == 0:
            hooks.report(step, "train", window.summarize())
        evaluates = last or (step % intervals.evaluate == 0 and not stops)
        saves = last or stops or step % intervals.checkpoint == 0
        if evaluates or saves:
            window.fetch()
            with window.paused():
                evaluation = hooks.evaluate(state) if evaluates else None
                if evaluation:
                    hooks.report(step, "validation", evaluation)
                stops = stops or (evaluates and hooks.should_stop_early())
                if saves or stops:
                    hooks.save(step, state, metrics["finite"].sum, evaluation)
        if stops:
            break
    return state
