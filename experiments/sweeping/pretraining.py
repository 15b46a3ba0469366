"""Points that pre-train, and are then probed and fine-tuned: how they are planned and read."""

import functools
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from albert_jax.input_files import read_json_object, require_fields
from albert_jax.model import AlbertForPreTraining
from albert_jax.settings import did_you_mean
from albert_jax.training.checkpoint.integrity import MANIFEST
from data_pipeline.corpus.reader import read_metadata
from data_pipeline.errors import InputError
from experiments.cli.config_flag import GivenConfig
from experiments.cli.named_files import CONFIGS
from experiments.evaluation.probing import PROBE_FILE
from experiments.launching.job import Command, module_command
from experiments.metrics.metrics_file import read_metrics
from experiments.run.compiled_steps import model_of
from experiments.run.config import ExperimentConfig
from experiments.run.curriculum import mean_flops_per_row, phases_of
from experiments.run.workdir import (
    CHECKPOINTS,
    REPORT_FILE,
    check_resumable,
    read_config,
    with_corpus_vocabulary,
)
from experiments.sweeping.point_kind import ModelSize, PlannedPoint, PointKind, PointResult
from experiments.sweeping.points import Point, override_flags
from experiments.sweeping.pretraining_report import PRETRAINING_REPORT
from experiments.sweeping.sweep import Sweep
from experiments.tasks.task_settings import TaskName

_SQUAD = {"squad_v1": "v1.1", "squad_v2": "v2.0"}  # endings of the published files' names
_SPLITS = ("train", "dev")
_FRACTIONS = ("_accuracy", "_recall", "_precision", "_fraction")  # in percent
_TASK_CONFIGS = CONFIGS / "finetune"


def task_workdir(point: Point, task: str) -> Path:
    """Return the workdir of a point's fine-tuning, beside the point's own."""
    return point.workdir.with_name(f"{point.workdir.name}-{task}")


def _check_sweep(sweep: Sweep, tasks: Iterable[str]) -> None:
    del sweep
    for task in tasks:
        if not (_TASK_CONFIGS / f"{task}.py").is_file():
            known = sorted(path.stem for path in _TASK_CONFIGS.glob("[a-z]*.py"))
            raise InputError(
                f"--task_dir={task}=...: there is no task {task!r}; there are "
                f"{', '.join(known)}{did_you_mean(task, known)}"
            )


def _resolve(given: GivenConfig[ExperimentConfig], workdir: Path) -> GivenConfig[ExperimentConfig]:
    return with_corpus_vocabulary(given, workdir)


def _check_workdir(given: GivenConfig[ExperimentConfig], workdir: Path) -> None:
    found = read_config(workdir, ExperimentConfig)
    check_resumable(found, given.config, workdir=str(workdir))


def _size(config: ExperimentConfig, workdir: Path) -> ModelSize:
    del workdir
    flops = mean_flops_per_row(config, phases_of(config))
    return ModelSize(*_count_parameters(model_of(config)), flops)


@functools.cache
def _count_parameters(model: AlbertForPreTraining) -> tuple[int, int]:
    """Count the parameters of the pre-training model, and of its encoder with the pooler."""
    shapes = jax.eval_shape(model.initialize, jax.random.key(0))
    total, backbone = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (shapes, shapes["albert"])
    )
    return total, backbone


def _describe_work(planned: PlannedPoint) -> str:
    return f"{(planned.flops_per_row or 0) / 1e9:,.2f} GFLOP a row, {planned.steps:,} steps"


def _commands(
    point: Point,
    config: ExperimentConfig,
    sweep: Sweep,
    task_dirs: Mapping[str, str],
    task_overrides: Mapping[str, str],
) -> list[Command]:
    last = f"{CHECKPOINTS}/{config.optimizer.num_train_steps}/{MANIFEST}"
    commands = [module_command("pretrain", point.flags, point.workdir, last)]
    if sweep.probes:
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
    return commands


def _data_overrides(task: str, data_dir: str) -> dict[str, str]:
    """Return the overrides that name a task's files in its data directory."""
    if version := _SQUAD.get(task):
        return {f"data.{split}_file": f"{data_dir}/{split}-{version}.json" for split in _SPLITS}
    return {"data.dir": data_dir}


def _check_inputs(configs: Iterable[ExperimentConfig]) -> None:
    data = [config.data for config in configs]
    corpora = {one.corpus_dir for one in data} | {one.decay_corpus_dir for one in data} - {""}
    for corpus in corpora:
        read_metadata(corpus)


def _read(planned: PlannedPoint) -> PointResult:
    workdir, steps = planned.point.workdir, planned.steps
    entries = read_metrics(workdir)
    evaluations = [entry for entry in entries if entry["split"] == "validation"]
    if not evaluations:
        return PointResult(planned, 0, steps, False, {}, entries)
    last = evaluations[-1]
    metrics = {
        name: 100 * value if name.endswith(_FRACTIONS) else value
        for name, value in last.items()
        if name.endswith((*_FRACTIONS, "_loss", "_gap"))
    }
    rates = [entry["rows_per_second"] for entry in entries if "rows_per_second" in entry]
    if rates:
        metrics["rows_per_second"] = statistics.median(rates)
    metrics |= _read_probe(workdir / PROBE_FILE) | _read_tasks(planned)
    return PointResult(planned, last["step"], steps, last["step"] == steps, metrics, entries)


def _read_probe(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    content = read_json_object(path, error=InputError)
    require_fields(content, {"accuracies": dict}, str(path), error=InputError)
    accuracies = content["accuracies"]
    kinds = dict.fromkeys(accuracies, float)
    require_fields(accuracies, kinds, f"{path}: accuracies", error=InputError)
    return {name: 100 * accuracy for name, accuracy in accuracies.items()}


def _read_tasks(planned: PlannedPoint) -> dict[str, float]:
    scores = {}
    for task in planned.tasks:
        path = task_workdir(planned.point, task) / REPORT_FILE
        if path.exists():
            score = _read_score(path)
            if score is not None:  # None: every run failed
                scores[task] = score
    return scores


def _read_score(path: Path) -> float | None:
    """Return a report's value in percent: its own, or the median over the best rate's runs."""
    report = read_json_object(path, error=InputError)
    require_fields(report, {"task": str}, str(path), error=InputError)
    holder: Any = report
    name, place = "value", str(path)
    if "runs" in report:
        require_fields(report, {"learning_rates": list}, place, error=InputError)
        holder, name, place = next(iter(report["learning_rates"]), None), "median", f"{path}: rates"
        require_fields(holder, {}, place, error=InputError)
    if holder.get(name, 0) is None:
        return None
    require_fields(holder, {name: float}, place, error=InputError)
    # SQuAD's official metrics are percentages, those of other tasks fractions.
    return holder[name] if report["task"] == TaskName.SQUAD else 100 * holder[name]


PRETRAINING = PointKind(
    config=ExperimentConfig,
    unusable_flags={},
    check_sweep=_check_sweep,
    resolve=_resolve,
    check_workdir=_check_workdir,
    size=_size,
    describe_work=_describe_work,
    commands=_commands,
    check_inputs=_check_inputs,
    read=_read,
    report=PRETRAINING_REPORT,
)
