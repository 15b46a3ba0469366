"""What a task is to the command that trains it: examples as ids, a model, scores, files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from albert_jax.config import HeadConfig
from albert_jax.pretrained import PretrainedModel
from albert_jax.tasks.batches import TaskBatch
from albert_jax.training.objective import Objective
from data_pipeline.finetuning.encoded_examples import EncodedExamples
from experiments.run.curves import Panel

# What a model says of each example: arrays by name.
Outputs = Sequence[Mapping[str, np.ndarray]]


class Scores(NamedTuple):
    """How well a split was told.

    Attributes:
        metrics: by name; of those that the task lists, higher is better.
        baseline: what the best single answer to everything gets, of the metrics that have this.
        classes: names of the classes, if there are any.
        confusion: how often the class of the row was taken for that of the column.
        class_scores: F1 of each class.
    """

    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    classes: Sequence[str] = ()
    confusion: Int[np.ndarray, "classes classes"] | None = None
    class_scores: Sequence[float] = ()


class FinetuningTask(NamedTuple):
    """A task, opened: its data fit the model.

    Attributes:
        train: what is trained on.
        labeled: splits that are scored, by name; the first decides which checkpoint is best, and
            those called test are scored in the end alone.
        unlabeled: splits that are only told.
        model: encoder and head.
        head: what the head tells apart.
        objective: loss and predictions.
        to_batch: a loader's dict as the task's batch, checked.
        metrics: names of the figures, the deciding one first.
        score: of a labeled split, by its name.
        write: writes the files of any split into a directory, by the split's name; returns them.
        notes: what the reader of the report should know of the data.
    """

    train: EncodedExamples
    labeled: Mapping[str, EncodedExamples]
    unlabeled: Mapping[str, EncodedExamples]
    model: PretrainedModel
    head: HeadConfig
    objective: Objective
    to_batch: Callable[[Mapping[str, np.ndarray]], TaskBatch]
    metrics: Sequence[str]
    score: Callable[[str, Outputs], Scores]
    write: Callable[[str, Outputs, Path], list[Path]]
    notes: Sequence[str] = ()

    @property
    def best_metric(self) -> str:
        """The figure that decides, as evaluations call it."""
        return self.metric_name(next(iter(self.labeled)), self.metrics[0])

    @property
    def watched(self) -> list[str]:
        """The splits that are scored again and again."""
        return [split for split in self.labeled if not split.startswith("test")]

    def metric_name(self, split: str, metric: str) -> str:
        """What an evaluation calls a split's metric. Example: `accuracy`, `dev_mismatched/f1`."""
        return metric if split == next(iter(self.labeled)) else f"{split}/{metric}"

    @property
    def panels(self) -> list[Panel]:
        """The curves of a run: the loss, and up to three figures."""
        figures = [self.metric_name(split, name) for split in self.watched for name in self.metrics]
        return [("loss", "loss"), *((name, name) for name in figures[:3])]
