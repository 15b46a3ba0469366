"""Selection of a checkpoint: the newest intact one, the best one, or one by its step."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import fsspec
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree

from albert_jax.durable_files import write_atomically
from albert_jax.input_files import is_remote
from albert_jax.training.checkpoint.integrity import CheckpointError, find_damage
from albert_jax.training.checkpoint.stored_state import AVERAGE, SCHEDULE_FREE, read_parts

BEST = "best"  # a file that holds the step of the best checkpoint
DAMAGED = "damaged"  # a directory of checkpoints that were moved aside

_log = logging.getLogger(__name__)


def committed_steps(directory: epath.Path) -> list[int]:
    """List the steps of the checkpoints that Orbax committed, oldest first."""
    if not directory.exists():
        return []
    return sorted(found.step for found in ocp.path.step.standard_name_format().find_all(directory))


def quarantine_damaged(directory: epath.Path) -> None:
    """Move damaged checkpoints to ``damaged/``, so that the newest one left is intact.

    Raises:
        CheckpointError: there are checkpoints and all are damaged; none was moved.
    """
    newest, damages = _inspect(directory)
    if damages and newest is None:
        raise _all_damaged(directory, damages)
    for step, damage in damages.items():
        aside = _place_for_damaged(directory) / str(step)
        _log.warning(
            "checkpoint %d is damaged (%s): moved to %s, step %d is used",
            *(step, damage, aside, newest),
        )
        aside.rmtree(missing_ok=True)
        _move(directory / str(step), aside)


def _place_for_damaged(directory: epath.Path) -> epath.Path:
    """Return ``damaged/``; on a store it is beside `directory`, as Orbax would delete it inside."""
    return (directory.parent if is_remote(directory) else directory) / DAMAGED


def newest_step(directory: epath.Path) -> int:
    """Return the step of the newest checkpoint that is intact; nothing is moved.

    Raises:
        CheckpointError: there is none.
    """
    newest, damages = _inspect(directory)
    if newest is None:
        if damages:
            raise _all_damaged(directory, damages)
        raise CheckpointError(f"there is no checkpoint under {directory}")
    for skipped, damage in damages.items():
        _log.warning("checkpoint %d is damaged (%s): step %d is used", skipped, damage, newest)
    return newest


def read_best(directory: epath.Path) -> int | None:
    """Return the step that is marked as the best; None if no evaluation has marked one.

    Raises:
        CheckpointError: the mark cannot be read.
    """
    path = directory / BEST
    if not path.exists():
        return None
    try:
        text = path.read_bytes().decode("ascii").removesuffix("\n")
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text.isdigit() or len(text) > 18:
        raise CheckpointError(
            f"{path} is damaged: it must hold the step of the best checkpoint; name a step, or "
            "start the run's command again, which writes it anew"
        )
    return int(text)


def mark_best(directory: epath.Path, step: int | None) -> None:
    """Mark a step as the best one; None removes the mark. Warn if a damaged mark is replaced."""
    path = directory / BEST
    try:
        marked = read_best(directory)
    except CheckpointError as error:
        written = "removed" if step is None else f"written anew: step {step}"
        _log.warning("%s (%s)", str(error).partition("; ")[0], written)
        marked = -1
    if marked == step:
        return
    if step is None:
        path.unlink()
    elif is_remote(path):  # object stores replace a file as a whole
        path.write_text(f"{step}\n")
    else:
        write_atomically(Path(path), f"{step}\n")


def resolve_step(directory: epath.Path, step: int | None) -> int:
    """Return the step of the checkpoint to use: `step` if given, or the best one.

    If no evaluation has marked a checkpoint as the best, it is the newest intact one.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    if step is None:
        step = read_best(directory)
        if step is None:
            return newest_step(directory)
    steps = committed_steps(directory)
    if not steps:
        raise CheckpointError(f"there is no checkpoint under {directory}")
    if step not in steps:
        raise CheckpointError(f"there is no step {step} under {directory}, but {steps}")
    if damage := find_damage(directory / str(step)):
        raise CheckpointError(f"checkpoint {step} under {directory} is damaged: {damage}")
    return step


def restore_params(
    directory: epath.PathLike, step: int | None = None, *, average: bool = True
) -> PyTree:
    """Restore only the parameters, as host arrays, whatever devices and optimizer saved them.

    Args:
        directory: ``<workdir>/checkpoints``.
        step: step of the checkpoint; None for the newest intact one.
        average: if the run kept a mean of the parameters, return that, which the run evaluates.

    Returns:
        Nested dict of `numpy.ndarray`.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    directory = absolute(directory)
    step = newest_step(directory) if step is None else resolve_step(directory, step)
    means = [[AVERAGE], SCHEDULE_FREE] if average else []
    parts = read_parts(directory / str(step), *means, ["params"])
    if not parts:
        raise CheckpointError(f"checkpoint {step} under {directory} holds no parameters")
    return parts[AVERAGE] if AVERAGE in parts else _mean_of_schedule_free(parts)


def _mean_of_schedule_free(parts: Mapping[str, PyTree]) -> PyTree:
    """Return the mean that schedule-free steps keep; without such steps, the parameters."""
    params = parts["params"]
    if len(parts) == 1:
        return params
    from optax.contrib import schedule_free_eval_params  # reading most runs needs no optax

    return schedule_free_eval_params(SimpleNamespace(**parts), params)


def absolute(directory: epath.PathLike) -> epath.Path:
    """Make a local path absolute: Orbax does not write under a relative one."""
    path = epath.Path(directory)
    return path if is_remote(path) else path.absolute()


def _move(source: epath.Path, target: epath.Path) -> None:
    """Move a directory; on a store, which has none, copy its files and delete the originals."""
    if is_remote(source):
        store, _ = fsspec.url_to_fs(str(source))
        store.copy(str(source), str(target), recursive=True)
        source.rmtree()
    else:
        target.parent.mkdir(exist_ok=True)
        source.rename(target)


def _inspect(directory: epath.Path) -> tuple[int | None, dict[int, str]]:
    """Return the newest intact checkpoint, and the damage of others by step.

    Older checkpoints are checked too, since Orbax opens them all, but large files only for length.
    """
    newest, damages = None, {}
    for step in reversed(committed_steps(directory)):
        damage = find_damage(directory / str(step), read_all=newest is None)
        if damage:
            damages[step] = damage
        elif newest is None:
            newest = step
    return newest, damages


def _all_damaged(directory: epath.Path, damages: Mapping[int, str]) -> CheckpointError:
    listed = ", ".join(f"step {step} ({damage})" for step, damage in damages.items())
    return CheckpointError(
        f"every checkpoint under {directory} is damaged: {listed}; nothing was changed there: "
        "restore an intact copy, or start in another workdir"
    )
