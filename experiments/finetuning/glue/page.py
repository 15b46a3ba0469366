"""The page on GLUE: table, picture, the curves of each task's runs, and their settings."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath

from data_pipeline.finetuning.glue_tasks import GLUE_TASKS
from experiments.finetuning.glue.results import GlueResult
from experiments.finetuning.report import SCORES_PLOT_FILE
from experiments.finetuning.report_format import Table
from experiments.metrics.metrics_file import read_metrics
from experiments.pages.charts import Chart, format_charts
from experiments.pages.comparison import ComparedRun, compare_runs
from experiments.pages.document import (
    PAGE_FILE,
    Section,
    escape,
    format_picture,
    format_table,
    write_page,
)
from experiments.pages.run_page import settings_rows


def write_glue_page(
    directory: Path,
    title: str,
    command: str,
    table: Table,
    notes: Sequence[str],
    results: Sequence[GlueResult],
) -> None:
    """Write ``report.html``.

    Args:
        directory: the directory of all runs, where the picture is already.
        title: the page's title.
        command: the command line of `experiments.glue`.
        table: headings and rows of the report.
        notes: paragraphs below the table.
        results: the results of the runs that are done.
    """
    below = "".join(f"<p>{escape(note)}</p>\n" for note in notes)
    picture = (directory / SCORES_PLOT_FILE).read_bytes()
    common, different = tabulate_settings(results)
    write_page(
        epath.Path(directory) / PAGE_FILE,
        title,
        [
            Section("Command", f"<pre>{escape(command)}</pre>", True),
            Section("Results", format_table(*table) + below),
            Section("Scores", format_picture(picture, "a dot for each seed")),
            Section("Curves", format_charts(_charts(results))),
            Section("Settings of all runs", format_table(*common), True),
            Section("Settings that differ", format_table(*different), True),
        ],
    )


def tabulate_settings(results: Sequence[GlueResult]) -> tuple[Table, Table]:
    """Return the settings that all runs share, and those that differ, with a column for each run.

    Example: for two runs on SST-2 and RTE, the first table has the row ``model.hidden_act, gelu``,
    and the second one has the row ``task, sst-2, rte``.
    """
    settings = [dict(settings_rows(one.config)) for one in results]
    names = dict.fromkeys(name for one in settings for name in one)
    rows = [[name, *(one.get(name) for one in settings)] for name in names]
    common = [row[:2] for row in rows if len(set(row[1:])) == 1]
    different = [row for row in rows if len(set(row[1:])) > 1]
    columns = [f"{GLUE_TASKS[one.run.task].name}, {one.run.start}" for one in results]
    return (("setting", "value"), common), (("setting", *columns), different)


def _charts(results: Sequence[GlueResult]) -> Iterator[Chart]:
    """Yield the loss and the deciding metric of each task, with a color for each start."""
    starts = list(dict.fromkeys(one.run.start for one in results))
    for task in dict.fromkeys(one.run.task for one in results):
        found = [one for one in results if one.run.task == task]
        runs = [
            ComparedRun(
                f"{one.run.start}, {seed}" if len(one.scores) > 1 else one.run.start,
                read_metrics(one.run.workdir / seed),
                starts.index(one.run.start),
                one.run.start,
            )
            for one in found
            for seed in one.scores
        ]
        name = GLUE_TASKS[task].name
        metric = found[0].metric
        panels = (("loss", f"{name}: loss"), (metric, f"{name}: {metric}"))
        yield from compare_runs(runs, panels)
