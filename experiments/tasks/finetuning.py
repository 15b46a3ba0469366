"""A fine-tuning, opened: starting point, task, batches and evaluation."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from etils import epath
from jax.sharding import Mesh

from albert_jax.tasks.batches import TaskBatch
from albert_jax.training.flops import training_flops_per_row
from albert_jax.training.parallel import rows_of_process
from data_pipeline.finetuning.dataset import FinetuningDataset
from data_pipeline.finetuning.encoded_examples import fingerprint
from experiments.run.execution import open_mesh, resolve_execution
from experiments.run.training import Training
from experiments.run.workdir import DataIdentity
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.evaluation import TaskEvaluator
from experiments.tasks.registry import open_task
from experiments.tasks.starting_point import StartingPoint, open_starting_point, warm_start
from experiments.tasks.task import FinetuningTask


class Finetuning(NamedTuple):
    """What a configuration describes, opened and found to fit together."""

    config: FinetuneConfig
    start: StartingPoint
    task: FinetuningTask
    dataset: FinetuningDataset
    evaluator: TaskEvaluator
    mesh: Mesh
    execution: str  # a line about how the model is computed

    @property
    def flops_per_step(self) -> float:
        """Operations of the products of a batch, forward and backward, on average."""
        rows = self.config.global_batch_size * (self.task.train.choices or 1)
        return rows * float(
            np.mean(
                [
                    training_flops_per_row(self.start.model, length=length, predictions=0)
                    for length in self.dataset.batch_lengths
                ]
            )
        )

    def batches(self, start_step: int) -> Iterator[TaskBatch]:
        """This process's rows of the batches from a step on."""
        rows = rows_of_process(self.config.global_batch_size, self.mesh)
        return map(self.task.to_batch, self.dataset.batches(start_step, rows))

    @property
    def data(self) -> DataIdentity:
        """Which examples the run is trained and scored on."""
        files = self.config.data
        own = files.train_file is not None
        splits = [self.task.train, *self.task.labeled.values(), *self.task.unlabeled.values()]
        return DataIdentity(
            "dataset",
            "--config.data.train_file" if own else "--config.data.dir",
            (files.train_file if own else files.dir) or "",
            fingerprint(splits),
        )

    @property
    def training(self) -> Training:
        """The same as `run_training` wants it."""
        config, task = self.config, self.task
        return Training(
            model=self.start.model,
            optimizer=config.optimizer,
            run=config.run,
            seed=config.seed,
            mesh=self.mesh,
            initialize=task.model.initialize,
            warm_start=warm_start(config, task),
            loss_fn=task.objective.loss_fn,
            weight_fn=task.objective.weight_fn,
            batches=self.batches,
            num_shapes=len(set(self.dataset.batch_lengths)),
            rows_per_step=config.global_batch_size,
            flops_per_step=self.flops_per_step,
            evaluate=self.evaluator.evaluate,
            best_metric=task.best_metric,
            panels=task.panels,
            notes=[self.execution],
            patience=config.run.patience,
            evaluates_before_stopping=True,
        )

    def with_config(self, config: FinetuneConfig) -> "Finetuning":
        """The same with another seed or optimizer."""
        return self._replace(config=config, dataset=_order_batches(config, self.task))


def open_finetuning(config: FinetuneConfig, path: epath.PathLike) -> Finetuning:
    """Reads and encodes everything, and writes nothing.

    Args:
        config: the run.
        path: its workdir.

    Raises:
        InputError: a file is missing or malformed, or something does not fit together.
    """
    mesh = open_mesh(config.run, config.global_batch_size)
    start = open_starting_point(config, path)
    execution, line = resolve_execution(config.run, start.model, mesh, lengths=[], packed=False)
    compute = {"dtype": config.run.dtype, "execution": execution}
    task = open_task(config, start.model, start.tokenizer, **compute)
    dataset = _order_batches(config, task)
    if config.data.num_epochs is not None:
        config = _count_steps(config, dataset.steps_per_epoch)
    return Finetuning(config, start, task, dataset, TaskEvaluator(task, config, mesh), mesh, line)


def _order_batches(config: FinetuneConfig, task: FinetuningTask) -> FinetuningDataset:
    return FinetuningDataset(
        task.train,
        seed=config.seed,
        global_batch_size=config.global_batch_size,
        num_lengths=config.data.num_lengths,
    )


def _count_steps(config: FinetuneConfig, steps_per_epoch: int) -> FinetuneConfig:
    """The steps of `data.num_epochs`; warm-up keeps its share of them."""
    optimizer = config.optimizer
    steps = max(1, round((config.data.num_epochs or 0) * steps_per_epoch))
    share = optimizer.num_warmup_steps / optimizer.num_train_steps
    counted = dataclasses.replace(
        optimizer, num_train_steps=steps, num_warmup_steps=round(share * steps)
    )
    return dataclasses.replace(config, optimizer=counted)
