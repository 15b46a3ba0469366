"""What a fine-tuning came to: `report.json` for programs, `report.md` and a picture for people."""

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from etils import epath
from matplotlib.figure import Figure

from albert_jax.training.checkpoint import BEST, restore_params
from experiments.cli.dataclass_forms import to_dict
from experiments.run.metrics_log import read_metrics
from experiments.run.workdir import CHECKPOINTS, REPORT_FILE, write_text
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.evaluation import TaskEvaluator
from experiments.tasks.task import FinetuningTask, Scores

matplotlib.use("Agg")

MARKDOWN_FILE = "report.md"
SCORES_PLOT_FILE = "scores.png"


@dataclasses.dataclass(frozen=True)
class RunReport:
    """One run in figures.

    Attributes:
        learning_rate, seed: what tells the runs of one workdir apart.
        value: the deciding figure of the best checkpoint; None if there is none.
        baseline: what one answer to everything gets.
        failed: why the run is a failed one; None if it is not.
        step: of the best checkpoint.
    """

    learning_rate: float
    seed: int
    value: float | None
    baseline: float | None
    failed: str | None
    step: int | None


def failed_run(config: FinetuneConfig, reason: str) -> RunReport:
    """A run that ended without a result."""
    return RunReport(config.optimizer.learning_rate, config.seed, None, None, reason, None)


def write_run_report(
    config: FinetuneConfig,
    task: FinetuningTask,
    evaluator: TaskEvaluator,
    path: epath.Path,
    *,
    write: bool,
) -> RunReport:
    """Tells and scores every split with the best checkpoint, and writes files and report.

    Args:
        config: the run.
        task: the task.
        evaluator: of the task.
        path: the workdir, whose run has ended.
        write: whether this process is the one that writes.
    """
    directory = path / CHECKPOINTS
    step = int((directory / BEST).read_text())
    params = restore_params(directory, step)
    scores, files = {}, []
    for split, examples in {**task.labeled, **task.unlabeled}.items():
        outputs = evaluator.predict(params, examples)
        if split in task.labeled:
            scores[split] = task.score(split, outputs)
        if write:
            files += task.write(split, outputs, Path(path))
    first, metric = next(iter(scores.values())), task.metrics[0]
    value, baseline = first.metrics[metric], first.baseline.get(metric)
    failed = None
    if baseline is not None and value <= baseline:
        failed = f"no better than one answer to everything ({metric} {baseline:.4f})"
    rate = config.optimizer.learning_rate
    report = RunReport(rate, config.seed, value, baseline, failed, step)
    if write:
        content = _content(config, task, scores, report, path, [file.name for file in files])
        write_text(path / REPORT_FILE, json.dumps(content, indent=2) + "\n")
        text = "\n".join(_describe_run(config, task, scores, content)) + "\n"
        write_text(path / MARKDOWN_FILE, text)
        bars = dict(zip(first.classes, first.class_scores, strict=True)) or first.metrics
        _plot(bars, path / SCORES_PLOT_FILE, title="F1 of each class" if first.classes else "")
        print(text)
    return report


def _content(
    config: FinetuneConfig,
    task: FinetuningTask,
    scores: Mapping[str, Scores],
    report: RunReport,
    path: epath.Path,
    files: list[str],
) -> dict[str, Any]:
    told = [entry for entry in read_metrics(path) if entry["split"] == "train"]
    steps = [0, *(entry["step"] for entry in told)]
    seconds = sum(
        (step - before) * entry["seconds_per_step"]
        for before, step, entry in zip(steps, steps[1:], told, strict=False)
    )
    return {
        "task": str(config.task),
        "metric": task.metrics[0],
        **dataclasses.asdict(report),
        "splits": {split: _plain(found) for split, found in scores.items()},
        "training_examples": len(task.train.lengths),
        "steps": steps[-1],
        "training_seconds": round(seconds, 1),
        "notes": list(task.notes),
        "files": files,
        "config": to_dict(config),
    }


def _plain(scores: Scores) -> dict[str, Any]:
    confusion = None if scores.confusion is None else scores.confusion.tolist()
    return {
        "figures": dict(scores.metrics),
        "baseline": dict(scores.baseline),
        "classes": list(scores.classes),
        "confusion": confusion,
        "class_scores": list(scores.class_scores),
    }


def _describe_run(
    config: FinetuneConfig,
    task: FinetuningTask,
    scores: Mapping[str, Scores],
    content: Mapping[str, Any],
) -> Iterator[str]:
    value, metric = content["value"], content["metric"]
    yield f"# {config.task}: {metric} {value:.4f}"
    yield ""
    if content["failed"]:
        yield f"A FAILED run: {content['failed']}."
        yield ""
    yield "| split | metric | value | one answer to everything |"
    yield "|---|---|---|---|"
    for split, found in scores.items():
        for name, figure in found.metrics.items():
            baseline = f"{found.baseline[name]:.4f}" if name in found.baseline else ""
            yield f"| {split} | {name} | {figure:.4f} | {baseline} |"
    yield ""
    for split, found in scores.items():
        if found.classes and found.confusion is None:
            yield f"| F1 in {split} of | |"
            yield "|---|---|"
            for name, score in zip(found.classes, found.class_scores, strict=True):
                yield f"| {name} | {score:.4f} |"
            yield ""
        if found.confusion is not None:
            yield f"What each class (row) of {split} was taken for (column), and its F1:"
            yield ""
            yield f"| | {' | '.join(found.classes)} | F1 |"
            yield "|---" * (len(found.classes) + 2) + "|"
            rows = zip(found.classes, found.confusion, found.class_scores, strict=True)
            for name, row, score in rows:
                yield f"| {name} | {' | '.join(map(str, row))} | {score:.4f} |"
            yield ""
    start = "random parameters"
    if config.run.init_from is not None:
        start = f"{config.run.init_from}{'' if config.run.init_weights else ', its sizes alone'}"
    yield f"- start: {start}"
    yield (
        f"- {content['training_examples']:,} examples, {content['steps']} steps of "
        f"{config.global_batch_size} in {content['training_seconds']:.0f} s; the best checkpoint "
        f"is step {content['step']}"
    )
    yield f"- learning rate {config.optimizer.learning_rate:g}, seed {config.seed}"
    yield from (f"- {name}" for name in [*content["files"], *task.notes])


def write_summary_report(
    config: FinetuneConfig, task: FinetuningTask, reports: Mapping[str, RunReport], path: epath.Path
) -> None:
    """Writes what several runs have in common: median and spread of each learning rate.

    Args:
        config: that the runs were made of.
        task: the task.
        reports: of each run, by the name of its directory.
        path: the workdir.
    """
    by_rate: dict[float, list[RunReport]] = {}
    for report in reports.values():
        by_rate.setdefault(report.learning_rate, []).append(report)
    rates = [{"learning_rate": rate, **summarize_runs(runs)} for rate, runs in by_rate.items()]
    rates.sort(key=lambda entry: math.inf if entry["median"] is None else -entry["median"])
    content = {
        "task": str(config.task),
        "metric": task.metrics[0],
        "learning_rates": rates,
        "runs": {name: dataclasses.asdict(report) for name, report in reports.items()},
        "config": to_dict(config),
    }
    write_text(path / REPORT_FILE, json.dumps(content, indent=2) + "\n")
    text = "\n".join(_describe_runs(content, reports)) + "\n"
    write_text(path / MARKDOWN_FILE, text)
    values = {name: report.value for name, report in reports.items() if report.value is not None}
    _plot(values, path / SCORES_PLOT_FILE, title=f"{config.task}: {task.metrics[0]} of each run")
    print(text)


def summarize_runs(runs: Sequence[RunReport]) -> dict[str, Any]:
    """Median and spread over seeds; a run without a figure counts as failed alone.

    Example: the values 0.8, 0.7 and 0.9 give the median 0.8, the least 0.7, the greatest 0.9, the
    standard deviation 0.1 and the standard error of the mean 0.0577.
    """
    values = [run.value for run in runs if run.value is not None]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {
        "runs": len(runs),
        "failed": sum(run.failed is not None for run in runs),
        "median": statistics.median(values) if values else None,
        "mean": statistics.fmean(values) if values else None,
        "least": min(values, default=None),
        "greatest": max(values, default=None),
        "standard_deviation": deviation,
        "standard_error": None if deviation is None else deviation / math.sqrt(len(values)),
    }


def _describe_runs(content: Mapping[str, Any], reports: Mapping[str, RunReport]) -> Iterator[str]:
    best = content["learning_rates"][0]
    yield f"# {content['task']}: median {content['metric']} {_number(best['median'])}"
    yield ""
    yield "| learning rate | runs | failed | median | mean | least | greatest | standard error |"
    yield "|---|---|---|---|---|---|---|---|"
    for entry in content["learning_rates"]:
        figures = ("median", "mean", "least", "greatest", "standard_error")
        shown = " | ".join(_number(entry[name]) for name in figures)
        yield f"| {entry['learning_rate']:g} | {entry['runs']} | {entry['failed']} | {shown} |"
    yield ""
    yield f"| run | {content['metric']} | one answer to everything | best step | |"
    yield "|---|---|---|---|---|"
    for name, report in reports.items():
        remark = f"FAILED: {report.failed}" if report.failed else ""
        step = "" if report.step is None else report.step
        yield (
            f"| {name} | {_number(report.value)} | {_number(report.baseline)} | {step} | {remark} |"
        )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _plot(bars: Mapping[str, float], path: epath.Path, *, title: str) -> None:
    """Horizontal bars, the first on top."""
    figure = Figure(figsize=(8, 1 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(list(bars), list(bars.values()))
    axes.bar_label(drawn, fmt="%.3f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(min(0, *bars.values()), 1.1 * max(*bars.values(), 1))
    axes.set_title(title)
    with path.open("wb") as file:
        figure.savefig(file, format="png", dpi=110)
