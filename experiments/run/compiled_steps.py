"""The training step for batches of several shapes, in micro-batches that fit the memory."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.devices.compile_cache import cache_counts
from albert_jax.devices.flops import mesh_peak_flops
from albert_jax.devices.memory import (
    bytes_on_device,
    exhausted_memory,
    format_memory,
    memory_limit,
    memory_of,
)
from albert_jax.encoder import Execution
from albert_jax.model import AlbertForPreTraining
from albert_jax.settings import FieldError
from albert_jax.tasks.pretraining import pretraining_objective
from albert_jax.tasks.replaced_tokens import AlbertForReplacedTokens, replaced_tokens_objective
from albert_jax.training.config import OptimizerName
from albert_jax.training.determinism import compile_step_fingerprints
from albert_jax.training.objective import Objective
from albert_jax.training.parallel import compile_train_step
from albert_jax.training.train_step import TrainState
from data_pipeline.errors import InputError
from experiments.run.compiler_options import compiler_options
from experiments.run.config import ExperimentConfig, TrainingRunConfig
from experiments.run.interfaces import DeviceTeacher, TrainingData

_GIB = 2**30
_ANYWHERE = Execution()


def model_of(config: ExperimentConfig, execution: Execution = _ANYWHERE) -> AlbertForPreTraining:
    """Return the model of a pre-training run."""
    generator = config.generator
    if generator is None:
        return AlbertForPreTraining(config.model, config.run.dtype, execution)
    kind = config.objective.generator
    return AlbertForReplacedTokens(config.model, config.run.dtype, execution, kind, generator)


def objective_of(config: ExperimentConfig, model: AlbertForPreTraining) -> Objective:
    """Return the objective of a pre-training run for the model of `model_of`."""
    metric, weight = config.data.sentence_objective.metric_name, config.optimizer.z_loss_weight
    if isinstance(model, AlbertForReplacedTokens):
        return replaced_tokens_objective(
            model,
            metric,
            detection_weight=config.objective.detection_weight,
            seed=config.seed,
            z_loss_weight=weight,
        )
    return pretraining_objective(
        model,
        metric,
        z_loss_weight=weight,
        samples_labels=config.optimizer.name is OptimizerName.SOPHIA,
        distillation=config.distillation if config.distillation.teacher else None,
    )


def refuse_teacher(config: ExperimentConfig) -> None:
    """Check that an experiment needs no teacher, which would be a separate program.

    Raises:
        InputError: it has a teacher.
    """
    if config.distillation.teacher:
        flag, allowed = "--config.distillation.teacher", "empty here: only training runs a teacher"
        raise InputError(str(FieldError(flag, allowed, config.distillation.teacher)))


class SizedStep(NamedTuple):
    """A step for a number of micro-batches, and the bytes that it needs on a device.

    Attributes:
        micro_batches: the number of micro-batches.
        compiled: the step; None if the compiler itself found the memory too small.
        needed: the bytes; None if not known.
    """

    micro_batches: int
    compiled: jax.stages.Compiled | None
    needed: int | None

    def fits(self, limit: int | None) -> bool:
        """Return True if it compiled, and is not known to need more bytes than the limit."""
        return self.compiled is not None and (self.needed or 0) <= (limit or math.inf)


def compile_sized(step: jax.stages.Wrapped, micro_batches: int, *arguments: Any) -> SizedStep:
    """Compile a step, and find the memory that it needs.

    Args:
        step: the step for a number of micro-batches.
        micro_batches: that number.
        arguments: state, batch and key, or their shapes.
    """
    try:
        compiled = step.lower(*arguments).compile()
    except jax.errors.JaxRuntimeError as error:
        needed = exhausted_memory(error)
        if needed is None:
            raise
        return SizedStep(micro_batches, None, needed)
    return SizedStep(micro_batches, compiled, memory_of(compiled))


def micro_batch_counts(rows: int, shards: int) -> list[int]:
    """Return the numbers of micro-batches that repeated halving of a batch gives, fewest first.

    Example: 24 rows on 2 devices can be split into 1, 2 or 4 micro-batches.
    """
    counts = [1]
    while rows // shards % (2 * counts[-1]) == 0:
        counts.append(2 * counts[-1])
    return counts


def format_costs(
    params: PyTree, data: TrainingData, steps: int, mesh: Mesh, compiled: jax.stages.Compiled
) -> str:
    """Describe the costs of a run's remaining steps, by the compiled step for its first batch."""
    flops, time_to_go = data.mean_flops, "time known after the first steps"
    if peak := mesh_peak_flops(mesh):
        hours = steps * flops / peak / 3600
        time_to_go = f"{hours:.1f} hours at bfloat16's peak, twice that at half of it"
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    several = f"{data.num_shapes} shapes of batches, " if data.num_shapes > 1 else ""
    return (
        f"{parameters:,} parameters, {flops / 1e9:,.1f} GFLOP a step, "
        f"{format_memory(compiled)}, {several}{steps:,} steps to go, {time_to_go}"
    )


class CompiledSteps:
    """A training step that is compiled ahead of its use for each shape of batches.

    It is itself a `TrainStep`, and logs what it compiles and how long that takes.

    Args:
        step_of: returns the result of `parallel.compile_train_step` for a number of micro-batches.
        counts: returns the numbers of micro-batches to try for a number of rows, the fewest first.
            If there are several, the first whose step fits in memory is used.
        limit: bytes that a step may use on a device; None: not known.
        say: prints a line.
        costs: describes the costs of the first compiled step.
        name: what is compiled, for log lines; another function may take the step's place.
        compiling: entered while a step is compiled.
    """

    def __init__(
        self,
        step_of: Callable[[int], jax.stages.Wrapped],
        counts: Callable[[int], Sequence[int]],
        limit: int | None,
        say: Callable[[str], None],
        costs: Callable[[jax.stages.Compiled], str],
        name: str = "the training step",
        compiling: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._step_of, self._counts, self._limit = step_of, counts, limit
        self._say, self._costs = say, costs
        self._name, self._compiling = name, compiling
        self._compiled: dict[tuple[tuple[int, ...], ...], jax.stages.Compiled] = {}

    def __call__(self, state: Any, batch: Any, *key: Array) -> Any:
        return self.prepare(state, batch, *key)(state, batch, *key)

    def prepare(self, state: Any, batch: Any, *key: Array) -> Callable[..., Any]:
        """Return the step for batches of this one's shape.

        Raises:
            InputError: it does not fit in memory with any of the numbers of micro-batches, or the
                memory must be known, to choose a number, and is not.
        """
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._compiled:
            first = not self._compiled
            rows = "" if first else f" for {' x '.join(map(str, shapes[0]))} positions"
            self._say(f"compiling {self._name}{rows} ...")
            start, counts = time.perf_counter(), cache_counts()
            with self._compiling():
                compiled = self._compile(state, batch, *key)
            source = " (from the cache)" if cache_counts().since(counts).all_found else ""
            said = f"compiled in {time.perf_counter() - start:.1f} s{source}"
            self._say(f"{said}: {self._costs(compiled)}" if first else said)
            self._compiled[shapes] = compiled
        return self._compiled[shapes]

    def _compile(self, state: Any, batch: Any, *key: Array) -> jax.stages.Compiled:
        counts = self._counts(jax.tree.leaves(batch)[0].shape[0])
        for count in counts:
            step = compile_sized(self._step_of(count), count, state, batch, *key)
            if len(counts) == 1 and step.compiled is not None:
                return step.compiled
            if step.needed is None or self._limit is None:
                raise InputError(
                    "--config.run.accumulation_steps=0 needs to know a device's memory, which is "
                    "not known here: set the number of micro-batches"
                )
            size = f"{step.needed / _GIB:.2f} GiB a device"
            if step.compiled is not None and step.fits(self._limit):
                self._say(f"{count} micro-batches a step: {size}")
                return step.compiled
        smallest = f"{counts[-1]} micro-batches{', the smallest,' if len(counts) > 1 else ''}"
        fewer = "" if len(counts) > 1 else "--config.run.accumulation_steps=0 takes more, "
        raise InputError(
            f"a step in {smallest} needs {size}, there are {(self._limit or 0) / _GIB:.2f}: {fewer}"
            "--config.run.remat=full needs less, --config.run.fsdp shards parameters"
        )


class StepCompiler:
    """The steps of a run, each compiled once for each shape of batches.

    Args:
        run: its settings.
        objective: what is trained.
        optimizer: the gradient transformation.
        state: the state, or its shapes.
        mesh: the devices.
        say: prints a line.
        compiling: entered while a step is compiled.
        teacher: a teacher that stays on the devices beside the state.

    Attributes:
        limit: bytes that a step may use on a device; None: not known.
    """

    def __init__(
        self,
        run: TrainingRunConfig,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        state: TrainState,
        mesh: Mesh,
        *,
        say: Callable[[str], None],
        compiling: Callable[[], AbstractContextManager[None]],
        teacher: DeviceTeacher | None = None,
    ) -> None:
        self._run, self._mesh, device = run, mesh, mesh.local_devices[0]
        self._teacher, self._state_bytes = teacher, bytes_on_device(state)
        self._step = (objective.loss_fn, optimizer, state, mesh)
        self._options: dict[str, Any] = {
            "weight_fn": objective.weight_fn,
            "sampled_loss_fn": objective.sampled_loss_fn,
            "reduction_dtype": run.reduction_dtype,
            "spike_sigmas": run.skip_spike_sigmas,
            "compiler_options": compiler_options(run, device),
        }
        self._say, self._compiling = say, compiling
        self._whole = memory_limit(device)
        self.limit = self._whole
        if self._whole is not None and teacher is not None:
            self.limit = self._whole - bytes_on_device(teacher.params)

    def teacher(self) -> CompiledSteps | None:
        """Return the function that predicts with the teacher; None if none is on the devices."""
        if self._teacher is None:
            return None
        return CompiledSteps(
            self._teacher.compile,
            self.counts,
            None if self._whole is None else self._whole - self._state_bytes,
            self._say,
            format_memory,
            "the teacher",
            compiling=self._compiling,
        )

    def train_step(self, costs: Callable[[jax.stages.Compiled], str]) -> CompiledSteps:
        """Return the training step.

        Args:
            costs: describes the costs of the first compiled step.
        """

        return CompiledSteps(
            self.step_of, self.counts, self.limit, self._say, costs, compiling=self._compiling
        )

    def step_of(self, count: int) -> jax.stages.Wrapped:
        """Return the training step for a number of micro-batches, not yet compiled."""
        return compile_train_step(
            *self._step,
            accumulation_steps=count,
            parallelism=self._run.parallelism,
            **self._options,
        )

    def fingerprints(self) -> CompiledSteps:
        """Return the check of determinism: a step that returns fingerprints of its result."""

        def step_of(count: int) -> jax.stages.Wrapped:
            return compile_step_fingerprints(*self._step, accumulation_steps=count, **self._options)

        return CompiledSteps(
            step_of,
            self.counts,
            self.limit,
            self._say,
            format_memory,
            "the check of determinism",
            compiling=self._compiling,
        )

    def counts(self, rows: int) -> list[int]:
        """Return the numbers of micro-batches to try."""
        given = self._run.accumulation_steps
        shards = self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        return [given] if given else micro_batch_counts(rows, shards)
