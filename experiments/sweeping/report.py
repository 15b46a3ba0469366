"""Report of a sweep: a table in Markdown and JSON, and a plot of all curves."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from albert_jax.durable_files import write_atomically
from data_pipeline.config import SentenceObjective
from experiments.evaluation.held_out import pretraining_panels
from experiments.finetuning.report_format import format_table
from experiments.metrics.curves import CURVES_FILE, add_panels, panels_with_data, save_figure
from experiments.metrics.metrics_file import points_of
from experiments.run.workdir import REPORT_FILE
from experiments.sweeping.page import write_sweep_page
from experiments.sweeping.results import (
    PLATEAU_GAP,
    Ordering,
    RowResult,
    Spread,
    compare_orders,
)

MARKDOWN_FILE = "report.md"

# Metric, heading, decimals. Fine-tuning tasks follow; metrics that no row has are left out.
_COLUMNS = (
    ("masked_lm_accuracy", "masked LM %", 2),
    ("masked_lm_loss", "masked-LM loss", 3),
    ("context_gap", "context gap", 3),
    ("sentence_order_accuracy", "SOP %", 1),
    ("next_sentence_accuracy", "NSP %", 1),
    ("sentence_order_probe", "SOP % (probe)", 1),
    ("next_sentence_probe", "NSP % (probe)", 1),
    ("sentence_order_untrained", "SOP % (probe, untrained)", 1),
    ("next_sentence_untrained", "NSP % (probe, untrained)", 1),
)
_RATE = ("rows_per_second", "rows/s", 1)
_PANELS = pretraining_panels(SentenceObjective.SOP)
_PAPER_NAMES = {
    **{name: heading for name, heading, _ in _COLUMNS},
    "squad_v1_exact": "squad_v1 EM",
    "squad_v2_exact": "squad_v2 EM",
}
Table = tuple[Sequence[str], Sequence[Sequence[str]]]  # headings and rows


def write_report(
    directory: Path, docstring: str, command: str, rows: Sequence[RowResult], tasks: Sequence[str]
) -> Path:
    """Write ``report.md``, ``report.html``, ``report.json`` and ``curves.png``.

    Args:
        directory: the sweep's directory.
        docstring: the docstring of the sweep's file.
        command: the command of the sweep.
        rows: results.
        tasks: fine-tuning tasks.

    Returns:
        The Markdown file.
    """
    orderings = compare_orders(rows)
    columns = [
        column
        for column in (*_COLUMNS, *((task, task, 1) for task in tasks), _RATE)
        if any(column[0] in row.metrics for row in rows)
    ]
    markdown = directory / MARKDOWN_FILE
    table, notes = _table(rows, columns), [*_notes(rows), "", *_order_lines(orderings)]
    write_atomically(markdown, format_report(docstring, command, table, notes))
    content = {
        "description": docstring,
        "command": command,
        "rows": [_row_as_json(row) for row in rows],
        "orderings": [ordering._asdict() for ordering in orderings],
    }
    write_atomically(directory / REPORT_FILE, json.dumps(content, indent=2) + "\n")
    _plot(rows, directory / CURVES_FILE, docstring.partition("\n")[0])
    write_sweep_page(directory, docstring, command, rows, table, notes, _PANELS)
    return markdown


def format_report(docstring: str, command: str, table: Table, notes: Sequence[str]) -> str:
    """Return the Markdown text."""
    title, _, rest = docstring.partition("\n")
    lines = [f"# {title}", "", "```", rest.strip(), "```", "", f"    {command}", ""]
    lines += [*format_table(*table), *notes, "", f"![curves]({CURVES_FILE})", ""]
    return "\n".join(lines)


def _table(rows: Sequence[RowResult], columns: Sequence[tuple[str, str, int]]) -> Table:
    paper = list(dict.fromkeys(name for row in rows for name in row.row.paper))
    headings = ["row", "parameters", "backbone", "GFLOP a row", "steps", "seeds"]
    headings += [heading for _, heading, _ in columns]
    headings += [f"paper: {_PAPER_NAMES.get(name, name)}" for name in paper]
    lines = []
    for row in rows:
        one = row.points[0].planned
        done = sum(point.status == "done" for point in row.points)
        cells = [row.row.name, f"{one.parameters:,}", f"{one.backbone:,}"]
        cells += [f"{one.flops_per_row / 1e9:,.2f}", f"{one.steps:,}", f"{done}"]
        cells += [_cell(row.metrics.get(name), decimals) for name, _, decimals in columns]
        cells += [str(row.row.paper.get(name, "")) for name in paper]
        lines.append(cells)
    return headings, lines


def _cell(spread: Spread | None, decimals: int) -> str:
    """Format the median, lowest and highest of the seeds. Example: ``54.1 (53.8 to 54.3)``."""
    if spread is None:
        return ""
    median, low, high = (f"{value:.{decimals}f}" for value in spread[:3])
    return median if spread.seeds == 1 else f"{median} ({low} to {high})"


def _notes(rows: Sequence[RowResult]) -> list[str]:
    lines = [
        "Medians over the seeds that are done, with the lowest and the highest. Accuracies in "
        "percent, losses in nats; all rows are evaluated on the same held-out pairs, unpacked, "
        "15 % masked in n-grams up to three."
    ]
    for row in rows:
        for point in row.points:
            if point.status != "done":
                lines.append(f"- {point.planned.point.name}: {point.status}, left out above.")
        if row.metrics and not row.left_plateau:
            lines.append(
                f"- {row.row.name} did not leave the plateau (context gap under {PLATEAU_GAP} "
                "nats): its metrics reflect token frequencies only."
            )
    return lines


def _order_lines(orderings: Sequence[Ordering]) -> list[str]:
    if not orderings:
        return ["No order to compare: the paper reports none, or rows are still on the plateau."]
    lines = ["Pairs of rows in the paper's order and ours (undecided: seeds differ by more):"]
    for one in orderings:
        name = one.paper if one.paper == one.ours else f"{one.paper}, compared with our {one.ours}"
        lines.append(
            f"- {name}: {one.agree} agree, {one.disagree} disagree, {one.undecided} undecided."
        )
    return lines


def _row_as_json(row: RowResult) -> dict[str, Any]:
    one = row.points[0].planned
    return {
        "name": row.row.name,
        "overrides": dict(row.row.overrides),
        "parameters": one.parameters,
        "backbone": one.backbone,
        "flops_per_row": one.flops_per_row,
        "steps": one.steps,
        "left_plateau": row.left_plateau,
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


def _plot(rows: Sequence[RowResult], path: Path, title: str) -> None:
    """Plot held-out metrics: a panel for each, a color for each row, a line for each seed."""
    figure = Figure(layout="constrained")
    figure.suptitle(title)
    entries = [entry for row in rows for point in row.points for entry in point.entries]
    for axes, name in add_panels(figure, panels_with_data(_PANELS, entries, ["validation"])):
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
