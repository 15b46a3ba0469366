"""Reasons to stop a run before its last step: early stopping, and preemption by SIGTERM.

A preempted run saves its current step on all processes and ends.
"""

import math
import signal
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import numpy as np

from experiments.hosts import this_member


class EarlyStopping:
    """The evaluations of a run, and the test whether they have stopped improving.

    Args:
        metric: the metric that counts; higher is better.
        patience: evaluations without an improvement after which a run ends; None: it never does.
        past: the entries of `read_metrics` from before the run was resumed, so that it ends at
            the same step whether it was interrupted or not.

    Example: with patience 2, the evaluations 0.7, 0.9, 0.9, 0.8 have stalled, and 0.7, 0.9, 0.9 or
    0.7, 0.9, 0.8, 0.91 have not.
    """

    def __init__(
        self, metric: str, patience: int | None, past: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self._metric, self._patience = metric, patience
        self._values: list[float] = []
        for entry in past:
            if entry["split"] == "validation":
                self.add(entry)

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Add the metrics of one evaluation."""
        if (value := metrics.get(self._metric)) is not None:
            # NaN is never the best and never an improvement, as for checkpoints.
            self._values.append(-math.inf if math.isnan(value) else value)

    def stalled(self) -> bool:
        """Return True if at least `patience` evaluations followed the best one."""
        return self._patience is not None and self._since_best() >= self._patience

    def format(self) -> str:
        """Describe the reason for stopping."""
        best = max(self._values)
        return f"{self._since_best()} evaluations without a better {self._metric} than {best:.4g}"

    def _since_best(self) -> int:
        return len(self._values) - 1 - int(np.argmax(self._values)) if self._values else 0


class Preemption:
    """A context manager that handles SIGTERM.

    Any one of several processes may get the signal; all of them then stop after the same step.
    """

    def __init__(self) -> None:
        self._signaled = False

    def reached(self) -> bool:
        """Return True if the run should stop after this step, on all processes alike.

        The answer remains True at all later steps.
        """
        if member := this_member():
            return member.reached_stop()
        return self._signaled

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signaled = True

    def __enter__(self) -> "Preemption":
        if this_member() is None:
            self._previous = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        if this_member() is None:
            signal.signal(signal.SIGTERM, self._previous)
