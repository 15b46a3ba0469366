"""One experiment: model, data, optimizer and run, checked as a whole."""

import dataclasses
from enum import StrEnum
from typing import ClassVar

from albert_jax.attention.dispatch import Attention
from albert_jax.config import AlbertConfig
from albert_jax.encoder import Remat
from albert_jax.training.config import OptimizerConfig
from albert_jax.training.parallel import Parallelism
from data_pipeline.config import SHORTEST_ROW, DataConfig
from data_pipeline.errors import InputError


class ComputeDtype(StrEnum):
    """What products are computed in. Parameters, softmax, layer norm, logits and loss: float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT64 = "float64"


class ReductionDtype(StrEnum):
    """What gradients are added up in over the devices of the data axis."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"  # half the bytes on the wire, 8 bits of each


class InitGroups(StrEnum):
    """Which groups of layers `init_from` fills: each from its own, or all from the first."""

    SAME = "same"
    FROM_FIRST = "from_first"


@dataclasses.dataclass(frozen=True)
class TrainingRunConfig:
    """How anything is trained. What it computes is the same up to rounding and dropout masks, so
    these may change when a run is taken up again.

    Raises:
        InputError: a value is out of range.
    """

    # Devices. The data axis is what `fsdp` and `tensor` leave of them.
    parallelism: Parallelism = Parallelism.PJIT
    fsdp: int = 1  # devices that share one copy of parameters and optimizer state
    tensor: int = 1  # devices that share each product
    accumulation_steps: int = 1  # micro-batches a step; 0: as few as the memory allows
    dtype: ComputeDtype = ComputeDtype.FLOAT32
    reduction_dtype: ReductionDtype = ReductionDtype.FLOAT32  # gradients on their way
    attention: Attention = Attention.AUTO  # auto: what fits the devices
    unroll: int = 0  # layers that are compiled as one; 0: all of them on a GPU, elsewhere 1
    remat: Remat = Remat.NONE  # what the backward pass computes again to save memory
    deterministic_kernels: bool = False  # bit-identical resuming on GPUs, at some cost in speed

    # Steps between two of each.
    log_every: int = 100
    evaluate_every: int = 5000
    checkpoint_every: int = 5000
    keep_checkpoints: int = 5  # the newest ones; the best one stays beside them

    evaluation_batch_size: int = 64

    # Where a new run takes its parameters from; a run that has checkpoints ignores it.
    init_from: str | None = None  # another workdir, or one of its checkpoints

    compile_cache_dir: str | None = None  # none: beside the workdir's other files
    # A workdir's schedule is part of its experiment. Training it for longer has to be said.
    change_num_train_steps: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("accumulation_steps", "unroll") else 1
            if field.type in (int, int | None) and value is not None and value < least:
                raise InputError(f"--config.run.{field.name} must be at least {least}, got {value}")
        if self.parallelism is Parallelism.PMAP and (self.fsdp > 1 or self.tensor > 1):
            raise InputError(
                "--config.run.parallelism=pmap needs --config.run.fsdp and --config.run.tensor "
                f"to be 1, got {self.fsdp} and {self.tensor}; pjit takes them"
            )


@dataclasses.dataclass(frozen=True)
class RunConfig(TrainingRunConfig):
    """How pre-training is run."""

    evaluation_pairs: int | None = 6400  # held-out pairs an evaluation reads; none: all of them
    # Positions of the rows that runs are measured on; none: as many as they are trained on. Runs
    # of several lengths can be compared at one alone.
    evaluation_seq_length: int | None = None
    init_groups: InitGroups = InitGroups.SAME

    def __post_init__(self) -> None:
        super().__post_init__()
        if (length := self.evaluation_seq_length) is not None and length < SHORTEST_ROW:
            raise InputError(
                f"--config.run.evaluation_seq_length must be at least {SHORTEST_ROW}, got {length}"
            )


@dataclasses.dataclass(frozen=True)
class PhaseConfig:
    """An early part of a run, on rows of another length or in batches of another size."""

    num_steps: int = 0  # 0: there is no such phase
    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    global_batch_size: int | None = None  # none: that of the run


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
    """What comes before rows of `data.max_seq_length`, in steps of the run; schedule and optimizer
    run through all of it, the rate by the run's own batch."""

    first: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)
    second: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)

    @property
    def in_order(self) -> list[PhaseConfig]:
        """Those that there are."""
        return [phase for phase in (self.first, self.second) if phase.num_steps]


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """Everything that an experiment is. All but `run` is fixed in a workdir.

    Raises:
        InputError: two parts do not fit together; the message names the flags.
    """

    LOCATIONS: ClassVar[frozenset[str]] = frozenset(
        {"data.corpus_dir", "data.records_dir", "data.plan_dir"}
    )

    model: AlbertConfig = dataclasses.field(default_factory=AlbertConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    phases: PhasesConfig = dataclasses.field(default_factory=PhasesConfig)
    global_batch_size: int = 4096  # rows a step, over all devices and micro-batches
    seed: int = 12345  # of parameters, data order, masks and dropout

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--config.seed must be from 0 to 2**32 - 1, got {self.seed}")
        if self.model.type_vocab_size < 2:
            raise InputError(
                "--config.model.type_vocab_size must be at least 2, one for each segment of a "
                f"pair, got {self.model.type_vocab_size}"
            )
        self._check_batch("global_batch_size", self.global_batch_size)
        self._check_length("data.max_seq_length", self.data.max_seq_length)
        self._check_length("run.evaluation_seq_length", self.evaluation_seq_length)
        for name in ("first", "second"):
            self._check_phase(f"phases.{name}", getattr(self.phases, name))
        steps, early = self.optimizer.num_train_steps, self.phases.in_order
        if early and sum(phase.num_steps for phase in early) >= steps:
            raise InputError(
                f"the phases must leave some of --config.optimizer.num_train_steps ({steps}) to "
                f"rows of --config.data.max_seq_length, got {[p.num_steps for p in early]}"
            )

    def _check_batch(self, name: str, rows: int) -> None:
        run = self.run
        if rows < 1:
            raise InputError(f"--config.{name} must be at least 1, got {rows}")
        if rows % (max(1, run.accumulation_steps) * run.fsdp):
            raise InputError(
                f"--config.{name} ({rows}) must be a multiple of "
                f"--config.run.accumulation_steps ({run.accumulation_steps}) times "
                f"--config.run.fsdp ({run.fsdp})"
            )

    def _check_length(self, name: str, length: int) -> None:
        longest = self.model.longest_row
        if longest is not None and length > longest:
            raise InputError(
                f"--config.{name} ({length}) must be at most "
                f"--config.model.max_position_embeddings ({longest})"
            )

    def _check_phase(self, name: str, phase: PhaseConfig) -> None:
        if phase.num_steps < 0:
            raise InputError(f"--config.{name}.num_steps must be at least 0, got {phase.num_steps}")
        if not phase.num_steps:
            return
        if phase.global_batch_size is not None:
            self._check_batch(f"{name}.global_batch_size", phase.global_batch_size)
        self._check_length(f"{name}.max_seq_length", phase.max_seq_length)
        try:
            dataclasses.replace(
                self.data,
                max_seq_length=phase.max_seq_length,
                max_predictions_per_seq=phase.max_predictions_per_seq,
            )
        except InputError as error:
            raise InputError(str(error).replace("config.data.", f"config.{name}.")) from error

    @property
    def evaluation_seq_length(self) -> int:
        """Positions of the rows that the run is measured on."""
        return self.run.evaluation_seq_length or self.data.max_seq_length
