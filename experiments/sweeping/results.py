"""Results of a sweep: metrics by row, and agreement with the paper's order of the rows."""

import itertools
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from data_pipeline.errors import InputError
from experiments.sweeping.point_kind import PlannedPoint, PointResult, RowResult, Spread
from experiments.sweeping.sweep import SweepRow

# Our metric to compare with one of the paper's, if not every row has the paper's metric here.
_STAND_INS = {
    "average": "masked_lm_accuracy",  # the average of fine-tuning tasks
    "sentence_order_accuracy": "sentence_order_probe",
    "next_sentence_accuracy": "next_sentence_probe",
}


class Ordering(NamedTuple):
    """Agreement of our order of the rows with the paper's, over all pairs of rows."""

    paper: str  # the paper's metric
    ours: str  # our metric that it is compared with
    agree: int
    disagree: int
    undecided: int  # our medians differ by no more than the seeds of a row


def read_results(planned: Sequence[PlannedPoint]) -> list[RowResult]:
    """Read the workdirs of the points, grouped by row.

    Raises:
        InputError: none of them has run.
    """
    if not has_results(planned):
        raise InputError(
            f"there is nothing to report: none of the {len(planned)} points under "
            f"{planned[0].point.workdir.parents[1]} has been evaluated yet; leave out --report "
            "to run them"
        )
    results = [one.kind.read(one) for one in planned]
    grouped = itertools.groupby(results, key=lambda result: result.planned.point.row)
    return [_summarize(row, tuple(points)) for row, points in grouped]


def has_results(planned: Sequence[PlannedPoint]) -> bool:
    """Return True if any of the points has been evaluated."""
    return any(one.kind.read(one).step for one in planned)


def compare_orders(rows: Sequence[RowResult]) -> list[Ordering]:
    """Compare our order of the rows with the paper's, for each metric that it reports.

    Pairs that are equal in the paper are left out. So are rows that are not comparable, because
    they are still on the plateau or failed.

    Example: with 1, 2 and 3 in the paper and the medians 10, 30 and 20 here, seeds differing by 1,
    two pairs agree and one disagrees.
    """
    named = dict.fromkeys(name for row in rows for name in row.row.paper)
    orderings = []
    for name in named:
        reported = [row for row in rows if name in row.row.paper and row.is_comparable]
        everywhere = all(name in row.metrics for row in reported)
        ours = name if everywhere else _STAND_INS.get(name, name)
        measured = [row for row in reported if ours in row.metrics]
        votes = [
            _vote(difference, one.metrics[ours], other.metrics[ours])
            for one, other in itertools.combinations(measured, 2)
            if (difference := one.row.paper[name] - other.row.paper[name])
        ]
        if votes:
            orderings.append(Ordering(name, ours, votes.count(1), votes.count(-1), votes.count(0)))
    return orderings


def _vote(paper: float, one: Spread, other: Spread) -> int:
    """Return 1 if our difference has the paper's sign, -1 if not, 0 if seeds differ as much."""
    difference = one.median - other.median
    if abs(difference) <= max(one.highest - one.lowest, other.highest - other.lowest):
        return 0
    return 1 if difference * paper > 0 else -1


def _summarize(row: SweepRow, points: tuple[PointResult, ...]) -> RowResult:
    finished = [point.metrics for point in points if point.is_done]
    metrics = {}
    for name in dict.fromkeys(name for one in finished for name in one):
        values = [one[name] for one in finished if name in one]
        metrics[name] = Spread(statistics.median(values), min(values), max(values), len(values))
    return RowResult(row, points, metrics)
