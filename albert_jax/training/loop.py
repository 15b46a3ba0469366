"""The training loop: a step per batch, with logging, evaluation and checkpoints at intervals.

It opens no data files and does not depend on the task: batches come from a queue, and hooks do
everything else.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from albert_jax.devices.prefetch import BatchQueue
from albert_jax.training.losses import Metrics, Ratio, summarize
from albert_jax.training.parallel import TrainStep
from albert_jax.training.train_step import TrainState


class NonFiniteStepError(ArithmeticError):
    """The loss or the gradients of too many steps in a row were not finite; none was applied.

    Attributes:
        step: the last of them.
        in_a_row: their number.
    """

    def __init__(self, step: int, in_a_row: int) -> None:
        several = f", as have the {in_a_row - 1} before it" if in_a_row > 1 else ""
        super().__init__(f"step {step} has a loss or gradients that are not finite{several}")
        self.step, self.in_a_row = step, in_a_row


class Intervals(NamedTuple):
    """Numbers of steps between two log entries, evaluations and checkpoints."""

    log: int
    evaluate: int
    checkpoint: int


@runtime_checkable
class LoopHooks(Protocol):
    """The run that a loop belongs to. Steps are numbered by the steps taken, so the first is 1."""

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return the held-out metrics of a state."""

    def should_stop_early(self) -> bool:
        """Return True if the run should be saved and end here; called after an evaluation."""

    def save(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Save a checkpoint. `metrics` are those of `evaluate`, or None if it was not called."""

    def report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Log the metrics of a split.

        ``train`` is the steps since the last entry (`steps` is their number), ``validation`` is
        held-out text, and ``skipped`` is one step that was not applied.
        """

    def advance(self, step: int) -> None:
        """Count a step. Called after each one, before its result is known."""

    def should_stop(self, step: int) -> bool:
        """Return True if the run should be saved and stop after this step (SIGTERM)."""


def _is_done(metrics: Metrics) -> bool:
    """Return True if a step's metrics are computed, without waiting for them."""
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics) if hasattr(leaf, "is_ready"))


class _MetricsWindow:
    """Metrics since the last log entry.

    The metrics of a step are fetched after the next step has been dispatched, so that the devices
    never wait for the host.

    Args:
        queue: tells how long it waited.
        report: logs metrics, see `LoopHooks`.
        skip_nonfinite: number of steps in a row that may be non-finite.
        nonfinite: number of non-finite steps in a row just before the first one to be added.
    """

    def __init__(
        self,
        queue: BatchQueue,
        report: Callable[[int, str, dict[str, float]], None],
        *,
        skip_nonfinite: int,
        nonfinite: int,
    ) -> None:
        self._queue, self._report = queue, report
        self._skip_nonfinite, self._nonfinite = skip_nonfinite, nonfinite
        self._pending: deque[tuple[int, Metrics]] = deque()
        self._reset()

    def _reset(self) -> None:
        self._sums: dict[str, np.ndarray] = {}
        self._steps = self._skipped = 0
        self._start = time.perf_counter()
        self._waited = self._queue.waited_seconds
        self._blocked = self._own = self._stalled = 0.0

    def settle(self) -> None:
        """Attribute the time since the last call to the devices or to this process.

        Called before the next step is dispatched or the last one is waited for. If the last step is
        done, the devices have waited for this process, at most for as long as it worked since the
        last call.
        """
        own = time.perf_counter() - self._start - self._blocked
        idle = not self._pending or _is_done(self._pending[-1][1])
        self._queue.settle(idle=idle)
        if idle:
            self._stalled += own - self._own
        self._own = own

    def add(self, step: int, metrics: Metrics, *, keep: int = 1) -> None:
        """Add the metrics of a step, and fetch those of all but the last `keep` steps."""
        self._pending.append((step, metrics))
        self.fetch(keep=keep)

    def fetch(self, *, keep: int = 0) -> None:
        """Fetch and sum pending metrics, except those of skipped steps.

        Raises:
            NonFiniteStepError: too many steps in a row were not finite.
        """
        while len(self._pending) > keep:
            step, metrics = self._pending.popleft()
            start = time.perf_counter()
            metrics = jax.device_get(metrics)
            self._blocked += time.perf_counter() - start
            self._steps += 1
            if self._is_skipped(step, metrics):
                continue
            for name, ratio in metrics.items():
                self._sums[name] = self._sums.get(name, 0) + np.asarray(ratio, np.float64)

    def _is_skipped(self, step: int, metrics: Metrics) -> bool:
        """Remove the flags of a step from its metrics, and log it if it was not applied."""
        finite = bool(metrics.pop("finite").sum)
        spike = "spike" in metrics and bool(metrics.pop("spike").sum)
        self._nonfinite = 0 if finite else self._nonfinite + 1
        if self._nonfinite > self._skip_nonfinite:
            raise NonFiniteStepError(step, self._nonfinite)
        if finite and not spike:
            return False
        self._skipped += 1
        shown = {"batch": step - 1, "loss": summarize(metrics)["loss"]}
        shown["grad_norm"] = float(metrics["grad_norm"].sum)
        if not finite:
            shown["nonfinite_in_a_row"] = self._nonfinite
        self._report(step, "skipped", shown)
        return True

    def report(self, step: int) -> None:
        """Log the metrics of the steps since the last entry up to this one, and the speed."""
        self.settle()
        self.fetch()
        if not self._steps:
            return
        seconds = time.perf_counter() - self._start
        waited = self._queue.waited_seconds - self._waited
        metrics = summarize({name: Ratio(*sums) for name, sums in self._sums.items()})
        metrics["steps"] = self._steps
        if self._skipped:
            metrics["skipped_steps"] = self._skipped
        metrics |= {
            "seconds_per_step": seconds / self._steps,
            "loader_wait_share": waited / seconds,
            "host_seconds_per_step": (seconds - self._blocked) / self._steps,
            "host_stall_share": self._stalled / seconds,
        }
        self._report(step, "train", metrics)
        self._reset()  # the time of logging does not count

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time of a block from the speed."""
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
    skip_nonfinite: int = 0,
) -> TrainState:
    """Train from the state's step up to `num_steps`, or until a hook ends the run.

    The last step is always evaluated and saved; a step at which the run is asked to stop is saved.
    Metrics are logged before a checkpoint is saved, so that an interrupted run logs each step once.

    Args:
        state: the initial or restored state; donated.
        train_step: a step compiled by `parallel.compile_train_step`.
        queue: batches from the state's step on.
        key: the run's root key.
        num_steps: number of steps of the whole run.
        intervals: when to log, evaluate and save.
        hooks: how to log, evaluate and save.
        skip_nonfinite: number of non-finite steps in a row that are skipped; more end the run.

    Returns:
        The state after the last step taken.

    Raises:
        NonFiniteStepError: too many steps in a row were not finite. Neither the last of them nor a
            later step was saved.
    """
    step, history = int(state.step), state.history
    nonfinite = 0 if history is None else int(history.nonfinite_in_a_row)
    window = _MetricsWindow(queue, hooks.report, skip_nonfinite=skip_nonfinite, nonfinite=nonfinite)
    while step < num_steps:
        window.settle()
        state, metrics = train_step(state, queue.take(), key)
        step += 1
        last, stops = step == num_steps, hooks.should_stop(step)
        if not last and not stops:
            queue.refill()
        window.add(step, metrics)
        hooks.advance(step)

        evaluates = last or (step % intervals.evaluate == 0 and not stops)
        saves = last or stops or step % intervals.checkpoint == 0
        if saves or step % intervals.log == 0:
            window.report(step)
        evaluation = None
        if evaluates:
            window.fetch()
            with window.paused():
                evaluation = hooks.evaluate(state)
                if evaluation:
                    hooks.report(step, "validation", evaluation)
            if not stops and hooks.should_stop_early():
                window.report(step)
                saves = stops = True
        if saves:
            with window.paused():
                hooks.save(step, state, evaluation)
        if stops:
            break
    return state
