"""A kind of points, in one record: what their config file describes, how they run and report."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.cli.config_dicts import Config
from experiments.cli.config_flag import GivenConfig
from experiments.launching.job import Command, Job
from experiments.metrics.curves import Panel
from experiments.sweeping.points import Point
from experiments.sweeping.sweep import Sweep, SweepRow


class ModelSize(NamedTuple):
    """The size of a point's model.

    Attributes:
        parameters: parameters of the whole model.
        backbone: parameters of encoder and pooler, which the paper counts.
        flops_per_row: operations of matrix products, forward and backward, on average over the run;
            None if it depends on the text.
    """

    parameters: int
    backbone: int
    flops_per_row: int | None


class PlannedPoint(NamedTuple):
    """A point whose experiment has been checked."""

    point: Point
    config: Any  # an instance of `PointKind.config`
    parameters: int
    backbone: int
    flops_per_row: int | None
    tasks: tuple[str, ...]  # fine-tuning tasks of a point that pre-trains
    commands: tuple[Command, ...]  # in order
    kind: "PointKind"

    @property
    def job(self) -> Job:
        """The commands as a job."""
        point = self.point
        log = f"{point.row.name}-seed_{point.seed}"
        return Job(point.number, point.name, log, self.commands, after=point.after)

    @property
    def steps(self) -> int:
        """The number of training steps."""
        return self.config.optimizer.num_train_steps


class PointResult(NamedTuple):
    """The result of a point."""

    planned: PlannedPoint
    step: int  # of the last evaluation, 0 if there was none
    steps: int  # to be taken
    is_done: bool
    metrics: dict[str, float]  # in the units of its kind
    entries: list[dict[str, Any]]  # of its `metrics.jsonl`
    failed: str | None = None  # why it counts as failed, although it is done

    @property
    def status(self) -> str:
        """Text such as `done`, `step 40 of 60` or `not run`."""
        if self.is_done:
            return "done"
        return f"step {self.step} of {self.steps}" if self.step else "not run"


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
    def num_done(self) -> int:
        """The number of points that are done."""
        return sum(point.is_done for point in self.points)

    @property
    def is_comparable(self) -> bool:
        """False if its metrics do not yet say anything about the order of rows."""
        return self.points[0].planned.kind.report.is_comparable(self)


class Column(NamedTuple):
    """A column of a report's table."""

    heading: str
    cell: Callable[[RowResult], str]


class ReportForm(NamedTuple):
    """The parts of a report that differ by the kind of points.

    Attributes:
        columns: columns of the table, between the row's name and the paper's values.
        panels: the metrics to plot.
        facts: facts about a row for programs: JSON between its overrides and its metrics.
        is_comparable: see `RowResult`.
        remarks: remarks on a row, a line each.
        legend: text that explains the table.
        no_order: text in case there is no order of rows to compare with the paper's.
    """

    columns: Callable[[Sequence[RowResult]], list[Column]]
    panels: Callable[[Sequence[RowResult]], Sequence[Panel]]
    facts: Callable[[RowResult], dict[str, Any]]
    is_comparable: Callable[[RowResult], bool]
    remarks: Callable[[RowResult], list[str]]
    legend: str
    no_order: str


class PointKind(NamedTuple):
    """A kind of points. `plan.py` lists all kinds; a sweep's config file determines its kind.

    Attributes:
        config: the class of the configuration.
        unusable_flags: flags of `experiments.sweep` that make no sense for them, and why.
        check_sweep: checks rows, tasks and probes of a sweep, and the tasks that have data. Raises
            InputError.
        resolve: completes what the flags of a point describe, given its workdir.
        check_workdir: checks that a workdir with a run is this point's. Raises InputError.
        size: counts parameters, given the experiment and its workdir.
        describe_work: text such as `4.02 GFLOP a row, 2,000 steps`.
        commands: the commands of a point; the arguments are those of `plan.plan_points`.
        check_inputs: checks what the points read, before any of them starts. Raises InputError.
        read: reads the result of a point.
        report: the form of the report.
    """

    config: type[Config]
    unusable_flags: Mapping[str, str]
    check_sweep: Callable[[Sweep, Iterable[str]], None]
    resolve: Callable[[GivenConfig[Any], Path], GivenConfig[Any]]
    check_workdir: Callable[[GivenConfig[Any], Path], None]
    size: Callable[[Any, Path], ModelSize]
    describe_work: Callable[[PlannedPoint], str]
    commands: Callable[[Point, Any, Sweep, Mapping[str, str], Mapping[str, str]], Sequence[Command]]
    check_inputs: Callable[[Iterable[Any]], None]
    read: Callable[[PlannedPoint], PointResult]
    report: ReportForm
