"""A sweep as data: rows of overrides, and the points that rows and seeds make of one base.

A point is an ordinary run of `experiments.pretrain` in a workdir of its own.
"""

import itertools
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from albert_jax.settings import did_you_mean
from data_pipeline.errors import InputError
from experiments.cli.config_flag import define_config_flag, parse_flags, read_config_flag
from experiments.run.config import ExperimentConfig

SWEEPS = Path(__file__).parents[1] / "sweeps"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")  # of a directory, on any file system


class Size(StrEnum):
    """The two sizes that a sweep comes in."""

    PAPER = "paper"  # the paper's model, data and steps
    SMALL = "small"  # minutes a point on a CPU


@dataclass(frozen=True)
class SweepRow:
    """What is done differently in one row of a table.

    Raises:
        ValueError: the name cannot be that of a directory.
    """

    name: str  # in the report, and of the directory
    overrides: Mapping[str, Any]  # by the names of the flags, without `config.`
    # What the paper reports of it, in percent, by the names of the report's figures.
    paper: Mapping[str, float] = field(default_factory=dict)
    starts_from: str | None = None  # the row whose parameters, at equal seeds, it starts from

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"a row's name must do for a directory (letters, digits, . _ = -), "
                f"got {self.name!r}"
            )


@dataclass(frozen=True)
class Sweep:
    """A table to be filled in: rows, seeds, and what all of them start out from.

    Raises:
        ValueError: it is empty, two points would share a workdir, or a row starts from one that
            does not come before it.
    """

    base: str  # a config file
    rows: tuple[SweepRow, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of all rows, before their own
    seeds: tuple[int, ...] = (12345,)
    tasks: tuple[str, ...] = ()  # what points are fine-tuned on, files of configs/finetune
    probes: bool = False  # whether sentence objectives are probed, trained or not

    def __post_init__(self) -> None:
        if not self.rows or not self.seeds:
            missing = "seeds" if self.rows else "rows"
            raise ValueError(f"the sweep is empty: it has no {missing}")
        names = [row.name for row in self.rows]
        seeds = [f"seed {seed}" for seed in self.seeds]
        for values in (names, seeds):
            if twice := [value for value in values if values.count(value) > 1]:
                raise ValueError(f"two points would share a workdir: there are two {twice[0]!r}")
        for number, row in enumerate(self.rows):
            if row.starts_from is not None and row.starts_from not in names[:number]:
                raise ValueError(
                    f"row {row.name!r} starts from {row.starts_from!r}, which must be a row before "
                    f"it; there are {', '.join(names[:number]) or 'none'}"
                )


class Point(NamedTuple):
    """One run: a row with a seed."""

    number: int  # in the sweep, from 0
    row: SweepRow
    seed: int
    workdir: Path
    base: str  # the config file
    overrides: Mapping[str, Any]  # of the base, all of them
    after: int | None  # the number of the point that it starts from

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def flags(self) -> list[str]:
        """The command line that describes the experiment.

        Example: ``["--config=experiments/configs/albert_base.py", "--config.seed=1"]``
        """
        return [f"--config={self.base}", *override_flags(self.overrides)]

    def resolve(self) -> ExperimentConfig:
        """The experiment, through the very door that its command uses.

        Raises:
            InputError: an override names no field, or a value does not fit.
        """
        argv, values = ["pretrain", *self.flags], flags.FlagValues()
        try:
            flag = define_config_flag(values, argv)
            parse_flags(argv, values, config_kind=ExperimentConfig)
            return read_config_flag(flag, ExperimentConfig)
        except InputError as error:
            raise InputError(f"point {self.number} ({self.name}): {error}") from error


def grid(
    axes: Mapping[str, Sequence[Any]], paper: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[SweepRow, ...]:
    """A row for every combination of values, the last axis running fastest.

    Example: the axes ``{"data.ngram": [1, 2], "seed": [7, 8]}`` give rows called ``1-7``, ``1-8``,
    ``2-7``, ``2-8``.

    Args:
        axes: values by the name of their flag.
        paper: the paper's figures by the name of their row.
    """
    paper = paper or {}
    rows = []
    for values in itertools.product(*axes.values()):
        name = "-".join(map(str, values))
        rows.append(SweepRow(name, dict(zip(axes, values, strict=True)), paper.get(name, {})))
    return tuple(rows)


def downstream(
    squad_v1: str, squad_v2: str, mnli: float, sst2: float, race: float, average: float
) -> dict[str, float]:
    """A row of the paper's tables: F1/EM of SQuAD, accuracies of the others, their average.

    Example: ``downstream("89.3/82.3", "80.0/77.1", 81.6, 90.3, 64.0, 80.1)``.
    """
    scores = {"mnli": mnli, "sst2": sst2, "race": race, "average": average}
    for name, pair in (("squad_v1", squad_v1), ("squad_v2", squad_v2)):
        f1, exact = pair.split("/")
        scores |= {name: float(f1), f"{name}_exact": float(exact)}
    return scores


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as they are written on a command line.

    Example: ``{"data.ngram": 1, "run.init_from": None}`` gives ``["--config.data.ngram=1",
    "--config.run.init_from=none"]``.
    """
    return [
        f"--config.{name}={'none' if value is None else value}" for name, value in overrides.items()
    ]


def load_sweep(path: str, size: Size) -> tuple[Sweep, str]:
    """The sweep of a file, and the file's docstring.

    Raises:
        InputError: there is no such file, or it gives no sweep.
    """
    if not Path(path).is_file():
        known = {file.name: f"experiments/sweeps/{file.name}" for file in SWEEPS.glob("[a-z]*.py")}
        raise InputError(
            f"--sweep={path}: there is no such file{did_you_mean(Path(path).name, known)}"
        )
    try:
        content = runpy.run_path(path)
        sweep = content["get_sweep"](size) if "get_sweep" in content else None
    except (SyntaxError, ImportError, NameError, TypeError, ValueError) as error:
        raise InputError(f"--sweep={path}: {type(error).__name__}: {error}") from error
    if not isinstance(sweep, Sweep):
        raise InputError(f"--sweep={path}: its get_sweep(size) must return a Sweep")
    return sweep, (content["__doc__"] or "").strip()


def expand(sweep: Sweep, workdir: Path, overrides: Mapping[str, Any]) -> list[Point]:
    """The points of a sweep: for each row, each seed.

    Args:
        sweep: the rows.
        workdir: the sweep's directory.
        overrides: further ones, of all points; they win.

    Raises:
        InputError: one of these is what the rows vary.
    """
    varied = {name for row in sweep.rows for name in row.overrides} | {"seed"}
    if clash := varied & set(overrides):
        raise InputError(f"--override={min(clash)}=...: the points differ in it")
    numbers: dict[tuple[str, int], int] = {}
    points: list[Point] = []
    for number, (row, seed) in enumerate(itertools.product(sweep.rows, sweep.seeds)):
        numbers[row.name, seed] = number
        merged = {**sweep.overrides, **row.overrides, **overrides, "seed": seed}
        after = None
        if row.starts_from is not None:
            after = numbers[row.starts_from, seed]
            merged["run.init_from"] = str(points[after].workdir)
        path = workdir / "points" / row.name / f"seed_{seed}"
        points.append(Point(number, row, seed, path, sweep.base, merged, after))
    return points


def select(points: Sequence[Point], numbers: Sequence[str] | None) -> list[Point]:
    """The points of these numbers; all of them by default.

    Raises:
        InputError: there is no such point.
    """
    if not numbers:
        return list(points)
    known = {str(point.number): point for point in points}
    for number in numbers:
        if number not in known:
            raise InputError(
                f"--points: there is no point {number}; they are numbered 0 to {len(points) - 1}"
            )
    return [point for point in points if str(point.number) in numbers]
