"""Reports of fine-tuning: `report.json`, `report.md`, `report.html` and a bar chart."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from albert_jax.training.checkpoint import resolve_step, restore_params
from experiments.cli.dataclass_forms import to_dict
from experiments.finetuning.evaluation import TaskEvaluator
from experiments.finetuning.report_format import best_name, format_run, format_summary
from experiments.finetuning.single_runs import RunReport, summarize_rates
from experiments.finetuning.summary_page import write_summary_page
from experiments.metrics.curves import save_figure
from experiments.metrics.metrics_file import read_metrics
from experiments.pages.run_page import write_run_page
from experiments.run.workdir import CHECKPOINTS, REPORT_FILE, write_text
from experiments.tasks.config import FinetuneConfig
from experiments.tasks.task import FinetuningTask, Scores
from experiments.tasks.task_settings import GENERATION_TASKS, TaskName

MARKDOWN_FILE = "report.md"
SCORES_PLOT_FILE = "scores.png"


def write_run_report(
    config: FinetuneConfig,
    task: FinetuningTask,
    evaluator: TaskEvaluator,
    path: epath.Path,
    *,
    write: bool,
) -> RunReport:
    """Predict and score every split with the best checkpoint; write predictions and report.

    Args:
        config: the run.
        task: its task.
        evaluator: the task's evaluator.
        path: the workdir of the finished run.
        write: True on the process that writes the files.
    """
    directory = path / CHECKPOINTS
    step = resolve_step(directory, None)
    params = restore_params(directory, step)
    scores, files = {}, []
    for split, outputs in evaluator.final_outputs(params):
        if split in task.labeled:
            scores[split] = task.score(split, outputs)
        if write:
            files += task.write(split, outputs, Path(path))
    first, metric = next(iter(scores.values())), task.metrics[0]
    value, baseline = first.metrics[metric], first.baseline.get(metric)
    failed = None
    if baseline is not None and not value > baseline:  # NaN is not better either
        failed = f"no better than a constant answer ({metric} {baseline:.4f})"
    rate = config.optimizer.learning_rate
    report = RunReport(rate, config.seed, value, baseline, failed, step)
    if write:
        content = _run_content(config, task, scores, report, path, [file.name for file in files])
        _write_files(path, content, format_run(config, task, scores, content))
        write_run_page(path, read_metrics(path), evaluator.panels)
        bars = dict(zip(first.classes, first.class_scores, strict=True)) or _scores_of(first, task)
        what = "F1 of each class" if first.classes else "metrics"
        _plot(bars, path, title=f"{config.task}: {what}", highest=highest_score(config))
    return report


def write_summary_report(
    config: FinetuneConfig,
    task: FinetuningTask,
    reports: Mapping[str, RunReport],
    path: epath.Path,
) -> None:
    """Write the report on several runs, with the median and spread of each learning rate.

    Args:
        config: the settings common to the runs.
        task: their task.
        reports: the report of each run, by the name of its directory.
        path: the workdir.
    """
    content = {
        "task": str(config.task),
        "metric": task.metrics[0],
        **summarize_rates(config, [*reports.values()]),
        "runs": {name: dataclasses.asdict(report) for name, report in reports.items()},
        "config": to_dict(config),
    }
    _write_files(path, content, format_summary(content))
    write_summary_page(path, content, task.panels)
    values = {name: report.value for name, report in reports.items() if report.value is not None}
    title = f"{config.task}: {task.metrics[0]} of each run"
    _plot(values, path, title=title, highest=highest_score(config))


def best_run(path: epath.PathLike) -> tuple[epath.Path, RunReport] | None:
    """Return the best of several runs below a workdir, according to the workdir's `report.json`.

    Returns:
        Its directory and its result; None if there are not several runs, or none has a score.
    """
    file = epath.Path(path) / REPORT_FILE
    content = json.loads(file.read_text()) if file.exists() else {}
    best = best_name(content) if "runs" in content else None
    if best is None:
        return None
    return epath.Path(path) / best, RunReport(**content["runs"][best])


def _run_content(
    config: FinetuneConfig,
    task: FinetuningTask,
    scores: Mapping[str, Scores],
    report: RunReport,
    path: epath.Path,
    files: list[str],
) -> dict[str, Any]:
    logged = [entry for entry in read_metrics(path) if entry["split"] == "train"]
    steps = [0, *(entry["step"] for entry in logged)]
    seconds = sum(
        entry.get("steps", step - before) * entry["seconds_per_step"]  # old logs lack `steps`
        for before, step, entry in zip(steps, steps[1:], logged, strict=False)
    )
    return {
        "task": str(config.task),
        "metric": task.metrics[0],
        **dataclasses.asdict(report),
        "splits": {split: _scores_content(found) for split, found in scores.items()},
        "training_examples": min(
            len(task.train.lengths), config.data.max_train_examples or len(task.train.lengths)
        ),
        "steps": steps[-1],
        "training_seconds": round(seconds, 1),
        "notes": list(task.notes),
        "files": files,
        "config": to_dict(config),
    }


def _scores_content(scores: Scores) -> dict[str, Any]:
    return {
        "figures": dict(scores.metrics),
        "baseline": dict(scores.baseline),
        "classes": list(scores.classes),
        "confusion": None if scores.confusion is None else scores.confusion.tolist(),
        "class_scores": list(scores.class_scores),
        "samples": [dict(zip(scores.samples[0], row, strict=True)) for row in scores.samples[1]],
        "notes": list(scores.notes),
    }


def _write_files(path: epath.Path, content: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Write a report as JSON and as Markdown, and print the Markdown."""
    write_text(path / REPORT_FILE, json.dumps(content, indent=2) + "\n")
    text = "\n".join(lines).rstrip("\n") + "\n"
    write_text(path / MARKDOWN_FILE, text)
    print(text)


def highest_score(config: FinetuneConfig) -> float:
    """Return the highest possible score; SQuAD and generation tasks are scored in percent."""
    return 100.0 if config.task in (TaskName.SQUAD, *GENERATION_TASKS) else 1.0


def _scores_of(scores: Scores, task: FinetuningTask) -> dict[str, float]:
    """Return the metrics that are scores, such as `HasAns_f1`, not counts or thresholds."""
    names = tuple(task.metrics)
    return {name: value for name, value in scores.metrics.items() if name.endswith(names)}


def _plot(bars: Mapping[str, float], path: epath.Path, *, title: str, highest: float) -> None:
    """Plot horizontal bars, the first at the top, on a scale up to the highest possible score."""
    if not bars:  # every run failed
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.4 * len(bars)), layout="constrained")
    axes = figure.subplots()
    digits = "%.1f" if highest > 1 else "%.3f"
    names = [name.replace("$", r"\$") for name in bars]  # not a formula
    axes.bar_label(axes.barh(names, list(bars.values())), fmt=digits, padding=3)
    axes.invert_yaxis()
    axes.set_xlim(min(0, *bars.values()), 1.1 * highest)
    axes.set_xticks([tick * highest / 5 for tick in range(6)])
    axes.set_title(title)
    save_figure(figure, path / SCORES_PLOT_FILE)
