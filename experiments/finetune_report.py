"""What a fine-tuning came to: `report.json` for programs, `report.md` and a picture for people."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from etils import epath
from matplotlib.figure import Figure

from albert_jax.checkpoint import BEST, restore_params
from data_pipeline.durable_files import write_atomically
from experiments.dataclass_forms import to_dict
from experiments.finetune_config import FinetuneConfig
from experiments.run_log import read_metrics
from experiments.task import Scores, Task
from experiments.task_evaluation import Evaluator
from experiments.workdir import CHECKPOINTS, write_text

matplotlib.use("Agg")

REPORT = "report"  # .json, .md
PICTURE = "scores.png"


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


def report_on_run(
    config: FinetuneConfig, task: Task, evaluator: Evaluator, path: epath.Path, *, write: bool
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
    value, baseline = first.figures[metric], first.baseline.get(metric)
    failed = None
    if baseline is not None and value <= baseline:
        failed = f"no better than one answer to everything ({metric} {baseline:.4f})"
    rate = config.optimizer.learning_rate
    report = RunReport(rate, config.seed, value, baseline, failed, step)
    if write:
        content = _content(config, task, scores, report, path, [file.name for file in files])
        write_text(path / f"{REPORT}.json", json.dumps(content, indent=2) + "\n")
        text = "\n".join(_describe_run(task, scores, content)) + "\n"
        write_text(path / f"{REPORT}.md", text)
        _plot(first.classes, first.class_scores or list(first.figures.values()), path, "F1" if first.classes else "")
        print(text)
    return report


def _content(
    config: FinetuneConfig,
    task: Task,
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
        "figures": dict(scores.figures),
        "baseline": dict(scores.baseline),
        "classes": list(scores.classes),
        "confusion": confusion,
        "class_scores": list(scores.class_scores),
    }
