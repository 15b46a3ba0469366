"""Charts that compare runs: a metric over steps, with a line for each run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from experiments.metrics.curves import SPLITS, Panel
from experiments.metrics.metrics_file import points_of
from experiments.pages.charts import Chart, Line


class ComparedRun(NamedTuple):
    """A run to compare with others.

    Attributes:
        label: its name.
        entries: entries of its metrics file.
        color: number of its color.
        group: its entry in the legend, which several runs may share; by default its label.
    """

    label: str
    entries: Sequence[Mapping[str, Any]]
    color: int
    group: str = ""


def compare_runs(runs: Sequence[ComparedRun], panels: Iterable[Panel]) -> Iterator[Chart]:
    """Yield a chart for each metric that any run has, from validation if a run has it there.

    Args:
        runs: the runs.
        panels: the metrics.
    """
    for name, title in panels:
        for split in reversed(SPLITS):
            points = [points_of(run.entries, split, name) for run in runs]
            if any(points):
                lines = [
                    Line(run.label, found, run.color, run.group)
                    for run, found in zip(runs, points, strict=True)
                ]
                yield Chart(f"{title}, {split}", lines)
                break
