"""The page of a sweep: its table, the curves of all points, and the settings of the rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath

from experiments.metrics.curves import Panel
from experiments.pages.charts import format_charts
from experiments.pages.comparison import ComparedRun, compare_runs
from experiments.pages.document import (
    PAGE_FILE,
    Section,
    escape,
    format_picture,
    format_table,
    write_page,
)
from experiments.sweeping.point_kind import RowResult


def write_sweep_page(
    directory: Path,
    docstring: str,
    command: str,
    rows: Sequence[RowResult],
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    notes: Sequence[str],
    panels: Sequence[Panel],
    across: Sequence[bytes],
) -> None:
    """Write ``report.html``; the same results give the same page.

    Args:
        directory: the sweep's directory.
        docstring: the docstring of the sweep's file.
        command: the command of the sweep.
        rows: results of the rows.
        table: headings and rows of the report.
        notes: lines below the table.
        panels: the metrics to plot.
        across: the PNG of metrics across rows, if there is one.
    """
    title, _, rest = docstring.partition("\n")
    below = "".join(f"<p>{escape(line.removeprefix('- '))}</p>\n" for line in notes)
    points = [
        (point.planned.point.name, point.status, str(point.planned.point.workdir), _overrides(row))
        for row in rows
        for point in row.points
    ]
    headings = ("point", "status", "workdir", "settings of the row")
    write_page(
        epath.Path(directory) / PAGE_FILE,
        title,
        [
            Section("Sweep", f"<pre>{escape(rest.strip())}\n\n{escape(command)}</pre>", True),
            Section("Results", format_table(*table) + below),
            *(Section("Rows", format_picture(png, "medians, lowest, highest")) for png in across),
            Section("Curves", format_charts(compare_runs([*_runs(rows)], panels))),
            Section("Points", format_table(headings, points), True),
        ],
    )


def _runs(rows: Sequence[RowResult]) -> Iterator[ComparedRun]:
    for color, row in enumerate(rows):
        for seed, point in enumerate(row.points):
            yield ComparedRun(_label(row, seed), point.entries, color, row.row.name)


def _label(row: RowResult, seed: int) -> str:
    several = len(row.points) > 1
    return (
        f"{row.row.name}, seed {row.points[seed].planned.point.seed}" if several else row.row.name
    )


def _overrides(row: RowResult) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.row.overrides.items())
