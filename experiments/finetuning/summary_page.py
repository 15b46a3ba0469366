"""The page of a fine-tuning with several runs: medians, spreads, and the curves of each run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from experiments.finetuning.report_format import describe_best, tabulate_rates, tabulate_runs
from experiments.metrics.curves import Panel
from experiments.metrics.metrics_file import read_metrics
from experiments.pages.charts import format_charts
from experiments.pages.comparison import ComparedRun, compare_runs
from experiments.pages.document import PAGE_FILE, Section, escape, format_table, write_page
from experiments.pages.run_page import settings_rows


def write_summary_page(
    path: epath.Path, content: Mapping[str, Any], panels: Sequence[Panel]
) -> None:
    """Write ``report.html`` from the content of ``report.json`` and the logs of the runs.

    Args:
        path: the workdir of all runs.
        content: the content of its ``report.json``.
        panels: the task's metrics to plot.
    """
    best = f"<p>{escape(describe_best(content))}</p>"
    write_page(
        path / PAGE_FILE,
        f"{path.name}: {content['task']}, {len(content['runs'])} runs",
        [
            Section("Median and spread", format_table(*tabulate_rates(content)) + best),
            Section("Runs", format_table(*tabulate_runs(content))),
            Section("Curves", format_charts(compare_runs([*_runs(path, content)], panels))),
            Section(
                "Settings",
                format_table(("setting", "value"), settings_rows(content["config"])),
                folded=True,
            ),
        ],
    )


def _runs(path: epath.Path, content: Mapping[str, Any]) -> Iterator[ComparedRun]:
    """Yield each run, in the color of its learning rate if there are several."""
    rates = [entry["learning_rate"] for entry in content["learning_rates"]]
    for number, (name, run) in enumerate(content["runs"].items()):
        entries, rate = read_metrics(path / name), run["learning_rate"]
        if len(rates) == 1:
            yield ComparedRun(name, entries, number)
        else:
            yield ComparedRun(name, entries, rates.index(rate), f"learning rate {rate:g}")
