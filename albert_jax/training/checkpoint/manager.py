"""Checkpoints: written by Orbax in the background, with checksums that are verified on opening."""

import contextlib
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import Array, PyTree

from albert_jax.training.checkpoint.integrity import CheckpointError, write_manifest
from albert_jax.training.checkpoint.orbax_failures import (
    barrier_of_threads,
    quiet_orbax,
    storage_failure,
)
from albert_jax.training.checkpoint.selection import absolute, mark_best, quarantine_damaged
from albert_jax.training.first_process import on_first_process

DELETED = "deleted"
STATE = "state"  # the item of a checkpoint that every run has

_log = logging.getLogger(__name__)


class NonFiniteStateError(CheckpointError):
    """The step to be saved has a loss or gradients that are not finite; nothing was written."""


class Checkpoints:
    """The checkpoints of one run: an Orbax manager that restores intact checkpoints only.

    Orbax commits a checkpoint by renaming its directory (or, on an object store, by writing a last
    file). Just before that, a manifest with the step and the SHA-256 of every file is written into
    it. So a checkpoint either has a manifest or does not exist, whenever the process is killed.
    Opening verifies the newest checkpoint in full. Damaged ones are moved to ``damaged/`` and the
    newest intact one is used; if all are damaged, an error is raised and nothing is moved.

    All processes of a run share the directory, and must open, save and close together.

    Attributes:
        manager: the `orbax.checkpoint.CheckpointManager` (`latest_step`, `best_step`, `all_steps`).
    """

    def __init__(
        self,
        directory: epath.PathLike,
        *,
        keep: int,
        best_metric: str = "masked_lm_accuracy",
        documents: Mapping[str, Any] | None = None,
    ) -> None:
        """Open or create the directory.

        Args:
            directory: ``<workdir>/checkpoints``, local or remote.
            keep: number of newest checkpoints to keep, in addition to the best one.
            best_metric: the metric, among those given to `save`, that is highest for the best one.
            documents: JSON items to store in each checkpoint, by name (``albert_config``).

        Raises:
            CheckpointError: there are checkpoints, and every one of them is damaged.
        """
        self.directory = absolute(directory)
        self._best_metric = best_metric
        self._documents = dict(documents or {})
        self._step_being_saved: int | None = None
        on_first_process(
            lambda: quarantine_damaged(self.directory),
            CheckpointError("process 0 rejects the checkpoints; its message says why"),
        )

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
                # Rename before deleting: otherwise an interrupted deletion would look like damage.
                todelete_subdir=DELETED,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._write_manifest,
                    barrier_sync_fn=barrier_of_threads(),
                ),
            ),
        )
        self._quiet = contextlib.ExitStack()
        self._quiet.enter_context(quiet_orbax())  # until `close`
        self._clean_up()

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        finite: Array | bool,
        metrics: Mapping[str, float] | None = None,
        further: Mapping[str, PyTree] | None = None,
    ) -> None:
        """Copy the state off the devices and return; it is written in the background.

        Args:
            step: the number of steps taken.
            state: a pytree of arrays, sharded in any way.
            finite: True if the loss and the gradients that led to this very state were finite.
                Reading it waits for the step, unlike metrics, which are fetched one step late.
            metrics: held-out metrics of this state; they decide which checkpoint is the best.
            further: pytrees that some runs have, by name; each is a separate item.

        Raises:
            NonFiniteStateError: `finite` is false.
            CheckpointError: this save, or the one before it, could not be written, or the step
                exists already.
        """
        self.wait_until_finished()
        if not bool(jax.device_get(finite)):
            raise NonFiniteStateError(
                f"step {step} has a loss or gradients that are not finite and was not saved; "
                f"{self._last_saved()}"
            )
        if step in self.manager.all_steps():
            raise CheckpointError(
                f"cannot save step {step} under {self.directory}: there is one already, which this "
                "run has not written; move it away"
            )
        self._step_being_saved = step
        trees = {STATE: state, **(further or {})}
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        items |= {name: ocp.args.JsonSave(item) for name, item in self._documents.items()}
        ranked = metrics if metrics and self._best_metric in metrics else None
        try:
            self.manager.save(
                step,
                args=ocp.args.Composite(**items),
                metrics=None if ranked is None else {k: float(v) for k, v in ranked.items()},
                force=True,
            )
        except (OSError, ValueError) as error:
            if storage_failure(error) is None:
                raise
            raise self._write_error(error) from error

    def restore(self, abstract: PyTree, *, item: str = STATE) -> PyTree | None:
        """Restore the newest checkpoint; return None if there is none yet, or if it lacks the item.

        Args:
            abstract: the item as a tree of `jax.ShapeDtypeStruct` with the shardings to restore to,
                which may differ from those at the time of saving.
            item: the state, or the name of a further pytree.

        Raises:
            ValueError: the checkpoint has other names or shapes.
        """
        step = self.manager.latest_step()
        if step is None:
            return None
        if item != STATE and not (self.directory / str(step) / item).exists():
            return None
        restored = self.manager.restore(
            step, args=ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
        )
        return restored[item]

    def check(self) -> None:
        """Raise the error of the background save if it has failed; do not wait for it.

        Raises:
            CheckpointError: it could not be written.
        """
        if not self.manager.is_saving_in_progress():
            self.wait_until_finished()

    def wait_until_finished(self) -> None:
        """Wait until the save in progress is on disk.

        Raises:
            CheckpointError: it could not be written.
        """
        try:
            self.manager.wait_until_finished()
        except Exception as error:
            raise self._write_error(error) from error
        self._clean_up()

    def describe_newest(self, kind: str = "") -> str:
        """Return a description of the newest checkpoint, after waiting for the save in progress.

        Args:
            kind: an adjective and a space, such as ``"good "``.
        """
        self.wait_until_finished()
        step = self.manager.latest_step()
        return "nothing was saved" if step is None else f"the last {kind}checkpoint is step {step}"

    def close(self) -> None:
        """Wait for the save in progress and stop Orbax's threads."""
        try:
            self.wait_until_finished()
        finally:
            self.manager.close()
            self._quiet.close()

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
        except (CheckpointError, OSError) as second:
            if error is None:
                raise
            _log.warning("%s", second)  # the error that ended the run is the one to raise

    def _write_manifest(self) -> None:
        """Write the manifest. Orbax calls this on the first process when all files are written."""
        assert self._step_being_saved is not None
        name = str(self._step_being_saved)
        uncommitted = self.directory / (name + ocp.path.atomicity.TMP_DIR_SUFFIX)
        checkpoint = uncommitted if uncommitted.exists() else self.directory / name
        write_manifest(checkpoint, self._step_being_saved)

    def _clean_up(self) -> None:
        if jax.process_index() != 0:
            return
        (self.directory / DELETED).rmtree(missing_ok=True)
        mark_best(self.directory, self.manager.best_step())

    def _last_saved(self) -> str:
        step = self.manager.latest_step()
        return "no step was saved before" if step is None else f"the last good one is step {step}"

    def _write_error(self, error: Exception) -> CheckpointError:
        reason = storage_failure(error) or " ".join(f"{type(error).__name__}: {error}".split())
        return CheckpointError(
            f"cannot save step {self._step_being_saved} under {self.directory}: {reason}; "
            f"{self._last_saved()}"
        )
