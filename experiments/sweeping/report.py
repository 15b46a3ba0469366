"""The report of a sweep: a table in Markdown and JSON, and a plot of all curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from albert_jax.durable_files import write_atomically
from experiments.finetuning.report_format import format_table
from experiments.metrics.curves import (
    CURVES_FILE,
    Panel,
    add_panels,
    panels_with_data,
    save_figure,
)
from experiments.metrics.metrics_file import points_of
from experiments.run.workdir import REPORT_FILE
from experiments.sweeping.page import write_sweep_page
from experiments.sweeping.point_kind import ReportForm, RowResult
from experiments.sweeping.pretraining_report import PAPER_NAMES
from experiments.sweeping.results import Ordering, compare_orders

MARKDOWN_FILE = "report.md"
ROWS_PLOT_FILE = "rows.png"

Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # headings and rows


def write_report(directory: Path, docstring: str, command: str, rows: Sequence[RowResult]) -> Path:
    """Write the report of a sweep.

    The files are ``report.md``, ``report.html``, ``report.json``, ``curves.png`` and, if rows have
    places, ``rows.png``.

    Args:
        directory: the sweep's directory.
        docstring: the docstring of the sweep's file.
        command: the command of the sweep.
        rows: results of the rows.

    Returns:
        The Markdown file.
    """
    form = rows[0].points[0].planned.kind.report
    orderings, panels = compare_orders(rows), form.panels(rows)
    markdown = directory / MARKDOWN_FILE
    table, notes = _table(rows, form), [*_notes(rows, form), "", *_order_lines(orderings, form)]
    pictures = [CURVES_FILE]
    if any(row.row.place is not None for row in rows):
        pictures.insert(0, ROWS_PLOT_FILE)
        _plot_rows(rows, panels, directory / ROWS_PLOT_FILE, docstring.partition("\n")[0])
    write_atomically(markdown, format_report(docstring, command, table, notes, pictures))
    content = {
        "description": docstring,
        "command": command,
        "rows": [_row_as_json(row, form) for row in rows],
        "orderings": [ordering._asdict() for ordering in orderings],
    }
    write_atomically(directory / REPORT_FILE, json.dumps(content, indent=2) + "\n")
    _plot(rows, panels, directory / CURVES_FILE, docstring.partition("\n")[0])
    across = [(directory / name).read_bytes() for name in pictures if name == ROWS_PLOT_FILE]
    write_sweep_page(directory, docstring, command, rows, table, notes, panels, across)
    return markdown


def format_report(
    docstring: str, command: str, table: Table, notes: Sequence[str], pictures: Sequence[str]
) -> str:
    """Return the Markdown text."""
    title, _, rest = docstring.partition("\n")
    lines = [f"# {title}", "", "```", rest.strip(), "```", "", f"    {command}", ""]
    lines += [*format_table(*table), *notes, ""]
    lines += [line for name in pictures for line in (f"![{Path(name).stem}]({name})", "")]
    return "\n".join(lines)


def _table(rows: Sequence[RowResult], form: ReportForm) -> Table:
    paper = list(dict.fromkeys(name for row in rows for name in row.row.paper))
    columns = form.columns(rows)
    headings = ["row", *(column.heading for column in columns)]
    headings += [f"paper: {PAPER_NAMES.get(name, name)}" for name in paper]
    return headings, [
        [
            row.row.name,
            *(column.cell(row) for column in columns),
            *(str(row.row.paper.get(name, "")) for name in paper),
        ]
        for row in rows
    ]


def _notes(rows: Sequence[RowResult], form: ReportForm) -> list[str]:
    lines = [form.legend]
    for row in rows:
        for point in row.points:
            if not point.is_done:
                lines.append(f"- {point.planned.point.name}: {point.status}, left out above.")
        lines += form.remarks(row)
    return lines


def _order_lines(orderings: Sequence[Ordering], form: ReportForm) -> list[str]:
    if not orderings:
        return [form.no_order]
    lines = ["Pairs of rows in the paper's order and ours (undecided: seeds differ by more):"]
    for one in orderings:
        name = one.paper if one.paper == one.ours else f"{one.paper}, compared with our {one.ours}"
        lines.append(
            f"- {name}: {one.agree} agree, {one.disagree} disagree, {one.undecided} undecided."
        )
    return lines


def _row_as_json(row: RowResult, form: ReportForm) -> dict[str, Any]:
    return {
        "name": row.row.name,
        "overrides": dict(row.row.overrides),
        **form.facts(row),
        "figures": {name: spread._asdict() for name, spread in row.metrics.items()},
        "paper": dict(row.row.paper),
        "points": [
            {
                "seed": point.planned.point.seed,
                "workdir": str(point.planned.point.workdir),
                "status": point.status,
                "figures": point.metrics,
                "commands": [str(command) for command in point.planned.commands],
            }
            for point in row.points
        ],
    }


def _plot(rows: Sequence[RowResult], panels: Sequence[Panel], path: Path, title: str) -> None:
    """Plot metrics of evaluations: a panel for each, a color for each row, a line for each seed."""
    figure = Figure(layout="constrained")
    figure.suptitle(title)
    entries = [entry for row in rows for point in row.points for entry in point.entries]
    for axes, name in add_panels(figure, panels_with_data(panels, entries, ["validation"])):
        for number, row in enumerate(rows):
            for seed, point in enumerate(row.points):
                if curve := points_of(point.entries, "validation", name):
                    name_once = row.row.name if not seed else None
                    steps, values = zip(*curve, strict=True)
                    axes.plot(steps, values, f"C{number % 10}.-", label=name_once, linewidth=1)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside right upper")
    save_figure(figure, path)


def _plot_rows(rows: Sequence[RowResult], panels: Sequence[Panel], path: Path, title: str) -> None:
    """Plot medians with lowest and highest across rows, in a panel for each metric.

    The rows' places name the lines of a panel.
    """
    lines: dict[str, list[tuple[float, RowResult]]] = {}
    for row in rows:
        if (place := row.row.place) is not None:
            lines.setdefault(place.line, []).append((place.value, row))
            axis = place.axis
    figure = Figure(layout="constrained")
    figure.suptitle(title)
    placed = [row for found in lines.values() for _, row in found]
    measured = [panel for panel in panels if any(panel[0] in row.metrics for row in placed)]
    for axes, name in add_panels(figure, measured, unit=axis):
        for line, found in lines.items():
            points = sorted(
                (value, *row.metrics[name][:3]) for value, row in found if name in row.metrics
            )
            if points:
                values, medians, low, high = np.array(points).T
                spread = (medians - low, high - medians)
                axes.errorbar(values, medians, spread, fmt="o-", capsize=3, label=line)
        axes.set_xscale("log")
        axes.legend()
    save_figure(figure, path)
