"""Report on GLUE: one table, one picture, and the files for the benchmark's server."""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from albert_jax.config import AlbertConfig
from albert_jax.durable_files import write_atomically
from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from experiments.finetuning.glue.jobs import GlueRun, Start
from experiments.finetuning.glue.page import write_glue_page
from experiments.finetuning.glue.results import PAPER_SCORES, GlueResult, average, difference
from experiments.finetuning.report import MARKDOWN_FILE, SCORES_PLOT_FILE
from experiments.finetuning.report_format import Table, format_table
from experiments.run.workdir import REPORT_FILE

SUBMISSION_FILE = "submission.zip"

_TITLE = "GLUE, development sets"
_NUM_TASKS = sum(bool(task.dev_splits) for task in GLUE_TASKS.values())


def write_glue_report(
    directory: Path,
    results: Sequence[GlueResult],
    model: AlbertConfig,
    command: str,
    *,
    runs: Sequence[GlueRun] = (),
) -> str:
    """Write the report on GLUE.

    Its files are ``report.md``, ``report.html``, ``report.json``, ``scores.png`` and
    ``submission.zip``.

    Args:
        directory: the directory of all runs.
        results: the results of the runs that are done.
        model: the sizes of the model.
        command: the command line of `experiments.glue`.
        runs: all planned runs; the report names those without a result.

    Returns:
        The text of ``report.md``.
    """
    missing = write_submission(directory / SUBMISSION_FILE, results)
    table, notes = tabulate_glue(results, model), [*_notes(results, missing)]
    left = [run.job for run in runs if run not in [one.run for one in results]]
    if left:
        names = "; ".join(f"{job.name} (logs/{job.log_name}.log)" for job in left)
        notes.append(f"WITHOUT A RESULT: {names}.")
    paragraphs = [f"![scores]({SCORES_PLOT_FILE})", *notes]
    lines = [f"# {_TITLE}", "", f"    {command}", "", *format_table(*table)]
    text = "\n".join(lines) + "\n" + "\n\n".join(paragraphs) + "\n"
    write_atomically(directory / MARKDOWN_FILE, text)
    content = {
        "command": command,
        "results": [
            {
                "task": one.run.task,
                "start": str(one.run.start),
                "metric": one.metric,
                "learning_rate": one.learning_rate,
                "median": one.median,
                "scores": one.scores,
                "failed": one.failed,
                "baseline": one.baseline,
                "tried": one.tried,
                "median_of_others": one.median_of_others,
            }
            for one in results
        ],
        "averages": {str(start): average(results, start) for start in Start},
    }
    write_atomically(directory / REPORT_FILE, json.dumps(content, indent=2) + "\n")
    _plot(results, directory / SCORES_PLOT_FILE)
    write_glue_page(directory, _TITLE, command, table, notes, results)
    return text


def tabulate_glue(results: Sequence[GlueResult], model: AlbertConfig) -> Table:
    """Return the table: a row for each task, with the median, lowest and highest of its seeds."""
    size, paper = PAPER_SCORES.get((model.num_hidden_layers, model.hidden_size), ("", {}))
    tasks = list(dict.fromkeys(one.run.task for one in results))
    starts = [start for start in Start if any(one.run.start is start for one in results)]
    headings = ["task", "metric", *starts]
    headings += ["difference"] if len(starts) > 1 else []
    headings += ["constant answer"] + ([f"paper, {size}"] if paper else [])
    rows = []
    for task in tasks:
        found = {one.run.start: one for one in results if one.run.task == task}
        first = next(iter(found.values()))
        row = [GLUE_TASKS[task].name, first.metric]
        row += [_format_scores(found[start]) if start in found else "" for start in starts]
        if len(starts) > 1:
            change = difference(results, task)
            row.append("" if change is None else f"{change[0]:+.1f} (p = {change[1]:.2g})")
        row.append("" if first.baseline is None else f"{first.baseline:.1f}")
        rows.append(row + ([str(paper.get(task, ""))] if paper else []))
    if len(tasks) > 1:
        means = [average(results, start) for start in starts]
        row = [f"average of these {len(tasks)} of GLUE's {_NUM_TASKS} tasks", ""]
        row += ["" if mean is None else f"{mean:.1f}" for mean in means]
        rows.append(row + [""] * (len(headings) - len(row)))
    return headings, rows


def _notes(results: Sequence[GlueResult], missing: Sequence[str]) -> Iterator[str]:
    yield (
        "Percent: the median of the seeds, the lowest and the highest, and how many there are; of "
        "several learning rates the one with the best median. Seeds that do no better than a "
        "constant answer count, and are named as failed. The difference is tested by Mann and "
        "Whitney over the seeds, each task by itself: five of each have p = 0.0079 at the least, "
        "three 0.1. An average of some of the tasks, by one metric each on development sets, is "
        "not the benchmark's score."
    )
    if chosen := [one for one in results if one.tried]:
        yield (
            "The first seed chose the learning rate on the development set that is reported, which "
            f"favors it; the median of the other seeds has no such choice. "
            f"{'. '.join(map(_describe_search, chosen))}."
        )
    if missing:
        yield (
            f"{SUBMISSION_FILE} has the best seed's predictions; the benchmark's server also wants "
            f"{', '.join(missing)}."
        )


def _describe_search(result: GlueResult) -> str:
    """Return text such as `RTE, random: 5e-05 52.7, 0.0001 54.1; other seeds 53.4`."""
    values = (f"{r} {'no score' if v is None else f'{v:.1f}'}" for r, v in result.tried.items())
    others = "" if (median := result.median_of_others) is None else f"; other seeds {median:.1f}"
    return f"{result.run.job.name}: {', '.join(values)}{others}"


def write_submission(path: Path, results: Sequence[GlueResult]) -> list[str]:
    """Zip the predictions of each task's best pre-trained seed for the benchmark's server.

    Returns:
        The files that are missing from a complete submission.
    """
    wanted = [
        (name, file.submission)
        for name, task in GLUE_TASKS.items()
        for file in task.splits.values()
        if file.submission
    ]
    best = {one.run.task: one.best for one in results if one.run.start is Start.PRETRAINED}
    best |= {"ax": best["mnli"]} if "mnli" in best else {}
    missing = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for task, name in wanted:
            if task in best and (best[task] / name).exists():
                archive.write(best[task] / name, name)
            else:
                missing.append(name)
    return missing


def _format_scores(result: GlueResult) -> str:
    values = sorted(result.scores.values())
    failed = f", {result.failed} failed" if result.failed else ""
    if len(values) == 1:
        return f"{values[0]:.1f}{failed}"
    return f"{result.median:.1f} ({values[0]:.1f} to {values[-1]:.1f}; {len(values)}{failed})"


def _plot(results: Sequence[GlueResult], path: Path) -> None:
    """Plot a dot for each seed, a color for each start, a line for the constant answer."""
    tasks = list(dict.fromkeys(one.run.task for one in results))
    figure = Figure(figsize=(1.5 + 1.3 * len(tasks), 4.5), layout="constrained")
    axes = figure.subplots()
    for color, start in enumerate(Start):
        dots = [
            (tasks.index(one.run.task) + (color - 0.5) / 4, score)
            for one in results
            if one.run.start is start
            for score in one.scores.values()
        ]
        if dots:
            axes.plot(*zip(*dots, strict=True), "o", color=f"C{color}", alpha=0.6, label=str(start))
    for place, task in enumerate(tasks):
        baseline = next(one.baseline for one in results if one.run.task == task)
        if baseline is not None:
            label = "constant answer" if not place else None
            axes.plot([place - 0.3, place + 0.3], [baseline] * 2, "k--", linewidth=1, label=label)
    axes.set_xticks(range(len(tasks)), [GLUE_TASKS[task].name for task in tasks])
    axes.set_xlim(-0.6, len(tasks) - 0.4)
    axes.set_ylabel("development set, percent")
    axes.set_title("GLUE: a dot for each seed")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
