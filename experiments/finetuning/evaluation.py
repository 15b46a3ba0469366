"""Evaluation of a fine-tuned model on whole splits."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.devices.fingerprint import fingerprint
from albert_jax.devices.sharding import place_batch, rows_of_process, state_shardings
from albert_jax.training.parallel import compile_predict_step
from data_pipeline.errors import InputError
from data_pipeline.finetuning.dataset import evaluation_batches
from data_pipeline.finetuning.encoded_examples import (
    ExampleRows,
    affordable_lengths,
    choose_lengths,
)
from experiments.pages.samples import Sample
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Outputs


class _Evaluation(NamedTuple):
    """The best evaluation of a run so far."""

    value: float  # of the deciding metric
    fingerprint: int  # of the parameters; a step number is the same in runs with other seeds
    outputs: Mapping[str, Outputs]  # by split, for those evaluated in full


class TaskEvaluator:
    """Predictions and metrics of a task's splits.

    Args:
        task: the task.
        config: batch size, number of padded lengths, and how often it is evaluated.
        mesh: the devices.

    Raises:
        InputError: a batch does not divide over the devices.
    """

    def __init__(self, task: FinetuningTask, config: FinetuneConfig, mesh: Mesh) -> None:
        self.best_metric, self.panels, self.decides = task.best_metric, task.panels, True
        self._task, self._mesh = task, mesh
        self._batch_size = config.run.evaluation_batch_size
        self._lengths = _choose_lengths(task, config)
        try:
            self._rows = rows_of_process(self._batch_size, mesh)
        except ValueError as error:
            raise InputError(f"--config.run.evaluation_batch_size: {error}") from error
        shapes = jax.eval_shape(task.model.initialize, jax.random.key(0))
        self._shardings = state_shardings(shapes, mesh)
        self._predict = compile_predict_step(task.objective.predict, shapes, mesh)
        final = task.final_predict
        self._final = final and compile_predict_step(final, shapes, mesh)
        self._fingerprint = jax.jit(fingerprint)
        self._best: _Evaluation | None = None

    def evaluate(self, params: PyTree) -> dict[str, float]:
        """Compute the metrics of the watched splits, named by `FinetuningTask.metric_name`.

        Splits in `FinetuningTask.sampled` are scored on their sample only.
        """
        task, outputs, metrics = self._task, dict[str, Outputs](), dict[str, float]()
        for split in task.watched:
            examples = task.sampled.get(split, task.labeled[split])
            outputs[split] = self._outputs(self._predict, params, examples)
            found = task.score(split, outputs[split]).metrics
            metrics |= {task.metric_name(split, name): value for name, value in found.items()}
        value = metrics[self.best_metric]
        if self._final is None and (self._best is None or value >= self._best.value):
            whole = {split: outputs[split] for split in outputs if split not in task.sampled}
            self._best = _Evaluation(value, int(self._fingerprint(params)), whole)
        return metrics

    def final_outputs(self, params: PyTree) -> Iterator[tuple[str, Outputs]]:
        """Yield each split and the outputs for its examples, in order, at the end of a run.

        Outputs that the run's best evaluation computed with the same parameters are not computed
        again. That evaluation is forgotten after the last split, since the next run has its own.
        """
        kept: Mapping[str, Outputs] = {}
        if self._best is not None and self._best.fingerprint == int(self._fingerprint(params)):
            kept = self._best.outputs
        for split, examples in {**self._task.labeled, **self._task.unlabeled}.items():
            if split in kept:
                yield split, kept[split]
            else:
                yield split, self._outputs(self._final or self._predict, params, examples)
        self._best = None

    def samples(self, params: PyTree) -> list[Sample]:
        """Return no samples: files in the workdir hold the predictions for all examples."""
        del params
        return []

    def _outputs(
        self, predict: Callable[..., PyTree], params: PyTree, examples: ExampleRows
    ) -> Outputs:
        """Return the outputs for each example, in order."""
        params = jax.device_put(params, self._shardings)
        outputs: list[dict[str, np.ndarray]] = [{} for _ in examples.lengths]
        batches = evaluation_batches(examples, batch_size=self._batch_size, lengths=self._lengths)
        for numbers, fields in batches:
            here = {name: array[self._rows] for name, array in fields.items()}
            batch = place_batch(self._task.to_batch(here), self._mesh)
            arrays = jax.device_get(predict(params, batch))
            for place, number in enumerate(numbers.tolist()):
                outputs[number] = {name: array[place] for name, array in arrays.items()}
        return outputs


def _choose_lengths(task: FinetuningTask, config: FinetuneConfig) -> list[int]:
    """Choose padded lengths for all splits together; with few batches, choose fewer lengths."""
    splits = {**task.labeled, **task.unlabeled}
    evaluations = 1 + config.optimizer.num_train_steps // config.run.evaluate_every
    batches = sum(
        -(-len(split.lengths) // config.run.evaluation_batch_size)
        * (evaluations if name in task.watched else 1)
        for name, split in splits.items()
    )
    lengths = np.concatenate([split.lengths for split in splits.values()])
    return choose_lengths(lengths, affordable_lengths(config.data.num_lengths, batches))
