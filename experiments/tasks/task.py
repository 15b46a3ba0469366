"""The records of fine-tuning: a kind of task, a task with its data, and metrics of a split."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from albert_jax.config import HeadConfig
from albert_jax.pretrained import PretrainedModel
from albert_jax.tasks.batches import TaskBatch
from albert_jax.training.objective import Objective, Predict
from data_pipeline.errors import InputError
from data_pipeline.finetuning.encoded_examples import ExampleRows
from data_pipeline.tokenizers.albert import AlbertTokenizer
from experiments.metrics.curves import Panel
from experiments.tasks.raw_inputs import EncodedInput, PredictionOptions, RawInput
from experiments.tasks.task_settings import TaskDataConfig

# Outputs of a model for each row: arrays by name.
Outputs = Sequence[Mapping[str, np.ndarray]]
# A prediction in the form of a JSON object; its arrays are NumPy's.
Result = dict[str, Any]


class Scores(NamedTuple):
    """Metrics of a split.

    Attributes:
        metrics: values by name; for those that the task lists, higher is better.
        baseline: values of the best constant answer, for the metrics that have one.
        classes: names of the classes, if there are any.
        confusion: number of examples of each class (row) predicted as each class (column).
        class_scores: F1 of each class.
        samples: headings, and a row for each of a few texts that were generated.
        notes: how metrics were computed, for the report.
    """

    metrics: Mapping[str, float]
    baseline: Mapping[str, float]
    classes: Sequence[str] = ()
    confusion: Int[np.ndarray, "classes classes"] | None = None
    class_scores: Sequence[float] = ()
    samples: tuple[Sequence[str], Sequence[Sequence[str]]] = ((), ())
    notes: Sequence[str] = ()


class FinetuningTask(NamedTuple):
    """A task with its data: the result of `TaskKind.open`.

    Attributes:
        train: the training examples.
        labeled: splits with labels, by name. The metrics of the first decide which checkpoint is
            best; those whose names begin with `test` are scored only at the end.
        unlabeled: splits without labels, by name.
        model: encoder and head.
        head: labels and problem type of the head; None for a model without one.
        objective: loss, weights and outputs.
        to_batch: makes a checked batch from a loader's dict.
        metrics: names of metrics, the deciding one first.
        score: computes the metrics of a labeled split, given its name and the outputs.
        write: writes the predictions of any split into a directory, and returns the files.
        notes: remarks on the data, for the report.
        sampled: some examples of a split, which evaluations during training use instead of all.
        final_predict: makes the predictions at the end; None uses those of the objective.
        flops_per_row: returns the training operations of a row, given the length of its batch;
            None counts those of the encoder.
        files: further files of the workdir, by name.
        rate_factors: factors of the learning rate, by the prefix of a parameter's name.
    """

    train: ExampleRows
    labeled: Mapping[str, ExampleRows]
    unlabeled: Mapping[str, ExampleRows]
    model: PretrainedModel
    head: HeadConfig | None
    objective: Objective
    to_batch: Callable[[Mapping[str, np.ndarray]], TaskBatch]
    metrics: Sequence[str]
    score: Callable[[str, Outputs], Scores]
    write: Callable[[str, Outputs, Path], list[Path]]
    notes: Sequence[str] = ()
    sampled: Mapping[str, ExampleRows] = MappingProxyType({})
    final_predict: Predict | None = None
    flops_per_row: Callable[[int], float] | None = None
    files: Mapping[str, bytes] = MappingProxyType({})
    rate_factors: Mapping[str, float] = MappingProxyType({})

    @property
    def best_metric(self) -> str:
        """The name of the deciding metric in the log."""
        return self.metric_name(next(iter(self.labeled)), self.metrics[0])

    @property
    def watched(self) -> list[str]:
        """The splits that are scored during training."""
        return [split for split in self.labeled if not split.startswith("test")]

    def metric_name(self, split: str, metric: str) -> str:
        """Return a metric's name in the log. Example: `accuracy`, `dev_mismatched/f1`."""
        return metric if split == next(iter(self.labeled)) else f"{split}/{metric}"

    @property
    def panels(self) -> list[Panel]:
        """The curves of a run: the loss, and up to three metrics."""
        names = [self.metric_name(split, name) for split in self.watched for name in self.metrics]
        return [("loss", "loss"), *((name, name) for name in names[:3])]


class RawPrediction(NamedTuple):
    """Predictions on raw inputs: one value of `experiments.predict --task`.

    Attributes:
        read: returns an example for each input. Raises InputError if a field is missing or
            unusable.
        encode: encodes examples as rows, given the model, its tokenizer and the options. Raises
            InputError if the model is of another kind or an example does not fit.
        decode: returns the result of an example, given its rows' outputs, the model and the
            options.
        format: formats a result as lines of text.
    """

    read: Callable[[Sequence[RawInput]], Sequence[Any]]
    encode: Callable[[Sequence[Any], Any, AlbertTokenizer, PredictionOptions], list[EncodedInput]]
    decode: Callable[[EncodedInput, Outputs, Any, PredictionOptions], Result]
    format: Callable[[Result], str]


class TaskKind(NamedTuple):
    """A kind of fine-tuning task, in one record. `tasks/registry.py` maps task names to kinds.

    Attributes:
        models: the classes of its models. A checkpoint that names none of them is read as the first
            class.
        batch: the class of its batches.
        objective: makes the objective of a model: loss, weights and outputs.
        open: reads and encodes the examples of a run and makes the model; the arguments are those
            of `registry.open_task`.
        predictions: predictions on raw inputs, by the name for `experiments.predict --task`; empty
            if they are in `prediction/embeddings.py` or `prediction/generated.py`.
    """

    models: tuple[type[Any], ...]
    batch: Any  # a class, one of `TaskBatch`
    objective: Callable[[Any], Objective]
    open: Callable[..., FinetuningTask]
    predictions: Mapping[str, RawPrediction]


def required_files(data: TaskDataConfig, content: str) -> tuple[Path, Path]:
    """Return the paths of the training file and the dev file.

    Args:
        data: the settings that name them.
        content: what they hold, for the error message.

    Raises:
        InputError: one of them is not named.
    """
    for name in ("train_file", "dev_file"):
        if getattr(data, name) is None:
            raise InputError(f"--config.data.{name} is missing: {content}")
    return Path(data.train_file or ""), Path(data.dev_file or "")
