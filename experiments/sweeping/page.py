"""The page of a sweep: its table, the curves of all points, and what the rows change."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from etils import epath

from experiments.metrics.curves import Panel
from experiments.metrics.metrics_file import points_of
from experiments.pages.charts import Chart, Line, format_charts
from experiments.pages.document import PAGE_FILE, Section, escape, format_table, write_page
from experiments.sweeping.results import RowResult


def write_sweep_page(
    directory: Path,
    docstring: str,
    command: str,
    rows: Sequence[RowResult],
    table: tuple[Sequence[str], Sequence[Sequence[str]]],
    notes: Sequence[str],
    panels: Sequence[Panel],
) -> None:
    """Write ``report.html``; the same for the same results.

    Args:
        directory: the sweep's directory.
        docstring: the docstring of the sweep's file.
        command: the command of the sweep.
        rows: results.
        table: headings and rows of the report.
        notes: lines below it.
        panels: the metrics to plot.
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
            Section("Curves, held-out text", format_charts(_charts(rows, panels))),
            Section("Points", format_table(headings, points), True),
        ],
    )


def _charts(rows: Sequence[RowResult], panels: Sequence[Panel]) -> Iterator[Chart]:
    for name, title in panels:
        lines = [
            Line(
                _label(row, seed),
                points_of(point.entries, "validation", name),
                color,
                row.row.name,
            )
            for color, row in enumerate(rows)
            for seed, point in enumerate(row.points)
        ]
        yield Chart(title, lines)


def _label(row: RowResult, seed: int) -> str:
    several = len(row.points) > 1
    return (
        f"{row.row.name}, seed {row.points[seed].planned.point.seed}" if several else row.row.name
    )


def _overrides(row: RowResult) -> str:
    return ", ".join(f"{name}={value}" for name, value in row.row.overrides.items())
