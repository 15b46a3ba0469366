"""A sweep: the rows of a table as overrides of one config file, and the seeds of each."""

import itertools
import re
import runpy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import InputError
from experiments.cli.named_files import check_file, find_file

SWEEPS = Path(__file__).parents[1] / "sweeps"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")  # a directory on any file system


class Size(StrEnum):
    """The two sizes of a sweep."""

    PAPER = "paper"  # the paper's model, data and steps
    SMALL = "small"  # minutes a point on a CPU


class Place(NamedTuple):
    """The place of a row in a plot of metrics across rows."""

    axis: str  # the name of the horizontal axis, which is logarithmic
    value: float
    line: str  # the line that the row is a point of


@dataclass(frozen=True)
class SweepRow:
    """A row of a sweep's table.

    Raises:
        ValueError: the name is not allowed as a directory's.
    """

    name: str  # in the report, and the directory's name
    overrides: Mapping[str, Any]  # by the names of the flags, without `config.`
    # The paper's values, in percent, by the names of the report's metrics.
    paper: Mapping[str, float] = field(default_factory=dict)
    starts_from: str | None = None  # an earlier row, whose parameters to start from, for each seed
    place: Place | None = None  # the report plots the rows that have one

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                "a row's name is a directory's too, of letters, digits, and . _ = - after the "
                f"first; got {self.name!r}"
            )


@dataclass(frozen=True)
class Sweep:
    """A sweep: a config file, rows and seeds.

    Raises:
        ValueError: there are no rows or no seeds, two points would share a workdir, or a row starts
            from one that is not before it.
    """

    base: str  # a config file or its name, of pre-training or fine-tuning
    rows: tuple[SweepRow, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of all rows; a row's own win
    seeds: tuple[int, ...] = (12345,)
    tasks: tuple[str, ...] = ()  # fine-tuning tasks of every point, files of configs/finetune
    probes: bool = False  # True: probe every point for both sentence objectives

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


def grid(
    axes: Mapping[str, Sequence[Any]], paper: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[SweepRow, ...]:
    """Return a row for every combination of values, the last axis varying fastest.

    Example: the axes ``{"data.ngram": [1, 2], "seed": [7, 8]}`` give rows called ``1-7``, ``1-8``,
    ``2-7``, ``2-8``.

    Args:
        axes: values by the name of their flag.
        paper: the paper's values by the name of their row.
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
    """Return a row of the paper's tables: SQuAD's F1/EM, accuracies, and their average.

    Example: ``downstream("89.3/82.3", "80.0/77.1", 81.6, 90.3, 64.0, 80.1)``.
    """
    scores = {"mnli": mnli, "sst2": sst2, "race": race, "average": average}
    for name, pair in (("squad_v1", squad_v1), ("squad_v2", squad_v2)):
        f1, exact = pair.split("/")
        scores |= {name: float(f1), f"{name}_exact": float(exact)}
    return scores


def load_sweep(path: str, size: Size) -> tuple[Sweep, str]:
    """Load the sweep of a file, or of a name in `experiments.sweeps`, and the file's docstring.

    Raises:
        InputError: there is no such file, or it returns no sweep.
    """
    check_file("sweep", path, SWEEPS)
    try:
        content = runpy.run_path(find_file(path, SWEEPS))
        sweep = content["get_sweep"](size) if "get_sweep" in content else None
    except (Exception, SystemExit) as error:  # the file may raise anything
        raise InputError(f"--sweep={path}: {type(error).__name__}: {error}") from error
    if not isinstance(sweep, Sweep):
        raise InputError(f"--sweep={path}: its get_sweep(size) must return a Sweep")
    return sweep, (content["__doc__"] or "").strip()
