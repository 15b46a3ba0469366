"""What the points of a sweep came to, row by row, and whether the paper's order is ours."""

import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.config import PositionEncoding
from data_pipeline.errors import InputError
from experiments.evaluation.probing import PROBE_FILE
from experiments.run.metrics_log import read_metrics
from experiments.run.workdir import REPORT_FILE
from experiments.sweeping.plan import PlannedPoint, task_workdir
from experiments.sweeping.points import SweepRow
from experiments.tasks.config import TaskName

# A model whose loss does not rise when the visible words are shuffled has learned frequencies
# alone. All models begin so; what differs before they leave that plateau is when they will.
PLATEAU_GAP = 0.3  # nats

# What is held against a figure of the paper that not every row has here.
_STAND_INS = {
    "average": "masked_lm_accuracy",  # of fine-tuned tasks
    "sentence_order_accuracy": "sentence_order_probe",
    "next_sentence_accuracy": "next_sentence_probe",
}


class PointResult(NamedTuple):
    """What one point came to."""

    planned: PlannedPoint
    step: int  # of the last evaluation, 0 if there was none
    figures: dict[str, float]  # in percent, nats and rows a second
    entries: list[dict[str, Any]]  # of its metrics file

    @property
    def status(self) -> str:
        """In words: done, how far it is, or that it has not run."""
        if self.step == self.planned.steps:
            return "done"
        return f"step {self.step} of {self.planned.steps}" if self.step else "not run"


class Spread(NamedTuple):
    """A figure over the seeds of a row."""

    median: float
    lowest: float
    highest: float
    seeds: int


class RowResult(NamedTuple):
    """What the points of one row came to."""

    row: SweepRow
    points: tuple[PointResult, ...]
    figures: dict[str, Spread]  # over those of its points that have run to the end

    @property
    def left_plateau(self) -> bool:
        """Whether every seed learned more than frequencies.

        Without position encodings a model reads words in any order: it has no gap to be judged by.
        """
        if self.points[0].planned.config.model.position_encoding is PositionEncoding.NONE:
            return True
        gap = self.figures.get("context_gap")
        return gap is not None and gap.lowest >= PLATEAU_GAP


class Ordering(NamedTuple):
    """Whether two rows differ in our figure as they do in the paper's, over all pairs of rows."""

    paper: str  # the paper's figure
    ours: str  # the figure that it is held against
    agree: int
    disagree: int
    undecided: int  # our two medians differ by no more than the seeds of a row do


def read_results(planned: Sequence[PlannedPoint]) -> list[RowResult]:
    """Reads the workdirs of the points, those of a row one after another.

    Raises:
        InputError: none of them has run.
    """
    if not has_results(planned):
        raise InputError(
            f"there is nothing to report: none of the {len(planned)} points under "
            f"{planned[0].point.workdir.parents[1]} has been evaluated yet; without --report they "
            "are run"
        )
    results = [_read_point(one) for one in planned]
    grouped = itertools.groupby(results, key=lambda result: result.planned.point.row)
    return [_summarize(row, tuple(points)) for row, points in grouped]


def has_results(planned: Sequence[PlannedPoint]) -> bool:
    """Whether any of the points has been evaluated."""
    return any(_read_point(one).step for one in planned)


def compare_orders(rows: Sequence[RowResult]) -> list[Ordering]:
    """Our order of the rows beside the paper's, for every figure that it reports.

    Pairs that are equal in the paper say nothing, nor do rows that are still on the plateau.

    Example: with 1, 2 and 3 in the paper and the medians 10, 30 and 20 here, seeds differing by 1,
    two pairs agree and one disagrees.
    """
    named = dict.fromkeys(name for row in rows for name in row.row.paper)
    orderings = []
    for name in named:
        reported = [row for row in rows if name in row.row.paper and row.left_plateau]
        everywhere = all(name in row.figures for row in reported)
        ours = name if everywhere else _STAND_INS.get(name, name)
        message = [row for row in reported if ours in row.figures]
        votes = [
            _vote(difference, one.figures[ours], other.figures[ours])
            for one, other in itertools.combinations(message, 2)
            if (difference := one.row.paper[name] - other.row.paper[name])
        ]
        if votes:
            orderings.append(Ordering(name, ours, votes.count(1), votes.count(-1), votes.count(0)))
    return orderings


def _vote(paper: float, one: Spread, other: Spread) -> int:
    """1 if our difference has the sign of the paper's, -1 if not, 0 if the seeds drown it."""
    difference = one.median - other.median
    if abs(difference) <= max(one.highest - one.lowest, other.highest - other.lowest):
        return 0
    return 1 if difference * paper > 0 else -1


def _read_point(planned: PlannedPoint) -> PointResult:
    workdir = planned.point.workdir
    entries = read_metrics(workdir)
    evaluations = [entry for entry in entries if entry["split"] == "validation"]
    if not evaluations:
        return PointResult(planned, 0, {}, entries)
    last = evaluations[-1]
    figures = {
        name: 100 * value if name.endswith("_accuracy") else value
        for name, value in last.items()
        if name.endswith(("_accuracy", "_loss", "_gap"))
    }
    rates = [entry["rows_per_second"] for entry in entries if "rows_per_second" in entry]
    if rates:
        figures["rows_per_second"] = statistics.median(rates)
    figures |= _read_probe(workdir / PROBE_FILE) | _read_tasks(planned)
    return PointResult(planned, last["step"], figures, entries)


def _read_probe(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: 100 * share for name, share in content["accuracies"].items()}


def _read_tasks(planned: PlannedPoint) -> dict[str, float]:
    scores = {}
    for task in planned.tasks:
        path = task_workdir(planned.point, task) / REPORT_FILE
        if path.exists():
            report = json.loads(path.read_text(encoding="utf-8"))
            value = report["learning_rates"][0]["median"] if "runs" in report else report["value"]
            if value is not None:  # no run of it came to anything
                # SQuAD's official figures are percentages, those of other tasks shares.
                scores[task] = value if report["task"] == TaskName.SQUAD else 100 * value
    return scores


def _summarize(row: SweepRow, points: tuple[PointResult, ...]) -> RowResult:
    finished = [point.figures for point in points if point.status == "done"]
    figures = {}
    for name in dict.fromkeys(name for one in finished for name in one):
        values = [one[name] for one in finished if name in one]
        figures[name] = Spread(statistics.median(values), min(values), max(values), len(values))
    return RowResult(row, points, figures)
