"""A training run from its workdir to its exit status, whatever is trained.

Pre-training and fine-tuning differ in what they hand over: parameters, loss, batches, evaluation.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.config import AlbertConfig
from albert_jax.training.checkpoint import Checkpoints, NonFiniteStateError
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.flops import mesh_peak_flops
from albert_jax.training.loop import BatchQueue, Intervals, NonFiniteStepError, train
from albert_jax.training.losses import LossFn, WeightFn
from albert_jax.training.optimizer import make_optimizer, make_schedule, trust_ratios
from albert_jax.training.parallel import (
    compile_train_step,
    initialize_state,
    place_batch,
    state_shardings,
)
from albert_jax.training.train_step import TrainState, create_train_state
from experiments.cli.exit_codes import ExitCode
from experiments.run.compiled_steps import CompiledSteps, micro_batch_counts
from experiments.run.config import TrainingRunConfig
from experiments.run.curves import CURVES_FILE, Panel, plot_curves
from experiments.run.device_memory import activations_of, memory_limit, memory_of
from experiments.run.early_stopping import EarlyStopping
from experiments.run.metrics_log import RunLog, StepWork, read_metrics
from experiments.run.preemption import Preemption
from experiments.run.workdir import Workdir


class Training(NamedTuple):
    """What is trained, opened and found to fit together."""

    model: AlbertConfig
    optimizer: OptimizerConfig
    run: TrainingRunConfig
    seed: int  # of parameters and dropout
    mesh: Mesh
    initialize: Callable[[Array], PyTree]  # key to fresh parameters
    # Shapes to the parameters that a new run starts from, instead of fresh ones.
    warm_start: Callable[[PyTree], PyTree] | None
    loss_fn: LossFn
    weight_fn: WeightFn
    batches: Callable[[int], Iterator[Any]]  # from a step on, this process's rows, on the host
    num_shapes: int  # that batches may have; the step is compiled for each
    rows_per_step: int  # of the global batch
    flops_per_step: float  # of a batch's products, forward and backward, on average
    evaluate: Callable[[PyTree], dict[str, float]]  # parameters to held-out figures
    best_metric: str  # the figure whose highest value marks the best checkpoint
    panels: Sequence[Panel]  # what is drawn
    notes: Sequence[str] = ()  # lines for people, said at the start
    # A step, counted from 0, to its rows and operations, where steps are not alike.
    work_of_step: Callable[[int], StepWork] | None = None
    patience: int | None = None  # evaluations without a better one that end a run early
    # A stop waits for an evaluation that is due: when evaluations decide about a run, an
    # interrupted one must have them all.
    evaluates_before_stopping: bool = False

    @property
    def peak_flops(self) -> float | None:
        """The peak of all devices together, if it is known."""
        return mesh_peak_flops(self.mesh)


def run_training(training: Training, workdir: Workdir) -> ExitCode:
    """Trains up to the last step, from the workdir's newest checkpoint if there is any.

    Returns:
        `DONE`, also if the run ended early for want of progress, or `PREEMPTED`.

    Raises:
        InputError: what the run shall start from does not fit.
        CheckpointError: checkpoints are damaged or cannot be written.
        NonFiniteStateError: a step was not finite.
    """
    run, last_step = training.run, training.optimizer.num_train_steps
    cache = run.compile_cache_dir or str(workdir.path / "compile_cache")
    jax.config.update("jax_compilation_cache_dir", cache)
    with Checkpoints(
        workdir.checkpoints,
        keep=run.keep_checkpoints,
        best_metric=training.best_metric,
        documents={"albert_config": training.model.to_dict()},
    ) as checkpoints:
        state = restore_or_initialize(training, checkpoints)
        alike = StepWork(training.rows_per_step, training.flops_per_step)
        log = RunLog(
            workdir.path,
            first_step=int(state.step),
            num_steps=last_step,
            work_of_step=training.work_of_step or (lambda _: alike),
            peak_flops=training.peak_flops,
            enabled=jax.process_index() == 0,
        )
        progress = EarlyStopping(
            training.best_metric,
            training.patience,
            past=[e for e in read_metrics(workdir.path) if e["step"] <= int(state.step)],
        )
        with log, Preemption() as preemption:
            log.say(f"{workdir.path}: at step {int(state.step)} of {last_step}")
            for note in training.notes:
                log.say(note)
            for name, (before, after) in workdir.changes.items():
                log.say(f"changed since the last start: {name} from {before!r} to {after!r}")
            if int(state.step) < last_step and not progress.stalled():
                state = _train(training, state, workdir, checkpoints, log, progress, preemption)
            checkpoints.wait_until_finished()
            if int(state.step) < last_step and not progress.stalled():
                log.say(f"stopped and saved at step {int(state.step)}; the same command goes on")
                return ExitCode.PREEMPTED
            if int(state.step) < last_step:
                log.say(f"ended early at step {int(state.step)}: {progress.describe()}")
    return ExitCode.DONE


def restore_or_initialize(training: Training, checkpoints: Checkpoints) -> TrainState:
    """The newest checkpoint's state; without one, a fresh one or that of `warm_start`."""
    mesh, key = training.mesh, jax.random.key(training.seed)
    optimizer = make_optimizer(training.optimizer, global_batch_size=training.rows_per_step)
    shapes = jax.eval_shape(
        lambda key: create_train_state(training.initialize(key), optimizer), key
    )
    shardings = state_shardings(shapes, mesh)
    wanted = jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
    state = checkpoints.restore(wanted)
    if state is not None:
        return state
    if training.warm_start is None:
        return initialize_state(training.initialize, optimizer, key, mesh)
    params = training.warm_start(shapes.params)
    create = functools.partial(create_train_state, optimizer=optimizer)
    return jax.jit(create, out_shardings=shardings)(params)


class _Hooks:
    """What the loop asks of a run, see `LoopHooks`."""

    def __init__(
        self,
        training: Training,
        workdir: Workdir,
        checkpoints: Checkpoints,
        log: RunLog,
        progress: EarlyStopping,
        preemption: Preemption,
    ) -> None:
        self._training = training
        self._workdir = workdir
        self._checkpoints = checkpoints
        self._preemption = preemption
        self._progress = progress
        self._log = log
        self._learning_rate = make_schedule(
            training.optimizer, global_batch_size=training.rows_per_step
        )
        self.advance = log.advance
        self.should_stop_early = progress.stalled

    def evaluate(self, state: TrainState) -> dict[str, float]:
        if ratios := jax.device_get(trust_ratios(state.opt_state)):
            means = {f"trust_ratio/{name}": float(np.mean(ratio)) for name, ratio in ratios.items()}
            self.report(int(state.step), "optimizer", means)
        metrics = self._training.evaluate(state.params)
        self._progress.add(metrics)
        return metrics

    def report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        if split == "train":
            self._checkpoints.check()  # a full disk is told at once, not when the next save is due
            metrics["learning_rate"] = float(self._learning_rate(step - 1))
        self._log.report(step, split, metrics)
        if split == "validation" and jax.process_index() == 0:
            workdir = self._workdir.path
            title, path = f"{workdir.name}, step {step}", workdir / CURVES_FILE
            plot_curves(read_metrics(workdir), path, self._training.panels, title=title)

    def save(
        self, step: int, state: TrainState, finite: Array, metrics: dict[str, float] | None
    ) -> None:
        self._checkpoints.save(step, state, finite=finite, metrics=metrics)

    def should_stop(self, step: int) -> bool:
        training = self._training
        due = training.evaluates_before_stopping and step % training.run.evaluate_every == 0
        return self._preemption.reached(step) and not due


def _train(
    training: Training,
    state: TrainState,
    workdir: Workdir,
    checkpoints: Checkpoints,
    log: RunLog,
    progress: EarlyStopping,
    preemption: Preemption,
) -> TrainState:
    run, key = training.run, jax.random.key(training.seed)
    queue = BatchQueue(
        training.batches(int(state.step)), lambda batch: place_batch(batch, training.mesh)
    )
    holders = training.mesh.shape["data"] * training.mesh.shape["fsdp"]

    def step_of(accumulation_steps: int) -> jax.stages.Wrapped:
        return compile_train_step(
            training.loss_fn,
            make_optimizer(training.optimizer, global_batch_size=training.rows_per_step),
            state,
            training.mesh,
            weight_fn=training.weight_fn,
            accumulation_steps=accumulation_steps,
            parallelism=run.parallelism,
            reduction_dtype=run.reduction_dtype,
        )

    def counts(rows: int) -> list[int]:
        return (
            [run.accumulation_steps]
            if run.accumulation_steps
            else micro_batch_counts(rows, holders)
        )

    train_step = CompiledSteps(
        step_of,
        counts,
        memory_limit(jax.local_devices()[0]),
        log.say,
        functools.partial(_costs, training, state),
    )
    train_step.prepare(state, queue.next, key)
    hooks = _Hooks(training, workdir, checkpoints, log, progress, preemption)
    try:
        return train(
            state,
            train_step,
            queue,
            key,
            num_steps=training.optimizer.num_train_steps,
            intervals=Intervals(run.log_every, run.evaluate_every, run.checkpoint_every),
            hooks=hooks,
        )
    except NonFiniteStepError as error:
        checkpoints.wait_until_finished()
        saved = checkpoints.manager.latest_step()
        kept = "nothing was saved" if saved is None else f"the last good checkpoint is step {saved}"
        raise NonFiniteStateError(f"{error}; {kept}") from error


def _costs(training: Training, state: TrainState, compiled: jax.stages.Compiled) -> str:
    """What a run from a state on will cost, by the step for its first batch."""
    used = "memory not known"
    if (needed := memory_of(compiled)) is not None:
        passing = (activations_of(compiled) or 0) / 2**30
        used = f"{needed / 2**30:.2f} GiB a device ({passing:.2f} of it for activations)"
    if limit := memory_limit(jax.local_devices()[0]):
        used += f" of {limit / 2**30:.1f}"
    flops, steps = training.flops_per_step, training.optimizer.num_train_steps - int(state.step)
    eta = "time known after the first steps"
    if peak := training.peak_flops:
        eta = f"{steps * flops / peak / 3600:.1f} hours at peak, twice that at half of it"
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    shapes = f"{training.num_shapes} shapes of batches, " if training.num_shapes > 1 else ""
    return (
        f"{parameters:,} parameters, {flops / 1e9:,.1f} GFLOP a step, {used}, {shapes}"
        f"{steps} steps to go, {eta}"
    )
