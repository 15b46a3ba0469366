"""The plan of a sweep: each point's experiment, checked, its size, and its commands."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from albert_jax.config import AlbertConfig
from albert_jax.model import AlbertForPreTraining
from albert_jax.settings import did_you_mean
from albert_jax.training.checkpoint.integrity import MANIFEST
from data_pipeline.errors import InputError
from experiments.evaluation.probing import PROBE_FILE
from experiments.launching.job import Command, Job, module_command
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import mean_flops_per_row, phases_of
from experiments.run.workdir import (
    CHECKPOINTS,
    CONFIG_FILE,
    REPORT_FILE,
    check_resumable,
    read_config,
)
from experiments.sweeping.points import Point, override_flags
from experiments.sweeping.sweep import Sweep

_SQUAD = {"squad_v1": "v1.1", "squad_v2": "v2.0"}  # the published files' names end so
_SPLITS = ("train", "dev")
TASK_CONFIGS = Path(__file__).parents[1] / "configs" / "finetune"


class PlannedPoint(NamedTuple):
    """A point whose experiment has been checked."""

    point: Point
    config: ExperimentConfig
    parameters: int  # of the pre-training model
    backbone: int  # of encoder and pooler, which the paper counts
    flops_per_row: int  # of matrix products, forward and backward, on average over the run
    tasks: tuple[str, ...]  # fine-tuning tasks
    commands: tuple[Command, ...]  # in order

    @property
    def job(self) -> Job:
        """The commands as a job."""
        point = self.point
        log = f"{point.row.name}-seed_{point.seed}"
        return Job(point.number, point.name, log, self.commands, after=point.after)

    @property
    def steps(self) -> int:
        """The steps of pre-training."""
        return self.config.optimizer.num_train_steps


def plan_points(
    points: Sequence[Point],
    sweep: Sweep,
    *,
    task_dirs: Mapping[str, str],
    task_overrides: Mapping[str, str],
) -> list[PlannedPoint]:
    """Check every point's experiment, and list its commands.

    Args:
        points: points of the sweep.
        sweep: the sweep.
        task_dirs: data directories of the fine-tuning tasks.
        task_overrides: overrides of all fine-tuning.

    Raises:
        InputError: an experiment is not valid, a workdir holds another one, or there is no such
            task.
    """
    for task in task_dirs:
        if not (TASK_CONFIGS / f"{task}.py").is_file():
            known = sorted(path.stem for path in TASK_CONFIGS.glob("[a-z]*.py"))
            raise InputError(
                f"--task_dir={task}=...: there is no task {task!r}; there are "
                f"{', '.join(known)}{did_you_mean(task, known)}"
            )
    planned = []
    for point in points:
        config = point.resolve()
        if (point.workdir / CONFIG_FILE).exists():
            found = read_config(point.workdir, ExperimentConfig)
            check_resumable(found, config, workdir=str(point.workdir))
        parameters, backbone = count_parameters(config.model)
        flops = mean_flops_per_row(config, phases_of(config))
        commands = _commands(point, config, sweep.probes, task_dirs, task_overrides)
        tasks = tuple(task_dirs)
        planned.append(PlannedPoint(point, config, parameters, backbone, flops, tasks, commands))
    return planned


@functools.cache
def count_parameters(config: AlbertConfig) -> tuple[int, int]:
    """Count the parameters of the pre-training model, and of its encoder with the pooler."""
    shapes = jax.eval_shape(AlbertForPreTraining(config).initialize, jax.random.key(0))
    total, backbone = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (shapes, shapes["albert"])
    )
    return total, backbone


def task_workdir(point: Point, task: str) -> Path:
    """Return the workdir of a point's fine-tuning, beside the point's own."""
    return point.workdir.with_name(f"{point.workdir.name}-{task}")


def _commands(
    point: Point,
    config: ExperimentConfig,
    probes: bool,
    task_dirs: Mapping[str, str],
    task_overrides: Mapping[str, str],
) -> tuple[Command, ...]:
    last = f"{CHECKPOINTS}/{config.optimizer.num_train_steps}/{MANIFEST}"
    commands = [module_command("pretrain", point.flags, point.workdir, last)]
    if probes:
        commands.append(module_command("probe", [], point.workdir, PROBE_FILE))
    for task, data_dir in task_dirs.items():
        flags = [
            f"--config=finetune/{task}",
            *override_flags(_data_overrides(task, data_dir)),
            f"--config.run.init_from={point.workdir}",
            *override_flags(task_overrides),
        ]
        workdir = task_workdir(point, task)
        commands.append(module_command("finetune", flags, workdir, REPORT_FILE))
    return tuple(commands)


def _data_overrides(task: str, data_dir: str) -> dict[str, str]:
    """Return the overrides that name a task's files in its data directory."""
    if version := _SQUAD.get(task):
        return {f"data.{split}_file": f"{data_dir}/{split}-{version}.json" for split in _SPLITS}
    return {"data.dir": data_dir}
