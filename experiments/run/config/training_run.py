"""Configuration of a run of training, fine-tuning included, and of one of pre-training."""

import dataclasses
from enum import StrEnum

from albert_jax.attention.cudnn_slots import FEWEST_SLOTS
from albert_jax.attention.dispatch import Attention
from albert_jax.encoder import Remat
from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.settings import FieldError, check_settings, setting
from albert_jax.training.parallel import Parallelism
from data_pipeline.config import LONGEST_ROW, SHORTEST_ROW
from experiments.goodput.profiling import ProfiledProcesses, parse_steps
from experiments.metrics.trackers.selection import TrackerName, parse_trackers

LARGEST_SEED = 2**32 - 1
MOST_ROWS = 1 << 20  # rows of a batch, far beyond what anyone has trained with


class ComputeDtype(StrEnum):
    """Type of matmuls. Parameters, softmax, layer norm, logits and loss stay float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT64 = "float64"


class ReductionDtype(StrEnum):
    """Type in which gradients are summed over the devices of the data axis."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"  # half the communication, 8 significant bits


class InitGroups(StrEnum):
    """Source of each group of layers in `init_from`: the same group, or the first one for all."""

    SAME = "same"
    FROM_FIRST = "from_first"


class InitEmbeddings(StrEnum):
    """Source of what depends on the vocabulary: the word table, and the masked-LM head's output."""

    STORED = "stored"  # `init_from`, whose vocabulary must be the run's
    FRESH = "fresh"  # initialized, for another vocabulary


@dataclasses.dataclass(frozen=True)
class TrainingRunConfig:
    """Settings of a training run: devices, intervals, files. They change results by no more than
    rounding and dropout masks, so they may change when a run is resumed.

    Raises:
        FieldError: a value is not allowed.
    """

    # Devices. The data axis is what `fsdp` and `tensor` leave of them.
    parallelism: Parallelism = setting(Parallelism.PJIT, "how a step uses the devices")
    fsdp: int = setting(
        1, "devices that share one copy of parameters and optimizer state", at_least=1
    )
    tensor: int = setting(1, "devices that share each matmul", at_least=1)
    dcn_data: int | None = setting(
        None, "TPU slices, or hosts, joined by a slow network; none: detected", at_least=1
    )
    accumulation_steps: int = setting(
        1, "micro-batches per step; 0: as few as the memory allows", at_least=0, at_most=MOST_ROWS
    )
    dtype: ComputeDtype = setting(
        ComputeDtype.FLOAT32, "type of matmuls; parameters and the loss stay float32"
    )
    matmuls: Matmuls = setting(
        Matmuls.SAME,
        "operands of the layers' matmuls; float8: wide models on NVIDIA Ada or Hopper; bfloat16: "
        "with dtype=float32 on CPUs with AVX512-BF16",
    )
    reduction_dtype: ReductionDtype = setting(
        ReductionDtype.FLOAT32, "type in which gradients are summed over devices"
    )
    attention: Attention = setting(
        Attention.AUTO, "implementation of attention; auto: the one for the devices"
    )
    unroll: int = setting(
        0, "layers compiled as one; 0: 1 on a TPU, and on a CPU with remat; else all", at_least=0
    )
    fused_layers: bool | None = setting(
        None,
        "Triton kernels between matrix products, on NVIDIA GPUs; none: in pre-training, where the "
        "model and the device support them",
    )
    remat: Remat = setting(Remat.NONE, "what the backward pass recomputes to save memory")
    compiler_options: str = setting(
        "", "XLA options, name=value,..., added to our defaults; none: XLA's own defaults"
    )
    deterministic_kernels: bool = setting(
        False, "bit-identical resuming on GPUs, at some cost in speed"
    )

    skip_nonfinite_steps: int = setting(
        0, "most consecutive steps that are skipped because they are not finite", at_least=0
    )
    skip_spike_sigmas: float | None = setting(
        None,
        "standard deviations above the last 128 losses or gradient norms at which a step is "
        "skipped; none: never",
        above=0,
    )
    check_determinism_every: int | None = setting(
        None,
        "steps between checks, which compute a step twice and compare; none: no check",
        at_least=1,
    )

    log_every: int = setting(100, "steps between two log lines", at_least=1)
    evaluate_every: int = setting(5000, "steps between two evaluations", at_least=1)
    checkpoint_every: int = setting(
        5000, "steps between two checkpoints; follows evaluate_every", at_least=1
    )
    keep_checkpoints: int = setting(
        5, "newest checkpoints that are kept, beside the best one", at_least=1
    )
    evaluation_batch_size: int = setting(
        64, "rows in a batch of an evaluation", at_least=1, at_most=MOST_ROWS
    )

    hang_seconds: float | None = setting(
        None,
        "seconds without a step after which a run prints its stacks and ends with status 75; none: "
        "20 times the median step, at least 300",
        above=0,
    )

    init_from: str | None = setting(
        None, "workdir or checkpoint with the initial parameters of a new run"
    )
    init_embeddings: InitEmbeddings = setting(
        InitEmbeddings.STORED,
        "word embeddings and masked-LM output bias of a run with `init_from`; fresh: initialized, "
        "for another vocabulary",
    )
    trackers: str | None = setting(
        str(TrackerName.TENSORBOARD),
        f"where metrics are sent: {', '.join(TrackerName)}, module:Class; several "
        "separated by commas",
    )
    compile_cache_dir: str | None = setting(
        None, "cache of compiled programs, which runs and hosts may share; none: in the workdir"
    )
    profile_steps: str | None = setting(
        None, "steps of which JAX writes a profile into the workdir, FIRST:LAST; none: no profile"
    )
    profile_processes: ProfiledProcesses = setting(
        ProfiledProcesses.FIRST, "processes that write a profile"
    )
    change_num_train_steps: bool = setting(
        False, "allow another optimizer.num_train_steps than the workdir was started with"
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.init_from is None and self.init_embeddings is not InitEmbeddings.STORED:
            allowed = f"{InitEmbeddings.STORED} without init_from"
            raise FieldError("init_embeddings", allowed, self.init_embeddings)
        if self.parallelism is Parallelism.PMAP:
            for name in ("fsdp", "tensor"):
                if (size := getattr(self, name)) > 1:
                    raise FieldError(name, "1 for parallelism=pmap (pjit can shard)", size)
        _ = self.tracker_names
        parse_steps(self.profile_steps)

    @property
    def skips_steps(self) -> bool:
        """True if the steps that are not finite, or spikes, are skipped."""
        return self.skip_nonfinite_steps > 0 or self.skip_spike_sigmas is not None

    @property
    def tracker_names(self) -> tuple[str, ...]:
        """The names of `trackers`.

        Raises:
            FieldError: one is unknown, or occurs twice.
        """
        return parse_trackers(self.trackers)


@dataclasses.dataclass(frozen=True)
class RunConfig(TrainingRunConfig):
    """The run and evaluation of pre-training.

    Raises:
        FieldError: a value is not allowed.
    """

    evaluation_pairs: int | None = setting(
        6400, "held-out pairs in an evaluation; none: all of them", at_least=1
    )
    evaluation_seq_length: int | None = setting(
        None,
        "length of rows in evaluations, to compare runs of different lengths; none: as in training",
        at_least=SHORTEST_ROW,
        at_most=LONGEST_ROW,
    )
    init_groups: InitGroups = setting(
        InitGroups.SAME, "group of `init_from` that each group of layers is initialized from"
    )
    sequence_slots: int | None = setting(
        None,
        "sequences per packed row, on average, that cudnn has room for; none: derived from the "
        "plan of the rows; 0: the most of any row",
        at_least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = None
        if self.sequence_slots == 1:
            words = "padding behind a row counts as a sequence"
            allowed = f"none, 0, or at least {FEWEST_SLOTS} ({words})"
        elif self.sequence_slots and (self.tensor > 1 or not self.accumulation_steps):
            allowed = "none or 0 for tensor > 1 and for accumulation_steps=0"
        if allowed is not None:
            raise FieldError("sequence_slots", allowed, self.sequence_slots)


def check_batch_size(name: str, rows: int, run: TrainingRunConfig) -> None:
    """Check that a global batch divides into micro-batches and shards.

    Raises:
        FieldError: it does not.
    """
    if rows % (max(1, run.accumulation_steps) * run.fsdp):
        multiple = (
            f"a multiple of run.accumulation_steps ({run.accumulation_steps}) "
            f"times run.fsdp ({run.fsdp})"
        )
        raise FieldError(name, multiple, rows)
