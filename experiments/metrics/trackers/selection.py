"""The choice of trackers: by name, or as any class ``module:Class``."""

import importlib
import importlib.util
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from etils import epath

from albert_jax.settings import FieldError, did_you_mean
from data_pipeline.errors import InputError
from experiments.cli.dataclass_forms import flatten, to_dict
from experiments.metrics.tracker import Tracker, Value

if TYPE_CHECKING:
    from experiments.metrics.run_log import RunLog


class TrackerName(StrEnum):
    """The trackers in this package; those that need another package are extras of that name."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


_CLASSES = {
    TrackerName.TENSORBOARD: "experiments.metrics.trackers.tensorboard:TensorBoardTracker",
    TrackerName.WANDB: "experiments.metrics.trackers.wandb:WandbTracker",
    TrackerName.MLFLOW: "experiments.metrics.trackers.mlflow:MlflowTracker",
}
_EXTRAS = (TrackerName.WANDB, TrackerName.MLFLOW)
_FLAG = "--config.run.trackers"


def parse_trackers(text: str | None) -> tuple[str, ...]:
    """Return the names of a list such as ``tensorboard,my_package.module:MyTracker``.

    Raises:
        FieldError: one is not a known name, or occurs twice.
    """
    names = tuple(name.strip() for name in text.split(",")) if text is not None else ()
    known = list(map(str, TrackerName))
    for name in names:
        module, _, cls = name.partition(":")
        if name not in known and not (
            cls.isidentifier() and module.replace(".", "").isidentifier()
        ):
            raise FieldError("trackers", _allowed(), text, did_you_mean(name, known))
    if len(set(names)) < len(names):
        raise FieldError("trackers", f"different ones of {_allowed()}", text)
    return names


def check_trackers(names: Iterable[str]) -> None:
    """Check that trackers can be made, so that a run does not begin without them.

    Raises:
        InputError: a package is not installed, or there is no such class.
    """
    for name in names:
        if name in _EXTRAS and importlib.util.find_spec(name) is None:
            raise InputError(
                f"{_FLAG}={name} needs the package {name}: pip install 'albert-jax[{name}]'"
            )
        _find_class(name)


def make_trackers(names: Iterable[str]) -> dict[str, Tracker]:
    """Return the trackers of these names, not started yet.

    Raises:
        InputError: see `check_trackers`.
    """
    return {name: _find_class(name)() for name in names}


def start_trackers(log: "RunLog", names: Iterable[str], config: Any, workdir: epath.Path) -> None:
    """Start the trackers of a run, on the process that writes.

    Args:
        log: the run's log.
        names: names of the trackers.
        config: the dataclass of the run's settings.
        workdir: the run's directory.

    Raises:
        InputError: a tracker cannot be started; all processes raise it.
    """
    from albert_jax.training.first_process import on_first_process  # settings need no JAX

    values = flatten(to_dict(config))
    settings = {n: v if isinstance(v, Value) else str(v) for n, v in values.items()}
    failure = InputError(f"process 0 cannot track {workdir}; its message says why")
    trackers = make_trackers(names)
    on_first_process(lambda: log.track(trackers, settings), failure)


def _allowed() -> str:
    return f"{', '.join(TrackerName)} or module:Class, separated by commas, or none"


def _find_class(name: str) -> type[Tracker]:
    place = _CLASSES[TrackerName(name)] if name in list(TrackerName) else name
    module_name, _, class_name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{_FLAG}={name}: there is no module {error.name} (PYTHONPATH?)"
        ) from error
    cls = getattr(module, class_name, None)
    if not isinstance(cls, type):
        close = did_you_mean(
            class_name, [n for n, v in vars(module).items() if isinstance(v, type)]
        )
        raise InputError(f"{_FLAG}={name}: {module_name} has no class {class_name}{close}")
    missing = [part for part in _PARTS if not hasattr(cls, part)]
    if missing:
        raise InputError(f"{_FLAG}={name} lacks {', '.join(missing)}: see docs/extending.md")
    return cls


_PARTS = ("rewinds", "start", "log_metrics", "log_picture", "end")
