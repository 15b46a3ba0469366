"""A training run of any kind, from its newest checkpoint to its exit status."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.devices.flops import mesh_peak_flops
from albert_jax.devices.prefetch import BatchQueue
from albert_jax.devices.sharding import place_batch
from albert_jax.pretrained import PretrainedModel
from albert_jax.training.checkpoint import Checkpoints, NonFiniteStateError
from albert_jax.training.determinism import CheckedStep, DeterminismError
from albert_jax.training.loop import Intervals, NonFiniteStepError, train
from albert_jax.training.objective import Objective
from albert_jax.training.optimizer import evaluated_parameters, make_optimizer
from albert_jax.training.parallel import TrainStep
from albert_jax.training.schedule import make_schedule
from albert_jax.training.train_step import TrainState
from albert_jax.training.trust_ratio import trust_ratios
from experiments.cli.exit_codes import ExitCode
from experiments.goodput.clock import Activity, stop_clock, this_clock
from experiments.goodput.host_times import HostTimes
from experiments.goodput.ledger import Ledger
from experiments.goodput.profiling import Profiler
from experiments.hosts import Watchdog, agree
from experiments.metrics.curves import CURVES_FILE
from experiments.metrics.metrics_file import read_metrics
from experiments.metrics.run_log import RunLog
from experiments.metrics.trackers.selection import start_trackers
from experiments.pages.run_page import draw_run
from experiments.pages.samples import write_samples
from experiments.run.compiled_steps import CompiledSteps, StepCompiler, format_costs
from experiments.run.execution import set_compilation_cache
from experiments.run.interfaces import DeviceTeacher, Evaluator, TrainingConfig, TrainingData
from experiments.run.states import HISTORY, RunStates
from experiments.run.stopping import EarlyStopping, Preemption
from experiments.run.workdir import Workdir


class Run:
    """A training run in its workdir: state, compiled step, loop.

    As a context manager, it holds the workdir's checkpoints, log and signal handler. Call its
    methods in this order::

        with Run(workdir, config, model, data, evaluator, mesh) as run:
            state = run.restore() or run.initialize()
            step = run.compile(objective, state)
            return run.train(state, step)

    It implements the training loop's `LoopHooks`.

    Args:
        workdir: where everything is written.
        config: optimizer, run settings, batch size and seed.
        model: the model to train.
        data: its batches.
        evaluator: its held-out evaluation.
        mesh: the devices.
        teacher: predicts the tokens of every batch before its step; None: none on the devices.
        patience: evaluations without an improvement after which the run ends early; None: it
            never ends early.
        rate_factors: factors of the learning rate, by prefix of a parameter's name.

    Raises:
        CheckpointError: the workdir's checkpoints are all damaged.
    """

    def __init__(
        self,
        workdir: Workdir,
        config: TrainingConfig,
        model: PretrainedModel,
        data: TrainingData,
        evaluator: Evaluator,
        mesh: Mesh,
        *,
        teacher: DeviceTeacher | None = None,
        patience: int | None = None,
        rate_factors: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self._workdir, self._config, self._model = workdir, config, model
        self._data, self._evaluator, self._mesh = data, evaluator, mesh
        self._teacher = teacher
        batch = config.global_batch_size
        self._optimizer = make_optimizer(
            config.optimizer, global_batch_size=batch, rate_factors=rate_factors
        )
        self._learning_rate = make_schedule(config.optimizer, global_batch_size=batch)
        self._key = jax.random.key(config.seed)
        self._states = RunStates(
            model.initialize, self._optimizer, self._key, mesh, keep_history=config.run.skips_steps
        )
        self._num_steps, self._patience = config.optimizer.num_train_steps, patience
        self._watchdog, self._clock = Watchdog(config.run.hang_seconds), this_clock()
        self._exits = contextlib.ExitStack()
        self._is_writer = jax.process_index() == 0
        self._host_times = HostTimes(self.say)
        self._profiler = Profiler(config.run, workdir.path, self.say)

    def __enter__(self) -> "Run":
        path, run = self._workdir.path, self._config.run
        set_compilation_cache(run, path)
        with contextlib.ExitStack() as exits:
            self._ledger = exits.enter_context(Ledger(path, self._clock, enabled=self._is_writer))
            self._checkpoints = exits.enter_context(
                Checkpoints(
                    self._workdir.checkpoints,
                    keep=run.keep_checkpoints,
                    best_metric=self._evaluator.best_metric,
                    documents={"albert_config": self._model.config.to_dict()},
                )
            )
            first_step = self._checkpoints.manager.latest_step() or 0
            agree("checkpoints", {f"the newest checkpoint under {path}": str(first_step)})
            self._log = exits.enter_context(
                RunLog(
                    path,
                    first_step=first_step,
                    num_steps=self._num_steps,
                    work_of_step=self._data.work_of_step,
                    peak_flops=mesh_peak_flops(self._mesh),
                    enabled=self._is_writer,
                )
            )
            if first_step < self._num_steps:
                start_trackers(self._log, run.tracker_names, self._config, path)
            self._preemption = exits.enter_context(Preemption())
            self._early_stopping = EarlyStopping(
                self._evaluator.best_metric,
                self._patience,
                past=[entry for entry in read_metrics(path) if entry["step"] <= first_step],
            )
            if not self._is_complete(first_step):
                self._ledger.begin(first_step)
            self._log.say(f"{path}: at step {first_step:,} of {self._num_steps:,}")
            for name, (before, after) in self._workdir.changes.items():
                self._log.say(f"changed since the last start: {name} from {before!r} to {after!r}")
            self._exits = exits.pop_all()
        self._clock.switch(Activity.OTHER)
        return self

    def __exit__(self, *error: Any) -> None:
        self._clock.switch(Activity.SAVING)
        self._exits.__exit__(*error)
        stop_clock()

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        self._log.say(text)

    def restore(self) -> TrainState | None:
        """Return the state of the newest checkpoint, or None if there is none yet."""
        with self._clock.during(Activity.RESTORING):
            return self._states.restore(self._checkpoints)

    def initialize(self, initial_parameters: Callable[[], PyTree] | None = None) -> TrainState:
        """Return the state of step 0.

        Args:
            initial_parameters: reads the parameters to start from; None: random ones.

        Raises:
            InputError: the stored parameters do not fit the model.
        """
        with self._clock.during(Activity.RESTORING):
            return self._states.initialize(initial_parameters)

    def compile(self, objective: Objective, state: TrainState) -> CompiledSteps:
        """Return the training step, which is compiled once for each shape of batches."""
        compiler = StepCompiler(
            self._config.run,
            objective,
            self._optimizer,
            state,
            self._mesh,
            say=self.say,
            compiling=functools.partial(self._during, Activity.COMPILING),
            teacher=self._teacher,
        )
        self._predict = compiler.teacher()
        self._fingerprints = compiler.fingerprints()
        steps_to_go = self._num_steps - int(state.step)
        return compiler.train_step(
            functools.partial(format_costs, state.params, self._data, steps_to_go, self._mesh)
        )

    def train(self, state: TrainState, step: CompiledSteps) -> ExitCode:
        """Train up to the last step, or until early stopping or SIGTERM ends the run.

        Returns:
            `DONE`, also if the run ended early, or `PREEMPTED`.

        Raises:
            CheckpointError: a checkpoint cannot be written.
            NonFiniteStateError: too many steps in a row were not finite.
            DeterminismError: a step that was computed twice gave different results.
        """
        if not (had_ended := self._is_complete(int(state.step))):
            state = self._train(state, step)
        with self._clock.during(Activity.SAVING):
            self._checkpoints.wait_until_finished()
        done = int(state.step)
        if not (is_complete := self._is_complete(done)):
            self.say(f"stopped and saved at step {done}; the same command resumes the run")
        elif done < self._num_steps:
            self.say(f"ended early at step {done}: {self._early_stopping.format()}")
        if is_complete and not had_ended:
            self._ledger.complete()
            self._finish(state)
        if not had_ended:
            self.say(self._ledger.summarize().format())
        return ExitCode.DONE if is_complete else ExitCode.PREEMPTED

    # The hooks of the loop.

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Return held-out metrics; log the optimizer's trust ratios beside them."""
        if ratios := jax.device_get(trust_ratios(state.opt_state)):
            means = {f"trust_ratio/{name}": float(np.mean(ratio)) for name, ratio in ratios.items()}
            self.report(int(state.step), "optimizer", means)
        with self._during(Activity.EVALUATING):
            params = evaluated_parameters(state.params, state.opt_state)
            metrics = self._evaluator.evaluate(params)
        self._early_stopping.add(metrics)
        return metrics

    def should_stop_early(self) -> bool:
        """Return True if the evaluations have stalled."""
        return self._early_stopping.stalled()

    def save(self, step: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Save a checkpoint in the background."""
        self._workdir.check_lock()
        with self._during(Activity.SAVING):
            self._checkpoints.save(
                step,
                state.without_history(),
                finite=True,  # otherwise the loop would have ended
                metrics=metrics,
                further={} if state.history is None else {HISTORY: state.history},
            )
        self._ledger.save(step)

    def report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Log the metrics of a split and update the plot."""
        with self._clock.during(Activity.LOGGING):
            if split == "train":
                self._checkpoints.check()  # report a full disk now, not when the next save is due
                metrics["learning_rate"] = float(self._learning_rate(step - 1))
                metrics |= self._host_times.exchange(step, metrics)
            self._log.report(step, split, metrics)
            if split == "validation" and self._is_writer:
                self._ledger.write()
                self._log.report(step, "goodput", self._ledger.summarize().metrics())
                draw_run(self._workdir.path, step, self._evaluator.panels)

    def advance(self, step: int) -> None:
        """Advance the watchdog, the ledger, the profiler and the progress bar."""
        self._watchdog.advance()
        self._ledger.advance(step, self._queue.stalled_seconds)
        self._profiler.advance(step)
        self._log.advance(step)

    def should_stop(self, step: int) -> bool:
        """Return True if SIGTERM asked the run to stop, unless a deciding evaluation is due."""
        due = self._evaluator.decides and step % self._config.run.evaluate_every == 0
        return self._preemption.reached() and not due

    def _finish(self, state: TrainState) -> None:
        """Write samples of the trained model, and track the curves."""
        path, step = self._workdir.path, int(state.step)
        with self._clock.during(Activity.EVALUATING):
            params = evaluated_parameters(state.params, state.opt_state)
            samples = self._evaluator.samples(params)
        with self._clock.during(Activity.LOGGING):
            if samples and self._is_writer:
                write_samples(path, step, samples)
                draw_run(path, step, self._evaluator.panels)
            self._log.complete(step, path / CURVES_FILE)

    @contextlib.contextmanager
    def _during(self, activity: Activity) -> Iterator[None]:
        """Tell the watchdog and the clock which activity a block is."""
        with self._watchdog.during(activity), self._clock.during(activity):
            yield

    def _is_complete(self, step: int) -> bool:
        return step >= self._num_steps or self._early_stopping.stalled()

    def _train(self, state: TrainState, step: CompiledSteps) -> TrainState:
        run, first_step = self._config.run, int(state.step)
        self._ledger.resume_at(first_step)
        try:
            with (
                self._watchdog,
                self._profiler,
                self._clock.during(Activity.STEPPING),
                contextlib.closing(self._data.batches(first_step)) as batches,
            ):
                with self._clock.during(Activity.WAITING_FOR_DATA):
                    queue = BatchQueue(batches, self._place)
                queue.settle(idle=False)  # this wait is counted already
                self._queue = queue
                step.prepare(state, queue.next, self._key)
                self._profiler.advance(first_step)
                return train(
                    state,
                    self._checked(step, first_step),
                    queue,
                    self._key,
                    num_steps=self._num_steps,
                    intervals=Intervals(run.log_every, run.evaluate_every, run.checkpoint_every),
                    hooks=self,
                    skip_nonfinite=run.skip_nonfinite_steps,
                )
        except NonFiniteStepError as error:
            saved = self._checkpoints.describe_newest("good ")
            raise NonFiniteStateError(f"{error}; {saved}") from error
        except DeterminismError as error:
            saved = self._checkpoints.describe_newest()
            raise DeterminismError(f"{error}; {saved}", error.devices) from error

    def _place(self, batch: Any) -> Any:
        """Put a batch on the devices, with the teacher's predictions if a teacher runs there."""
        placed = place_batch(batch, self._mesh)
        if self._teacher is None or self._predict is None:
            return placed
        return placed._replace(teacher=self._predict(self._teacher.params, placed))

    def _checked(self, step: CompiledSteps, first_step: int) -> TrainStep:
        """Return the step; every `check_determinism_every` steps, if set, it is computed twice."""
        every = self._config.run.check_determinism_every
        if every is None:
            return step
        return CheckedStep(step, self._fingerprints, self._mesh, every=every, step=first_step)
