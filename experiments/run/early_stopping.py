"""Whether a run still gets better."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class EarlyStopping:
    """The evaluations of a run, and whether the last ones brought anything.

    Args:
        metric: the figure that counts; higher is better.
        patience: how many evaluations without a better one are too many; None: no number is.
        past: `run_log.read_metrics` of what was done before the run was taken up again, so that it
            ends at the same step whether it was interrupted or not.

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

    def add(self, figures: Mapping[str, Any]) -> None:
        """Takes the figures of one more evaluation."""
        if self._metric in figures:
            self._values.append(figures[self._metric])

    def stalled(self) -> bool:
        """Whether as many evaluations as `patience` followed the best one."""
        return self._patience is not None and self._since_best() >= self._patience

    def describe(self) -> str:
        """Why a run has stalled, in words."""
        best = max(self._values)
        return f"{self._since_best()} evaluations without a better {self._metric} than {best:.4g}"

    def _since_best(self) -> int:
        return len(self._values) - 1 - int(np.argmax(self._values)) if self._values else 0
