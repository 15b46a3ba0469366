"""The points of a sweep: runs, one for each row and seed."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.errors import InputError
from experiments.cli.given_settings import scale_steps
from experiments.sweeping.sweep import Sweep, SweepRow


class Point(NamedTuple):
    """One run: a row with a seed."""

    number: int  # in the sweep, from 0
    row: SweepRow
    seed: int
    workdir: Path
    base: str  # the config file
    overrides: Mapping[str, Any]  # all that apply to the base
    after: int | None  # the number of the point that it starts from

    @property
    def name(self) -> str:
        """The point's name in messages."""
        return f"{self.row.name}, seed {self.seed}"

    @property
    def flags(self) -> list[str]:
        """The flags of the experiment.

        Example: ``["--config=experiments/configs/albert_base.py", "--config.seed=1"]``
        """
        return [f"--config={self.base}", *override_flags(self.overrides)]


def override_flags(overrides: Mapping[str, Any]) -> list[str]:
    """Return overrides as flags.

    Example: ``{"data.ngram": 1, "run.init_from": None}`` gives ``["--config.data.ngram=1",
    "--config.run.init_from=none"]``.
    """
    return [
        f"--config.{name}={'none' if value is None else value}" for name, value in overrides.items()
    ]


def expand(sweep: Sweep, workdir: Path, overrides: Mapping[str, Any]) -> list[Point]:
    """Return the points of a sweep: for each row, each seed.

    Args:
        sweep: rows and seeds.
        workdir: the sweep's directory.
        overrides: further overrides of all points, which take precedence.

    Raises:
        InputError: an override is of a setting that the points vary.
    """
    varied = {name for row in sweep.rows for name in row.overrides} | {"seed"}
    if clash := varied & set(overrides):
        raise InputError(f"--override={min(clash)}=...: the points differ in it")
    numbers: dict[tuple[str, int], int] = {}
    points: list[Point] = []
    for number, (row, seed) in enumerate(itertools.product(sweep.rows, sweep.seeds)):
        numbers[row.name, seed] = number
        own = {**sweep.overrides, **row.overrides}
        merged = {**own, **_warmup_of_fewer_steps(own, overrides), **overrides, "seed": seed}
        after = None
        if row.starts_from is not None:
            after = numbers[row.starts_from, seed]
            merged["run.init_from"] = str(points[after].workdir)
        path = workdir / "points" / row.name / f"seed_{seed}"
        points.append(Point(number, row, seed, path, sweep.base, merged, after))
    return points


def _warmup_of_fewer_steps(own: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, int]:
    """Return a warm-up that is the same fraction of the steps as in the sweep.

    This is for an override that names only the steps when the sweep names both; otherwise, {}.
    """
    steps, warmup = "optimizer.num_train_steps", "optimizer.num_warmup_steps"
    named = str(overrides.get(steps))
    if warmup in overrides or not {steps, warmup} <= own.keys() or not named.isdecimal():
        return {}
    return {warmup: scale_steps(own[warmup], own[steps], int(named))}


def select(points: Sequence[Point], numbers: Sequence[str] | None) -> list[Point]:
    """Return the points with these numbers; by default all points.

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
