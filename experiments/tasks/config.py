"""One fine-tuning: task, data, model, optimizer and run, checked as a whole."""

import dataclasses
import math
from enum import StrEnum
from typing import ClassVar

from albert_jax.config import AlbertConfig, ProblemType
from albert_jax.training.config import OptimizerConfig, OptimizerName
from data_pipeline.errors import InputError
from data_pipeline.finetuning.glue import MalformedRows
from data_pipeline.finetuning.race import RaceGroup
from experiments.run.config import TrainingRunConfig


class TaskName(StrEnum):
    """What a run learns. Those of GLUE have the official names in lower case."""

    COLA = "cola"
    SST2 = "sst-2"
    MRPC = "mrpc"
    STSB = "sts-b"
    QQP = "qqp"
    MNLI = "mnli"
    QNLI = "qnli"
    RTE = "rte"
    WNLI = "wnli"
    TEXT = "text"  # one's own texts: classes or scores
    SQUAD = "squad"  # versions 1.1 and 2.0: which head is `span.head`
    RACE = "race"
    TAGGING = "tagging"  # words with tags, in CoNLL's columns


class DataSource(StrEnum):
    """Where the examples of a task of GLUE come from."""

    FILES = "files"
    TFDS = "tfds"


class SpanHead(StrEnum):
    """How answers are scored: by start and end alone, or an end given its start, and whether."""

    PLAIN = "plain"
    CONDITIONAL = "conditional"


@dataclasses.dataclass(frozen=True)
class TaskDataConfig:
    """What a run reads, and how it is cut.

    Raises:
        InputError: a value is out of range.
    """

    dir: str = ""  # of the task's official files, or of TFDS's data sets
    source: DataSource = DataSource.FILES
    diagnostic_dir: str | None = None  # of AX, which a run on MNLI then answers too
    malformed: MalformedRows = MalformedRows.REFUSE

    # One's own files: of texts, questions (SQuAD) or tags. Texts: .tsv, .csv or .jsonl.
    train_file: str | None = None
    dev_file: str | None = None
    test_file: str | None = None  # labels are not needed
    text_column: str = "text"
    text_pair_column: str | None = None
    label_column: str = "label"
    id_column: str | None = None
    problem_type: ProblemType = ProblemType.SINGLE_LABEL
    labels: str | None = None  # separated by commas; none: those of the training file

    tokenizer: str | None = None  # none: that of `run.init_from`
    max_seq_length: int = 512
    num_lengths: int = 5  # that rows are padded to; the step is compiled for each
    num_epochs: float | None = None  # instead of `optimizer.num_train_steps`

    def __post_init__(self) -> None:
        if self.max_seq_length < 8:
            raise InputError(
                f"--config.data.max_seq_length must be at least 8, got {self.max_seq_length}"
            )
        if self.num_lengths < 1:
            raise InputError(
                f"--config.data.num_lengths must be at least 1, got {self.num_lengths}"
            )
        if self.num_epochs is not None and self.num_epochs <= 0:
            raise InputError(
                f"--config.data.num_epochs must be greater than 0, got {self.num_epochs}"
            )
        if self.problem_type is ProblemType.MULTI_LABEL:
            raise InputError(
                f"--config.data.problem_type must be {ProblemType.SINGLE_LABEL} or "
                f"{ProblemType.REGRESSION}: files have one label a row"
            )


@dataclasses.dataclass(frozen=True)
class SpanConfig:
    """Questions answered by a span of a text.

    Raises:
        InputError: a value is out of range.
    """

    head: SpanHead = SpanHead.PLAIN
    max_query_length: int = 64  # pieces of a question that are kept
    doc_stride: int = 128  # pieces from one window of a text to the next
    n_best: int = 20
    max_answer_length: int = 30  # pieces
    start_n_top: int = 5  # starts that the conditional head looks for ends of
    end_n_top: int = 5
    # Where some questions have no answer: what the score of having none is compared with. None:
    # chosen on half of the articles, reported on the other half.
    null_threshold: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type is int and getattr(self, field.name) < 1:
                raise InputError(
                    f"--config.span.{field.name} must be at least 1, got "
                    f"{getattr(self, field.name)}"
                )


@dataclasses.dataclass(frozen=True)
class ChoiceConfig:
    """Questions with four options.

    Raises:
        InputError: a value is out of range.
    """

    group: RaceGroup = RaceGroup.ALL
    max_qa_length: int = 128  # last pieces of question and option that are kept

    def __post_init__(self) -> None:
        if self.max_qa_length < 1:
            raise InputError(
                f"--config.choice.max_qa_length must be at least 1, got {self.max_qa_length}"
            )


@dataclasses.dataclass(frozen=True)
class DropoutConfig:
    """Shares that are dropped in training.

    Raises:
        InputError: a value is out of range.
    """

    encoder: float | None = None  # of states and attention; none: as the model's configuration says
    classifier: float = 0.1  # of what the head reads

    def __post_init__(self) -> None:
        for name, value in (("encoder", self.encoder), ("classifier", self.classifier)):
            if value is not None and not 0 <= value < 1:
                raise InputError(f"--config.dropout.{name} must be in [0, 1), got {value}")


@dataclasses.dataclass(frozen=True)
class FinetuneRunConfig(TrainingRunConfig):
    """How a fine-tuning is run.

    Raises:
        InputError: a value is out of range.
    """

    evaluate_every: int = 500
    checkpoint_every: int = 500
    keep_checkpoints: int = 1
    # False: the sizes and the tokenizer of `init_from`, not its weights. Everything else being
    # equal, this is the control that shows what pre-training was worth.
    init_weights: bool = True
    patience: int | None = None  # evaluations without a better one after which a run ends
    # Several runs in directories of their own, of the seeds `seed`, `seed + 1`, ...
    seeds: int = 1
    learning_rates: str | None = None  # separated by commas: the seeds are run with each

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluate_every % self.checkpoint_every:
            raise InputError(
                f"--config.run.evaluate_every ({self.evaluate_every}) must be a multiple of "
                f"--config.run.checkpoint_every ({self.checkpoint_every}): what is evaluated is "
                "saved, or it could not be the best"
            )
        _ = self.rates

    @property
    def rates(self) -> tuple[float, ...]:
        """The numbers of `learning_rates`.

        Raises:
            InputError: one is no number greater than 0, or occurs twice.
        """
        if self.learning_rates is None:
            return ()
        try:
            rates = tuple(float(rate) for rate in self.learning_rates.split(","))
        except ValueError:
            rates = ()
        fine = all(rate > 0 and math.isfinite(rate) for rate in rates)
        if not rates or not fine or len(set(rates)) < len(rates):
            raise InputError(
                "--config.run.learning_rates must be different numbers greater than 0, separated "
                f"by commas, got {self.learning_rates!r}"
            )
        return rates


def finetuning_optimizer() -> OptimizerConfig:
    """AdamW with bias correction.

    The released code lacks the correction. Its first updates are then several times too long, which
    makes runs on small data fail (Mosbach et al. 2021); `--config.optimizer.bias_correction=false`
    has that back.
    """
    return OptimizerConfig(
        name=OptimizerName.ADAMW,
        learning_rate=2e-5,
        num_train_steps=10_000,
        num_warmup_steps=1_000,
        bias_correction=True,
    )


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """Everything that a fine-tuning is. All but `run` is fixed in a workdir.

    Raises:
        InputError: two parts do not fit together; the message names the flags.
    """

    LOCATIONS: ClassVar[frozenset[str]] = frozenset(
        f"data.{name}"
        for name in ("dir", "diagnostic_dir", "train_file", "dev_file", "test_file", "tokenizer")
    )

    task: TaskName = TaskName.TEXT
    model: AlbertConfig = dataclasses.field(default_factory=AlbertConfig)  # without `run.init_from`
    data: TaskDataConfig = dataclasses.field(default_factory=TaskDataConfig)
    span: SpanConfig = dataclasses.field(default_factory=SpanConfig)
    choice: ChoiceConfig = dataclasses.field(default_factory=ChoiceConfig)
    dropout: DropoutConfig = dataclasses.field(default_factory=DropoutConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=finetuning_optimizer)
    run: FinetuneRunConfig = dataclasses.field(default_factory=FinetuneRunConfig)
    global_batch_size: int = 32  # examples a step
    seed: int = 12345  # of the head, the data's order and dropout

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise InputError(
                f"--config.global_batch_size must be at least 1, got {self.global_batch_size}"
            )
        if not 0 <= self.seed < 2**32:
            raise InputError(f"--config.seed must be from 0 to 2**32 - 1, got {self.seed}")
        if self.global_batch_size % (max(1, self.run.accumulation_steps) * self.run.fsdp):
            raise InputError(
                f"--config.global_batch_size ({self.global_batch_size}) must be a multiple of "
                f"--config.run.accumulation_steps ({self.run.accumulation_steps}) times "
                f"--config.run.fsdp ({self.run.fsdp})"
            )
