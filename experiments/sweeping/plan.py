"""The plan of a sweep: each point's experiment, checked, its size, and its commands."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from albert_jax.settings import own_settings
from data_pipeline.errors import InputError
from experiments.cli.config_flag import GivenConfig, define_config_flag, parse_flags
from experiments.run.config import ExperimentConfig
from experiments.run.workdir import CONFIG_FILE, read_run_flags
from experiments.sweeping.finetuning import FINETUNING
from experiments.sweeping.point_kind import PlannedPoint, PointKind
from experiments.sweeping.points import Point
from experiments.sweeping.pretraining import PRETRAINING
from experiments.sweeping.sweep import Sweep

POINT_KINDS = (PRETRAINING, FINETUNING)


def find_kind(base: str) -> PointKind:
    """Return the kind of the points of a sweep.

    It is the kind whose configuration has all fields that the config file returns. If there is
    none, it is pre-training, whose checks then name the wrong field.

    Args:
        base: a config file or its name.

    Raises:
        InputError: there is no such file, or it fails.

    Example: ``find_kind("finetune/sst2")`` returns the kind of fine-tuning.
    """
    argv, values = ["sweep", f"--config={base}"], flags.FlagValues()
    flag = define_config_flag(values, argv)
    parse_flags(argv, values, config_kind=ExperimentConfig)  # any kind, without overrides
    if hasattr(flag.value, "to_dict"):
        fields = set(flag.value.to_dict())
        for kind in POINT_KINDS:
            if fields <= {one.name for one in own_settings(kind.config)}:
                return kind
    return PRETRAINING


def plan_points(
    points: Sequence[Point],
    sweep: Sweep,
    *,
    task_dirs: Mapping[str, str],
    task_overrides: Mapping[str, str],
) -> list[PlannedPoint]:
    """Check every point's experiment, and list its commands.

    Args:
        points: points of the sweep.
        sweep: the sweep.
        task_dirs: data directories of the fine-tuning tasks of points that pre-train.
        task_overrides: overrides of all these fine-tuning runs.

    Raises:
        InputError: an experiment is not valid, a workdir holds another one, or there is no such
            task.
    """
    kind = find_kind(sweep.base)
    kind.check_sweep(sweep, task_dirs)
    planned = []
    for point in points:
        with _naming(point):
            given = _resolve(point, kind)
        if (point.workdir / CONFIG_FILE).exists():
            kind.check_workdir(given, point.workdir)
        config = given.config
        with _naming(point):
            size = kind.size(config, point.workdir)
        commands = tuple(kind.commands(point, config, sweep, task_dirs, task_overrides))
        planned.append(PlannedPoint(point, config, *size, tuple(task_dirs), commands, kind))
    return planned


def _resolve(point: Point, kind: PointKind) -> GivenConfig[Any]:
    """Return a point's experiment, read from its flags as its command reads them.

    Raises:
        InputError: an override names no setting, or a value is not allowed.
    """
    argv, values = ["sweep", *point.flags], flags.FlagValues()
    flag = define_config_flag(values, argv)
    parse_flags(argv, values, config_kind=kind.config)
    return kind.resolve(read_run_flags(flag, kind.config, point.workdir), point.workdir)


@contextlib.contextmanager
def _naming(point: Point) -> Iterator[None]:
    """Name the point in errors that the context raises."""
    try:
        yield
    except InputError as error:
        raise InputError(f"point {point.number} ({point.name}): {error}") from error
