"""The report on points that fine-tune: the metrics of their own reports, over the seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from experiments.finetuning.report import highest_score
from experiments.metrics.curves import Panel
from experiments.sweeping.point_kind import Column, ReportForm, RowResult

_NO_SCORES = ("steps", "training_seconds", "seconds_per_step")
_MOST_METRICS = 6  # columns; SQuAD 2.0 has some twenty, which are all in the JSON


def _columns(rows: Sequence[RowResult]) -> list[Column]:
    decimals = 2 if highest_score(rows[0].points[0].planned.config) > 1 else 4
    return [
        Column("parameters", lambda row: f"{row.points[0].planned.parameters:,}"),
        Column("backbone", lambda row: f"{row.points[0].planned.backbone:,}"),
        Column("seeds", lambda row: f"{row.num_done}"),
        *(_metric_column(name, name, decimals) for name in _scores(rows)[:_MOST_METRICS]),
        _metric_column("steps", "steps", 0),
        _metric_column("seconds_per_step", "s/step", 3),
    ]


def _scores(rows: Sequence[RowResult]) -> list[str]:
    """Return the names of metrics, the deciding metric first."""
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return [name for name in names if name not in _NO_SCORES]


def _metric_column(name: str, heading: str, decimals: int) -> Column:
    def cell(row: RowResult) -> str:
        """Format mean, lowest and highest. Example: ``54.12 (53.80 to 54.30)``."""
        spread = row.metrics.get(name)
        if spread is None:
            return ""
        mean, low, high = (f"{value:,.{decimals}f}" for value in (_means(row)[name], *spread[1:3]))
        return mean if low == high else f"{mean} ({low} to {high})"

    return Column(heading, cell)


def _means(row: RowResult) -> dict[str, float]:
    return {
        name: statistics.fmean(
            point.metrics[name] for point in row.points if point.is_done and name in point.metrics
        )
        for name in row.metrics
    }


def _panels(rows: Sequence[RowResult]) -> Sequence[Panel]:
    return [("loss", "loss"), *((name, name) for name in _scores(rows)[:_MOST_METRICS])]


def _facts(row: RowResult) -> dict[str, Any]:
    one = row.points[0].planned
    return {"parameters": one.parameters, "backbone": one.backbone, "means": _means(row)}


def _is_comparable(row: RowResult) -> bool:
    return all(point.failed is None for point in row.points)


def _remarks(row: RowResult) -> list[str]:
    return [
        f"- {point.planned.point.name} FAILED, counted as it is: {point.failed}."
        for point in row.points
        if point.failed is not None
    ]


FINETUNING_REPORT = ReportForm(
    columns=_columns,
    panels=_panels,
    facts=_facts,
    is_comparable=_is_comparable,
    remarks=_remarks,
    legend="Means over the seeds that are done, with the lowest and the highest; metrics as the "
    "reports of the points have them, of the best checkpoint.",
    no_order="No order to compare: the sweep names no values of a paper, or rows failed.",
)
