"""Results of a sweep: metrics by row, and agreement with the paper's order of the rows."""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.config import PositionEncoding
from albert_jax.input_files import read_json_object, require_fields
from data_pipeline.errors import InputError
from experiments.evaluation.probing import PROBE_FILE
from experiments.metrics.metrics_file import read_metrics
from experiments.run.workdir import REPORT_FILE
from experiments.sweeping.plan import PlannedPoint, task_workdir
from experiments.sweeping.sweep import SweepRow
from experiments.tasks.task_settings import TaskName

# A model whose loss does not rise when the visible words are shuffled has only learned token
# frequencies. All models begin on that plateau; rows on it differ only in when they leave.
PLATEAU_GAP = 0.3  # nats

# Our metric to compare with a metric of the paper that not every row has here.
_STAND_INS = {
    "average": "masked_lm_accuracy",  # the average of fine-tuning tasks
    "sentence_order_accuracy": "sentence_order_probe",
    "next_sentence_accuracy": "next_sentence_probe",
}


class PointResult(NamedTuple):
    """The result of a point."""

    planned: PlannedPoint
    step: int  # of the last evaluation, 0 if there was none
    metrics: dict[str, float]  # in percent, nats and rows a second
    entries: list[dict[str, Any]]  # of its `metrics.jsonl`

    @property
    def status(self) -> str:
        """Text such as `done`, `step 40 of 60` or `not run`."""
        if self.step == self.planned.steps:
            return "done"
        return f"step {self.step} of {self.planned.steps}" if self.step else "not run"


class Spread(NamedTuple):
    """A metric over the seeds of a row."""

    median: float
    lowest: float
    highest: float
    seeds: int


class RowResult(NamedTuple):
    """The result of a row."""

    row: SweepRow
    points: tuple[PointResult, ...]
    metrics: dict[str, Spread]  # over the points that are done

    @property
    def left_plateau(self) -> bool:
        """True if every seed learned more than token frequencies.

        Without position encodings the order of the words has no effect, so there is no gap to judge
        by.
        """
        if self.points[0].planned.config.model.position_encoding is PositionEncoding.NONE:
            return True
        gap = self.metrics.get("context_gap")
        return gap is not None and gap.lowest >= PLATEAU_GAP


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
    results = [_read_point(one) for one in planned]
    grouped = itertools.groupby(results, key=lambda result: result.planned.point.row)
    return [_summarize(row, tuple(points)) for row, points in grouped]


def has_results(planned: Sequence[PlannedPoint]) -> bool:
    """Return True if any of the points has been evaluated."""
    return any(_read_point(one).step for one in planned)


def compare_orders(rows: Sequence[RowResult]) -> list[Ordering]:
    """Compare our order of the rows with the paper's, for each metric that it reports.

    Pairs that are equal in the paper are left out, and rows that are still on the plateau.

    Example: with 1, 2 and 3 in the paper and the medians 10, 30 and 20 here, seeds differing by 1,
    two pairs agree and one disagrees.
    """
    named = dict.fromkeys(name for row in rows for name in row.row.paper)
    orderings = []
    for name in named:
        reported = [row for row in rows if name in row.row.paper and row.left_plateau]
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
    """Return 1 if our difference has the sign of the paper's, -1 if not, 0 if seeds differ more."""
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
    metrics = {
        name: 100 * value if name.endswith("_accuracy") else value
        for name, value in last.items()
        if name.endswith(("_accuracy", "_loss", "_gap"))
    }
    rates = [entry["rows_per_second"] for entry in entries if "rows_per_second" in entry]
    if rates:
        metrics["rows_per_second"] = statistics.median(rates)
    metrics |= _read_probe(workdir / PROBE_FILE) | _read_tasks(planned)
    return PointResult(planned, last["step"], metrics, entries)


def _read_probe(path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    content = read_json_object(path, error=InputError)
    require_fields(content, {"accuracies": dict}, str(path), error=InputError)
    accuracies = content["accuracies"]
    kinds = dict.fromkeys(accuracies, float)
    require_fields(accuracies, kinds, f"{path}: accuracies", error=InputError)
    return {name: 100 * accuracy for name, accuracy in accuracies.items()}


def _read_tasks(planned: PlannedPoint) -> dict[str, float]:
    scores = {}
    for task in planned.tasks:
        path = task_workdir(planned.point, task) / REPORT_FILE
        if path.exists():
            score = _read_score(path)
            if score is not None:  # None: every run failed
                scores[task] = score
    return scores


def _read_score(path: Path) -> float | None:
    """Return the value of a report, in percent: its own, or the median of the best rate's runs."""
    report = read_json_object(path, error=InputError)
    require_fields(report, {"task": str}, str(path), error=InputError)
    holder: Any = report
    name, place = "value", str(path)
    if "runs" in report:
        require_fields(report, {"learning_rates": list}, place, error=InputError)
        holder, name, place = next(iter(report["learning_rates"]), None), "median", f"{path}: rates"
        require_fields(holder, {}, place, error=InputError)
    if holder.get(name, 0) is None:
        return None
    require_fields(holder, {name: float}, place, error=InputError)
    # SQuAD's official metrics are percentages, those of other tasks fractions.
    return holder[name] if report["task"] == TaskName.SQUAD else 100 * holder[name]


def _summarize(row: SweepRow, points: tuple[PointResult, ...]) -> RowResult:
    finished = [point.metrics for point in points if point.status == "done"]
    metrics = {}
    for name in dict.fromkeys(name for one in finished for name in one):
        values = [one[name] for one in finished if name in one]
        metrics[name] = Spread(statistics.median(values), min(values), max(values), len(values))
    return RowResult(row, points, metrics)
