r"""Fine-tunes an ALBERT on a task, or goes on with a run that was stopped.

    python -m experiments.finetune --config=experiments/configs/finetune/sst2.py \
        --config.data.dir=glue/SST-2 --config.run.init_from=runs/base --workdir=runs/base-sst2

With `--config.run.seeds` or `--config.run.learning_rates` there are several runs, each in a
directory of its own below the workdir, and a report on all of them.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from etils import epath
from jax.sharding import Mesh

from albert_jax.checkpoint import NonFiniteStateError
from albert_jax.flops import training_flops_per_row
from albert_jax.parallel import rows_of_process
from albert_jax.task_batches import TaskBatch
from data_pipeline.encoded_examples import fingerprint
from data_pipeline.finetuning import FinetuningDataset
from experiments.choice_task import open_choice_task
from experiments.command_line import ExitCode, define_config_flag, read_config_flag, run
from experiments.execution import open_mesh, prepare_devices, settle_execution
from experiments.finetune_config import FinetuneConfig, TaskName
from experiments.finetune_report import RunReport, failed_run, report_on_run, report_on_runs
from experiments.hosts import define_host_flags, joined_hosts
from experiments.span_task import open_span_task
from experiments.starting_point import (
    StartingPoint,
    open_starting_point,
    warm_start,
    workdir_files,
)
from experiments.tagging_task import open_tagging_task
from experiments.task import Task
from experiments.task_evaluation import Evaluator
from experiments.text_task import open_text_task
from experiments.training_run import Training, run_training
from experiments.workdir import DataIdentity, open_workdir


class Finetuning(NamedTuple):
    """What a configuration describes, opened and found to fit together."""

    config: FinetuneConfig
    start: StartingPoint
    task: Task
    dataset: FinetuningDataset
    evaluator: Evaluator
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


_TASKS = {
    TaskName.SQUAD: open_span_task,
    TaskName.RACE: open_choice_task,
    TaskName.TAGGING: open_tagging_task,
}


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
    execution, line = settle_execution(config.run, start.model, mesh, lengths=[], packed=False)
    compute = {"dtype": config.run.dtype, "execution": execution}
    open_task = _TASKS.get(config.task, open_text_task)
    task = open_task(config, start.model, start.tokenizer, **compute)
    dataset = _order_batches(config, task)
    if config.data.num_epochs is not None:
        config = _count_steps(config, dataset.steps_per_epoch)
    return Finetuning(config, start, task, dataset, Evaluator(task, config, mesh), mesh, line)


def _order_batches(config: FinetuneConfig, task: Task) -> FinetuningDataset:
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


def finetune(config: FinetuneConfig, path: epath.PathLike) -> ExitCode:
    """Trains, finds the best checkpoint by the task's metric, tells and scores with it, reports.

    Raises:
        InputError: something does not fit together; the workdir is as it was.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: a step of the only run was not finite.
    """
    prepare_devices(config.run)
    finetuning = open_finetuning(config, path)
    if config.run.seeds == 1 and not config.run.rates:
        return _finetune_once(finetuning, path)[0]
    return _finetune_several(finetuning, path)


def _finetune_once(
    finetuning: Finetuning, path: epath.PathLike
) -> tuple[ExitCode, RunReport | None]:
    """Runs to the end, and then there is a report, or to a stop."""
    config, task, is_writer = finetuning.config, finetuning.task, jax.process_index() == 0
    files = workdir_files(finetuning.start, task)
    workdir = open_workdir(path, config, finetuning.data, files, write=is_writer)
    code = run_training(finetuning.training, workdir)
    if code is not ExitCode.DONE:
        return code, None
    return code, report_on_run(config, task, finetuning.evaluator, workdir.path, write=is_writer)


def _finetune_several(finetuning: Finetuning, path: epath.PathLike) -> ExitCode:
    """One run after the other; those that are done are not done again."""
    config, is_writer = finetuning.config, jax.process_index() == 0
    workdir = open_workdir(path, config, finetuning.data, {}, write=is_writer)
    reports: dict[str, RunReport] = {}
    for name, single in _single_runs(config, workdir.path).items():
        try:
            code, report = _finetune_once(finetuning.with_config(single), workdir.path / name)
        except NonFiniteStateError as error:
            reports[name] = failed_run(single, str(error))
            continue
        if report is None:
            return code
        reports[name] = report
    if is_writer:
        report_on_runs(config, finetuning.task, reports, workdir.path)
    return ExitCode.DONE


def _single_runs(config: FinetuneConfig, path: epath.Path) -> dict[str, FinetuneConfig]:
    """The runs of each learning rate and seed, by the names of their directories.

    Example: two rates and two seeds are `rate_1e-05_seed_1`, `rate_1e-05_seed_2`,
    `rate_2e-05_seed_1` and `rate_2e-05_seed_2`; without rates, `seed_1` and `seed_2`.
    """
    cache = config.run.compile_cache_dir or str(path / "compile_cache")
    run = dataclasses.replace(config.run, seeds=1, learning_rates=None, compile_cache_dir=cache)
    singles = {}
    for rate in config.run.rates or (config.optimizer.learning_rate,):
        for seed in range(config.seed, config.seed + config.run.seeds):
            name = f"rate_{rate:g}_seed_{seed}" if config.run.rates else f"seed_{seed}"
            optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
            singles[name] = dataclasses.replace(config, run=run, optimizer=optimizer, seed=seed)
    return singles


def main() -> ExitCode:
    """Reads the flags and trains."""
    config = read_config_flag(_CONFIG, FinetuneConfig)
    with joined_hosts():
        return finetune(config, flags.FLAGS.workdir)


if __name__ == "__main__":
    _CONFIG = define_config_flag()
    flags.DEFINE_string(
        "workdir", None, "the run's directory, new or to be continued", required=True
    )
    define_host_flags()
    run(main, FinetuneConfig)
