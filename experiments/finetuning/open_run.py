"""An opened fine-tuning: starting point, task, batches and evaluation."""

import dataclasses
import functools
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jax.sharding import Mesh

from albert_jax.config import AlbertConfig
from albert_jax.devices.flops import training_flops_per_row
from albert_jax.devices.sharding import rows_of_process
from albert_jax.encoder import Execution
from albert_jax.tasks.batches import TaskBatch
from data_pipeline.errors import InputError
from data_pipeline.finetuning.dataset import FinetuningDataset
from data_pipeline.finetuning.encoded_examples import fingerprint
from experiments.cli.given_settings import scale_steps
from experiments.finetuning.evaluation import TaskEvaluator
from experiments.finetuning.starting_point import StartingPoint, open_starting_point
from experiments.goodput.profiling import check_profile
from experiments.metrics.run_log import StepWork
from experiments.run.execution import open_mesh, resolve_execution
from experiments.run.resumption import DataIdentity
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.registry import open_task
from experiments.tasks.task import FinetuningTask


class FinetuningBatches:
    """The training batches of a task, as a `TrainingData`.

    Args:
        task: the task.
        model: sizes of the encoder.
        config: batch size, seed and number of lengths.
        mesh: the devices.
    """

    def __init__(
        self, task: FinetuningTask, model: AlbertConfig, config: FinetuneConfig, mesh: Mesh
    ) -> None:
        self._task = task
        self._rows = rows_of_process(config.global_batch_size, mesh)
        self._dataset = FinetuningDataset(
            task.train,
            seed=config.seed,
            global_batch_size=config.global_batch_size,
            num_lengths=config.data.num_lengths,
            num_steps=config.optimizer.num_train_steps,
            max_examples=config.data.max_train_examples,
        )
        lengths = self._dataset.batch_lengths
        of_row = task.flops_per_row or functools.partial(_encoder_flops, model)
        flops = [of_row(length) for length in lengths]
        rows = config.global_batch_size * (task.train.choices or 1)
        self.num_shapes = len(set(lengths))
        self.mean_flops = rows * float(np.mean(flops))
        self._work = StepWork(config.global_batch_size, self.mean_flops)

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch."""
        return self._dataset.steps_per_epoch

    def batches(self, start_step: int) -> Generator[TaskBatch, None, None]:
        """Yield this process's rows of each batch, starting at a step."""
        yield from map(self._task.to_batch, self._dataset.batches(start_step, self._rows))

    def work_of_step(self, step: int) -> StepWork:
        """Return the number of rows of a step and its mean operations."""
        del step  # lengths vary from batch to batch
        return self._work


def _encoder_flops(model: AlbertConfig, length: int) -> float:
    return training_flops_per_row(model, length=length, predictions=0)


class Finetuning(NamedTuple):
    """An opened configuration, whose parts fit together."""

    config: FinetuneConfig
    task: FinetuningTask
    evaluator: TaskEvaluator
    mesh: Mesh
    start: StartingPoint
    execution: Execution
    lines: tuple[str, ...]  # about the settings, and the way the model is computed

    @property
    def batches(self) -> FinetuningBatches:
        """The training batches."""
        return FinetuningBatches(self.task, self.start.model, self.config, self.mesh)

    @property
    def data(self) -> DataIdentity:
        """The examples that the run is trained and scored on."""
        files = self.config.data
        own = files.train_file is not None
        splits = [self.task.train, *self.task.labeled.values(), *self.task.unlabeled.values()]
        return DataIdentity(
            "dataset",
            "--config.data.train_file" if own else "--config.data.dir",
            (files.train_file if own else files.dir) or "",
            fingerprint(splits),
        )


def open_finetuning(
    config: FinetuneConfig,
    path: epath.PathLike,
    lines: Sequence[str] = (),
    *,
    rows_follow: bool = False,
) -> Finetuning:
    """Open a fine-tuning: read and encode everything, but write nothing.

    Args:
        config: the run.
        path: its workdir.
        lines: lines to print about the configuration.
        rows_follow: if `data.max_seq_length` is more than the model can read, True lowers it to
            what the model can read, and False raises InputError.

    Raises:
        InputError: a file is missing or malformed, or something does not fit together.
    """
    mesh = open_mesh(config.run, config.global_batch_size)
    start = open_starting_point(config, path)
    rows, longest = config.data.max_seq_length, start.model.longest_row
    if longest is not None and rows > longest:
        if not rows_follow:
            raise InputError(
                f"--config.data.max_seq_length ({rows}) must be at most the model's "
                f"max_position_embeddings ({longest})"
            )
        config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, max_seq_length=longest)
        )
        lines = (*lines, f"rows of {rows:,} become rows of {longest:,}: the model reads no longer")
    # Fused layers make a step 1.06 times as fast, but are first compared with plain layers, which
    # takes 3 to 35 s. Most fine-tunings take minutes on a GPU, too few to regain that time, so
    # None means plain layers here.
    run = dataclasses.replace(config.run, fused_layers=bool(config.run.fused_layers))
    execution, line = resolve_execution(run, start.model, mesh, lengths=[], packed=False)
    compute: dict[str, Any] = {"dtype": config.run.dtype, "execution": execution}
    if start.decoder is not None:
        compute["decoder"] = start.decoder
    task = open_task(config, start.model, start.tokenizer, **compute)
    if config.data.num_epochs is not None:
        batches = FinetuningBatches(task, start.model, config, mesh)
        config = _with_steps_of_epochs(config, config.data.num_epochs, batches.steps_per_epoch)
    check_profile(config.run.profile_steps, config.optimizer.num_train_steps)
    evaluator = TaskEvaluator(task, config, mesh)
    return Finetuning(config, task, evaluator, mesh, start, execution, (*lines, line))


def _with_steps_of_epochs(
    config: FinetuneConfig, num_epochs: float, steps_per_epoch: int
) -> FinetuneConfig:
    """Convert a number of epochs to steps; warm-up keeps its fraction of the steps."""
    optimizer = config.optimizer
    steps = max(1, round(num_epochs * steps_per_epoch))
    warmup = scale_steps(optimizer.num_warmup_steps, optimizer.num_train_steps, steps)
    counted = dataclasses.replace(optimizer, num_train_steps=steps, num_warmup_steps=warmup)
    return dataclasses.replace(config, optimizer=counted)
