"""The training steps of a run, compiled for a topology as the run itself would compile them."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from albert_jax.batch import PretrainingBatch
from albert_jax.devices.collectives import Collective, parse_collectives
from albert_jax.devices.described import UNOPTIMIZED_CODE, described_devices
from albert_jax.devices.specifications import Specification, specification
from albert_jax.devices.traffic import bytes_between_matmuls
from albert_jax.training.optimizer import make_optimizer
from data_pipeline.config import Packing
from experiments.compiling.topologies import Topology, devices_of
from experiments.run.compiled_steps import (
    SizedStep,
    StepCompiler,
    compile_sized,
    micro_batch_counts,
    model_of,
    objective_of,
    refuse_teacher,
)
from experiments.run.config import ExperimentConfig, RunConfig
from experiments.run.curriculum import Curriculum, Phase, phases_of
from experiments.run.execution import open_mesh, prepare_devices, resolve_execution
from experiments.run.states import RunStates
from experiments.run.workdir import open_pretraining_corpus

Say = Callable[[str], None]


class Program(NamedTuple):
    """What a compiled step does on each device.

    Attributes:
        collectives: its communicating instructions.
        bytes_between_matmuls: see `albert_jax.devices.traffic`.
    """

    collectives: Sequence[Collective]
    bytes_between_matmuls: int


class CompiledPhase(NamedTuple):
    """The compiled step of a phase.

    Attributes:
        topology: the machines.
        mesh_shape: devices along data, fsdp and tensor.
        known: the maker's figures of a device, if they are known.
        limit: bytes that a step may use on a device, if they are known.
        phase: its steps, rows and batch.
        pairs: the most pairs of a row.
        asked: the step that the configuration asks for; with ``accumulation_steps=0``, the first
            that was tried.
        fitting: the step with the fewest micro-batches that fits; None if none does.
        program: the step that fits, or else the one that was asked for; None if not compiled.
        parameters: bytes of all parameters.
        seconds: seconds of compiling.
        line: what a run would log about its attention and layers.
    """

    topology: Topology
    mesh_shape: tuple[int, ...]
    known: Specification | None
    limit: int | None
    phase: Phase
    pairs: int
    asked: SizedStep
    fitting: SizedStep | None
    program: Program | None
    parameters: int
    seconds: float
    line: str

    @property
    def devices(self) -> int:
        """Number of all devices."""
        return self.topology.slices * self.topology.devices_per_slice


def compile_run(config: ExperimentConfig, topology: Topology, say: Say) -> list[CompiledPhase]:
    """Compile the step of each phase of a run.

    Without a corpus, packed rows have room for `data.max_pairs_per_row` pairs, and no sequence
    slots unless `run.sequence_slots` names them.

    Args:
        config: the experiment.
        topology: the machines.
        say: prints a line.

    Raises:
        InputError: the run does not fit the devices, or their compiler is not installed.
    """
    refuse_teacher(config)
    devices = devices_of(topology)
    run = _run_on(topology, config.run)
    prepare_devices(run)
    with described_devices(devices[0]):
        compiler = _RunCompiler(config, run, topology, devices, say)
        return [compiler.compile(number) for number in range(len(compiler.phases))]


class _RunCompiler:
    """The things that a run makes before its first step, on devices that may be described.

    Attributes:
        phases: the phases of the run.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        run: RunConfig,
        topology: Topology,
        devices: Sequence[jax.Device],
        say: Say,
    ) -> None:
        self.phases = phases_of(config)
        self._run, self._topology, self._say = run, topology, say
        sizes = [phase.global_batch_size for phase in self.phases]
        self._mesh = mesh = open_mesh(run, *sizes, devices=devices)
        self._rows = _Rows(config, mesh)
        execution, self._line = resolve_execution(
            run,
            config.model,
            mesh,
            lengths=[phase.data.max_seq_length for phase in self.phases],
            packed=config.data.packing is Packing.PACKED,
            sequence_slots=self._rows.slots,
        )
        say(f"{topology}: {self._line}")
        model = model_of(config, execution)
        objective = objective_of(config, model)
        optimizer = make_optimizer(config.optimizer, global_batch_size=config.global_batch_size)
        self._key = key = jax.eval_shape(lambda: jax.random.key(config.seed))
        states = RunStates(model.initialize, optimizer, key, mesh, keep_history=run.skips_steps)
        self._state = states.shapes()
        self._tried: dict[tuple[tuple[int, ...], ...], list[SizedStep]] = {}
        self._steps = StepCompiler(
            run,
            objective,
            optimizer,
            self._state,
            mesh,
            say=say,
            compiling=contextlib.nullcontext,
        )

    def compile(self, number: int) -> CompiledPhase:
        """Compile the step of a phase, once for phases whose batches have one shape."""
        phase, start = self.phases[number], time.perf_counter()
        pairs = self._rows.pairs(number)
        batch = PretrainingBatch.shapes(
            batch=phase.global_batch_size,
            length=phase.data.max_seq_length,
            predictions=phase.data.max_predictions_per_seq,
            pairs=pairs,
        )
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._tried:
            self._tried[shapes] = self._try(phase.global_batch_size, batch)
        tried = self._tried[shapes]
        fitting = tried[-1] if tried[-1].fits(self._steps.limit) else None
        params = jax.tree.leaves(self._state.params)
        return CompiledPhase(
            self._topology,
            self._mesh.devices.shape,
            specification(self._mesh.devices.flat[0]),
            self._steps.limit,
            phase,
            pairs,
            tried[0],
            fitting,
            _read(fitting or tried[0], self._mesh),
            sum(leaf.size * leaf.dtype.itemsize for leaf in params),
            time.perf_counter() - start,
            self._line,
        )

    def _try(self, rows: int, batch: PretrainingBatch) -> list[SizedStep]:
        """Compile for increasing numbers of micro-batches until one fits.

        The first number is the one that the run asks for, if any.
        """
        given = self._run.accumulation_steps
        more = micro_batch_counts(rows, self._mesh.shape["data"] * self._mesh.shape["fsdp"])
        counts = [given, *(count for count in more if count > given)] if given else more
        tried: list[SizedStep] = []
        for count in counts:
            self._say(f"  compiling the step of {rows:,} rows in {count} micro-batches ...")
            start, step = time.perf_counter(), self._steps.step_of(count)
            tried.append(compile_sized(step, count, self._state, batch, self._key))
            needed, fits = tried[-1].needed, tried[-1].fits(self._steps.limit)
            size = "" if needed is None else f", {needed / 2**30:.2f} GiB a device"
            seconds = time.perf_counter() - start
            self._say(f"  in {seconds:.0f} s{size}: {'fits' if fits else 'too large'}")
            if fits:
                break
        return tried


def _run_on(topology: Topology, run: RunConfig) -> RunConfig:
    """Return the settings, completed for described GPUs: number of hosts, and faster compiling."""
    if topology.platform != "gpu":
        return run
    if topology.slices > 1 and run.dcn_data is None:  # on real hosts JAX finds it
        run = dataclasses.replace(run, dcn_data=topology.slices)
    if run.compiler_options.strip() != "none":
        fast = [f"{name}={str(value).lower()}" for name, value in UNOPTIMIZED_CODE.items()]
        options = ",".join(filter(None, [*fast, run.compiler_options.strip()]))
        run = dataclasses.replace(run, compiler_options=options)
    return run


class _Rows:
    """Pairs and sequence slots of rows, from the configuration or from its corpus."""

    def __init__(self, config: ExperimentConfig, mesh: Mesh) -> None:
        self._config = config
        self._batches: Curriculum | None = None
        if config.data.corpus_dir:
            self._batches = Curriculum(open_pretraining_corpus(config), config, mesh)

    @property
    def slots(self) -> int | Callable[[], int]:
        """The sequence slots, in the form that `resolve_execution` takes."""
        given = self._config.run.sequence_slots
        if given is None and self._batches is not None:
            return self._batches.find_slots
        return given or 0

    def pairs(self, phase: int) -> int:
        """Return the most pairs of a row."""
        if self._batches is not None:
            return self._batches.pairs_of_row(phase)
        data = self._config.data
        packed = data.packing is Packing.PACKED and not data.records_dir
        return data.max_pairs_per_row if packed else 1


def _read(step: SizedStep, mesh: Mesh) -> Program | None:
    if step.compiled is None:
        return None
    text = step.compiled.as_text() or ""
    return Program(parse_collectives(text, mesh), bytes_between_matmuls(text))
