"""The parts of a training run: interfaces that pre-training and fine-tuning implement."""

from collections.abc import Generator, Sequence
from typing import Any, Protocol

from jaxtyping import PyTree

from albert_jax.training.config import OptimizerConfig
from experiments.metrics.curves import Panel
from experiments.metrics.run_log import StepWork
from experiments.pages.samples import Sample
from experiments.run.config import TrainingRunConfig


class TrainingConfig(Protocol):
    """The part that the configurations of pre-training and fine-tuning have in common."""

    @property
    def optimizer(self) -> OptimizerConfig: ...

    @property
    def run(self) -> TrainingRunConfig: ...

    @property
    def global_batch_size(self) -> int: ...

    @property
    def seed(self) -> int: ...


class TrainingData(Protocol):
    """The batches of a run."""

    @property
    def num_shapes(self) -> int:
        """Number of shapes that batches may have; the step is compiled for each."""

    @property
    def mean_flops(self) -> float:
        """Floating-point operations of a batch's matrix products, forward and backward, on
        average over the run."""

    def batches(self, start_step: int) -> Generator[Any, None, None]:
        """Yield this process's rows of the batches of steps start_step, start_step + 1, ...

        Closed, it stops the work in the background.
        """

    def work_of_step(self, step: int) -> StepWork:
        """Return rows and operations of a step, counted from 0."""


class Evaluator(Protocol):
    """Held-out evaluation of a run.

    Attributes:
        best_metric: the metric whose highest value marks the best checkpoint.
        panels: the metrics that are plotted.
        decides: True if evaluations decide how the run ends. An interruption then waits for one
            that is due, since the resumed run must have seen them all.
    """

    @property
    def best_metric(self) -> str: ...

    @property
    def panels(self) -> Sequence[Panel]: ...

    @property
    def decides(self) -> bool: ...

    def evaluate(self, params: PyTree) -> dict[str, float]:
        """Return the metrics of parameters."""

    def samples(self, params: PyTree) -> list[Sample]:
        """Return texts that show what parameters can do, if any."""
