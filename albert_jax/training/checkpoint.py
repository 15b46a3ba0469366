"""Checkpoints: saved by Orbax in the background, sealed with checksums, checked before use."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jaxtyping import Array, PyTree

from albert_jax.training.integrity import (
    BEST,
    CheckpointError,
    newest_step,
    quarantine_damaged,
    resolve_step,
    write_manifest,
)

DELETED = "deleted"

_log = logging.getLogger(__name__)


class NonFiniteStateError(CheckpointError):
    """The step to be saved had a loss or gradients that are not finite; nothing was written."""


class Checkpoints:
    """The checkpoints of one run: an Orbax manager that opens none but whole ones.

    Orbax commits a checkpoint by renaming its directory (or, on an object store, by a last file).
    Just before that a manifest with the SHA-256 of every file is put inside, so that a checkpoint
    exists with its manifest or not at all, whenever the process dies. Opening reads the newest
    checkpoint in full against its manifest. Damaged ones are moved to ``damaged/`` and the one
    before is used; when all are damaged, opening raises and leaves everything in its place.

    All processes of a run must open, save and close together. The directory is shared by them.

    Attributes:
        manager: the `orbax.checkpoint.CheckpointManager`, for all that needs no checking
            (`latest_step`, `best_step`, `all_steps`, `reached_preemption`).
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int,
        best_metric: str = "masked_lm_accuracy",
        documents: Mapping[str, Any] | None = None,
    ) -> None:
        """Opens or creates the directory.

        Args:
            directory: ``<workdir>/checkpoints``, local or remote.
            keep: how many of the newest checkpoints stay; the best one stays beside them.
            best_metric: the best has the highest value of this among the metrics given to `save`.
            documents: what a reader needs, as JSON, by item name (``albert_config``).

        Raises:
            CheckpointError: there are checkpoints, and every one of them is damaged.
        """
        self.directory = _absolute(directory)
        self._best_metric = best_metric
        self._documents = dict(documents or {})
        self._step_being_saved: int | None = None
        _on_first_process(lambda: quarantine_damaged(self.directory))

        def metric(metrics: Mapping[str, float]) -> float:
            return metrics[best_metric]

        policies = ocp.checkpoint_managers
        self.manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        policies.BestN(
                            get_metric_fn=metric, n=1, keep_checkpoints_without_metrics=False
                        ),
                    ]
                ),
                best_fn=metric,
                cleanup_tmp_directories=True,
                # Renamed, then deleted: else one whose deletion is cut short would look damaged.
                todelete_subdir=DELETED,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )
        self._tidy_up()

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        finite: Array | bool,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Copies the state off the devices and returns; the writing goes on in the background.

        A step that is already saved is not saved again.

        Args:
            step: the number of steps taken.
            state: a pytree of arrays, placed in any way.
            finite: whether the loss and the gradients that led to this very state were finite.
                Reading it waits for the step, which metrics that arrive late would not do.
            metrics: held-out figures of this state; they decide which checkpoint is the best.

        Raises:
            NonFiniteStateError: `finite` is false.
            CheckpointError: this save, or the one before it, could not be written.
        """
        self.wait_until_finished()
        if not bool(jax.device_get(finite)):
            raise NonFiniteStateError(
                f"step {step} has a loss or gradients that are not finite and was not saved; "
                f"{self._last_good()}"
            )
        if step in self.manager.all_steps():
            return
        self._step_being_saved = step
        items = {name: ocp.args.JsonSave(item) for name, item in self._documents.items()}
        ranked = metrics if metrics and self._best_metric in metrics else None
        try:
            self.manager.save(
                step,
                args=ocp.args.Composite(state=ocp.args.StandardSave(state), **items),
                metrics=None if ranked is None else {k: float(v) for k, v in ranked.items()},
                force=True,
            )
        except (OSError, ValueError) as error:
            if _storage_failure(error) is None:
                raise
            raise self._not_written(error) from error

    def restore(self, abstract_state: PyTree) -> PyTree | None:
        """The newest checkpoint, or None where there is none yet.

        Args:
            abstract_state: the state's structure, of `jax.ShapeDtypeStruct` with the shardings
                that the arrays shall have; they need not be those that they were saved with.

        Raises:
            ValueError: the checkpoint holds other names or shapes.
        """
        step = self.manager.latest_step()
        if step is None:
            return None
        restored = self.manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
        )
        return restored.state

    def check(self) -> None:
        """Looks, without waiting, whether the save in the background has failed.

        Raises:
            CheckpointError: it could not be written.
        """
        if not self.manager.is_saving_in_progress():
            self.wait_until_finished()

    def wait_until_finished(self) -> None:
        """Blocks until the save in progress is on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        try:
            self.manager.wait_until_finished()
        except Exception as error:
            raise self._not_written(error) from error
        self._tidy_up()

    def close(self) -> None:
        """Waits for the save in progress and lets go of Orbax's threads."""
        try:
            self.wait_until_finished()
        finally:
            self.manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except CheckpointError as second:
            if error is None:
                raise
            _log.error("%s", second)  # what ended the run comes first

    def _seal(self) -> None:
        """Called by Orbax on the first process, when every process has written all its files."""
        name = str(self._step_being_saved)
        being_written = self.directory / (name + ocp.path.atomicity.TMP_DIR_SUFFIX)
        write_manifest(being_written if being_written.exists() else self.directory / name)

    def _tidy_up(self) -> None:
        if jax.process_index() != 0:
            return
        (self.directory / DELETED).rmtree(missing_ok=True)
        best = self.manager.best_step()
        if best is None:
            return
        path = self.directory / BEST
        if not path.exists() or path.read_text() != f"{best}\n":
            path.write_text(f"{best}\n")

    def _last_good(self) -> str:
        step = self.manager.latest_step()
        return "no step was saved before" if step is None else f"the last good one is step {step}"

    def _not_written(self, error: Exception) -> CheckpointError:
        reason = _storage_failure(error) or " ".join(f"{type(error).__name__}: {error}".split())
        return CheckpointError(
            f"cannot save step {self._step_being_saved} under {self.directory}: {reason}; "
            f"{self._last_good()}"
        )


def restore_params(directory: epath.PathLike, step: int | None = None) -> PyTree:
    """The parameters alone, as host arrays, whatever they were trained on and with.

    Args:
        directory: ``<workdir>/checkpoints``.
        step: which checkpoint; None for the newest that is not damaged.

    Returns:
        Nested dict of `numpy.ndarray`.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    directory = _absolute(directory)
    step = newest_step(directory) if step is None else resolve_step(directory, step)
    state = directory / str(step) / "state"
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        stored = handler.metadata(state).tree["params"]
        wanted = {"params": jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), stored)}
        restored = checkpointer.restore(
            state,
            args=ocp.args.PyTreeRestore(
                wanted,
                restore_args=jax.tree.map(
                    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted
                ),
                partial_restore=True,
            ),
        )
    return restored["params"]


def _absolute(directory: epath.PathLike) -> epath.Path:
    """Orbax writes nothing under a relative path, and says so only in the background."""
    path = epath.Path(directory)
    return path if "://" in os.fspath(path) else path.absolute()


def _storage_failure(error: Exception) -> str | None:
    """What the system said, such as "No space left on device", if it was the system."""
    if isinstance(error, OSError):
        return str(error)
    code = re.search(r"os_error_code='(\d+)'", str(error))
    return os.strerror(int(code[1])) if code else None


class _SaidOnce(logging.Filter):
    """Drops what Orbax logs and this module raises or wants.

    A save that fails is logged with its traceback by each thread concerned, and raised too; a save
    without metrics is not worth a warning each time.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if f"{os.sep}orbax{os.sep}" not in record.pathname:
            return True
        return not record.exc_info and "tracked_metric" not in str(record.msg)


logging.getLogger("absl").addFilter(_SaidOnce())


def _on_first_process(action: Callable[[], None]) -> None:
    """Runs the action on one process while the others wait, and fails on all if it fails there."""
    error: CheckpointError | None = None
    if jax.process_index() == 0:
        try:
            action()
        except CheckpointError as refused:
            error = refused
    if jax.process_count() > 1:
        failed = multihost_utils.broadcast_one_to_all(np.int32(error is not None))
        if failed and error is None:
            error = CheckpointError("process 0 refuses the checkpoints; its message says why")
    if error is not None:
        raise error
