"""The parts of a training run: interfaces that pre-training and fine-tuning implement."""

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Int64, PyTree

from albert_jax.batch import PretrainingBatch
from albert_jax.training.config import OptimizerConfig
from experiments.metrics.curves import Panel
from experiments.metrics.run_log import StepWork
from experiments.pages.samples import Sample
from experiments.run.config import TrainingRunConfig
from experiments.run.resumption import DataIdentity


class TrainingConfig(Protocol):
    """The settings that pre-training and fine-tuning have in common."""

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

        Closing the generator stops its work in the background.
        """

    def work_of_step(self, step: int) -> StepWork:
        """Return rows and operations of a step, counted from 0."""


class DeviceTeacher(NamedTuple):
    """A teacher that predicts on the devices of the run.

    Attributes:
        params: its parameters, on the devices.
        compile: returns ``(params, batch) -> TeacherPredictions`` for a number of micro-batches.
    """

    params: PyTree
    compile: Callable[[int], jax.stages.Wrapped]


class Teacher(Protocol):
    """A distillation teacher, whose predictions become part of every batch.

    Attributes:
        identity: a fingerprint of its content.
        on_devices: the part of it that runs on the devices; None if it was recorded.
        sequence_slots: slots of its attention on packed rows, see `Execution`.
    """

    @property
    def identity(self) -> DataIdentity: ...

    @property
    def on_devices(self) -> DeviceTeacher | None: ...

    @property
    def sequence_slots(self) -> int | None: ...

    def describe(self) -> str:
        """Describe the teacher in one line."""

    def flops_per_row(self, *, length: int, predictions: int) -> int:
        """Return the operations that predictions for a row take in each step."""

    def add_predictions(
        self, batch: PretrainingBatch, *, step: int, rows: Int64[np.ndarray, " rows"]
    ) -> PretrainingBatch:
        """Return a batch with the predictions that were recorded for it.

        Args:
            batch: rows of the batch of a step.
            step: the step, counted from 0.
            rows: their numbers in the global batch.
        """


class Evaluator(Protocol):
    """Held-out evaluation of a run.

    Attributes:
        best_metric: the metric whose highest value marks the best checkpoint.
        panels: the metrics that are plotted.
        decides: True if evaluations decide how the run ends. A preempted run then waits for an
            evaluation that is due, because the resumed run must have seen them all.
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
