"""The fine-tunings of a GLUE folder: its tasks, and a job for each task and starting point."""

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from albert_jax.settings import did_you_mean
from data_pipeline.errors import InputError
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from experiments.launching.job import Job, module_command
from experiments.run.workdir import REPORT_FILE

COMPILE_CACHE = "compile_cache"


class Start(StrEnum):
    """Initial weights: those of the model, or random ones of the same sizes as a control."""

    PRETRAINED = "pretrained"
    RANDOM = "random"


class GlueRun(NamedTuple):
    """The fine-tuning of one task from one starting point, with every seed and rate."""

    task: str  # a name in `GLUE_TASKS`
    start: Start
    workdir: Path
    job: Job


def find_tasks(data_dir: Path, chosen: Sequence[str] | None = None) -> dict[str, Path]:
    """Find the tasks whose official files for training and evaluation are in a folder.

    Args:
        data_dir: has a directory for each task, such as `SST-2` or `sst-2`.
        chosen: names of tasks that must be there; None takes all that are there, and prints those
            that lack a file on stderr.

    Returns:
        The directory of each task by its name in `GLUE_TASKS`, in the order of that table.

    Raises:
        InputError: the folder does not exist, a chosen task is unknown or missing, or no task is
            there.
    """
    if not data_dir.is_dir():
        raise InputError(f"--data_dir={data_dir} is no directory")
    directories = {path.name.lower(): path for path in sorted(data_dir.iterdir()) if path.is_dir()}
    found, incomplete = {}, {}
    for name, task in GLUE_TASKS.items():
        splits = [name for name in ("train", *task.dev_splits) if name in task.splits]
        needed = [task.splits[name].name for name in splits]
        directory = directories.get(name)
        if directory and needed:
            missing = [file for file in needed if not (directory / file).is_file()]
            if missing:
                incomplete[name] = f"{directory} has no {' and no '.join(missing)}"
            else:
                found[name] = directory
    chosen = None if chosen is None else [name.lower() for name in chosen]
    for name in chosen or ():
        if name not in GLUE_TASKS:
            raise InputError(
                f"--tasks: there is no task {name!r}{did_you_mean(name, list(GLUE_TASKS))}"
            )
        if name not in found:
            nothing = f"{data_dir} has no {GLUE_TASKS[name].name} with its train and dev files"
            raise InputError(f"--tasks: {incomplete.get(name, nothing)}")
    if not found:
        names = ", ".join(task.name for task in GLUE_TASKS.values())
        raise InputError(
            f"--data_dir={data_dir} has no directory of a task with its official train and dev "
            f"files: {names}"
        )
    if chosen is None and incomplete:
        print(f"left out: {'; '.join(incomplete.values())}", file=sys.stderr)
    return {name: path for name, path in found.items() if chosen is None or name in chosen}


def plan_runs(
    tasks: Mapping[str, Path],
    workdir: Path,
    *,
    init_from: str,
    starts: Sequence[Start],
    seeds: int,
    overrides: Mapping[str, str],
) -> list[GlueRun]:
    """Return the runs of all tasks and starts, each with its command.

    Args:
        tasks: the directory of each task.
        workdir: the directory of all runs.
        init_from: the model.
        starts: the starting points.
        seeds: runs of each task and start.
        overrides: settings of every fine-tuning, by the names of the flags without ``config.``. A
            prefix of a task's name and a colon limits one to that task: ``sst-2:data.num_epochs``.

    Raises:
        InputError: an override is for an unknown task.

    Example: RTE from a model gives ``python -m experiments.finetune --config=finetune/rte
    --config.data.dir=glue/RTE --config.run.init_from=runs/base ... --workdir=glue/rte-pretrained``.
    """
    runs: list[GlueRun] = []
    for name in overrides:
        task, colon, _ = name.partition(":")
        if colon and task not in GLUE_TASKS:
            raise InputError(
                f"--override={name}: there is no task {task!r}{did_you_mean(task, [*GLUE_TASKS])}"
            )
    common = {name: value for name, value in overrides.items() if ":" not in name}
    for task, directory in tasks.items():
        of_task = f"{task}:"
        own = {
            name.removeprefix(of_task): value
            for name, value in overrides.items()
            if name.startswith(of_task)
        }
        for start in starts:
            name = f"{task}-{start}"
            settings = {
                "data.dir": directory,
                "run.init_from": init_from,
                "run.seeds": seeds,
                "run.compile_cache_dir": workdir / COMPILE_CACHE,
                **({"run.init_weights": "false"} if start is Start.RANDOM else {}),
                **common,
                **own,
            }
            flags = [f"--config.{setting}={value}" for setting, value in settings.items()]
            config = f"--config=finetune/{task.replace('-', '')}"
            command = module_command("finetune", [config, *flags], workdir / name, REPORT_FILE)
            job = Job(len(runs), f"{GLUE_TASKS[task].name}, {start}", name, (command,))
            runs.append(GlueRun(task, start, workdir / name, job))
    return runs
