"""Configuration of a fine-tuning: task, data, model, optimizer and run, checked together."""

import dataclasses
import math
from typing import ClassVar

from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import DecoderSizes
from albert_jax.generation.config import GenerationOptions
from albert_jax.settings import FieldError, check_settings, setting
from albert_jax.training.config import OptimizerConfig, OptimizerName
from data_pipeline.generation.config import TargetsConfig
from experiments.cli.given_settings import GivenSettings
from experiments.run.config import (
    LARGEST_SEED,
    MOST_ROWS,
    TrainingRunConfig,
    check_batch_size,
)
from experiments.run.config.derived_settings import follow_optimizer, follow_steps
from experiments.tasks.task_settings import (
    GENERATION_TASKS,
    ChoiceConfig,
    DropoutConfig,
    EmbeddingConfig,
    RateSearch,
    SpanConfig,
    TaskDataConfig,
    TaskName,
)


@dataclasses.dataclass(frozen=True)
class FinetuneRunConfig(TrainingRunConfig):
    """The run of a fine-tuning, once or with several seeds and rates.

    Raises:
        FieldError: a value is not allowed.
    """

    evaluate_every: int = setting(500, "steps between two evaluations", at_least=1)
    checkpoint_every: int = setting(
        500, "steps between two checkpoints; follows evaluate_every", at_least=1
    )
    keep_checkpoints: int = setting(
        1, "newest checkpoints that are kept, beside the best one", at_least=1
    )
    init_decoder_from: str | None = setting(
        None, "GPT-2, or a model with a decoder, that the decoder of a new run starts from"
    )
    # The control that shows what pre-training was worth, everything else being equal.
    init_weights: bool = setting(
        True, "false: only sizes and tokenizer of `init_from`, not its weights"
    )
    patience: int | None = setting(
        None, "evaluations without improvement after which a run ends", at_least=1
    )
    seeds: int = setting(
        1,
        "runs in directories of their own, with seeds `seed`, `seed + 1`, ...",
        at_least=1,
        at_most=1000,
    )
    learning_rates: str | None = setting(
        None, "rates, separated by commas, to choose from: see rate_search"
    )
    rate_search: RateSearch = setting(
        RateSearch.EVERY_SEED,
        "every_seed: each rate with every seed; first_seed: with the first, and its best with all",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluate_every % self.checkpoint_every:
            multiple = (
                f"a multiple of checkpoint_every ({self.checkpoint_every}), so that what is "
                "evaluated is saved"
            )
            raise FieldError("evaluate_every", multiple, self.evaluate_every)
        _ = self.rates

    @property
    def rates(self) -> tuple[float, ...]:
        """The numbers of `learning_rates`.

        Raises:
            FieldError: a rate is not a number greater than 0, or occurs twice; six digits count,
                since they name the directories of runs.
        """
        if self.learning_rates is None:
            return ()
        try:
            rates = tuple(float(rate) for rate in self.learning_rates.split(","))
        except ValueError:
            rates = ()
        fine = all(rate > 0 and math.isfinite(rate) for rate in rates)
        if not rates or not fine or len({f"{rate:g}" for rate in rates}) < len(rates):
            allowed = "different numbers greater than 0, separated by commas; six digits count"
            raise FieldError("learning_rates", allowed, self.learning_rates)
        return rates


def finetuning_optimizer() -> OptimizerConfig:
    """Return the default optimizer, AdamW with bias correction.

    The released code lacks the correction, so its first updates are several times too large, which
    makes runs on small data fail (Mosbach et al. 2021). `--config.optimizer.bias_correction=false`
    restores that behavior.
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
    """A fine-tuning. In a workdir, everything is fixed but `run` and the places of files.

    Raises:
        FieldError: a value is not allowed, or two parts do not fit together.
    """

    LOCATIONS: ClassVar[frozenset[str]] = frozenset(
        f"data.{name}"
        for name in ("dir", "diagnostic_dir", "train_file", "dev_file", "test_file", "tokenizer")
    ) | frozenset(
        f"targets.{name}" for name in ("train_file", "dev_file", "test_file", "tokenizer")
    )

    task: TaskName = setting(TaskName.TEXT, "task of GLUE, or another")
    model: AlbertConfig = dataclasses.field(default_factory=AlbertConfig)  # without `run.init_from`
    data: TaskDataConfig = dataclasses.field(default_factory=TaskDataConfig)
    span: SpanConfig = dataclasses.field(default_factory=SpanConfig)
    choice: ChoiceConfig = dataclasses.field(default_factory=ChoiceConfig)
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)
    targets: TargetsConfig = dataclasses.field(default_factory=TargetsConfig)
    decoder: DecoderSizes = dataclasses.field(default_factory=DecoderSizes)
    decoding: GenerationOptions = dataclasses.field(default_factory=GenerationOptions)
    dropout: DropoutConfig = dataclasses.field(default_factory=DropoutConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=finetuning_optimizer)
    run: FinetuneRunConfig = dataclasses.field(default_factory=FinetuneRunConfig)
    global_batch_size: int = setting(32, "examples per step", at_least=1, at_most=MOST_ROWS)
    seed: int = setting(
        12345, "seed of the head, data order and dropout", at_least=0, at_most=LARGEST_SEED
    )

    def __post_init__(self) -> None:
        check_settings(self)
        check_batch_size("global_batch_size", self.global_batch_size, self.run)
        if self.run.init_decoder_from is not None and self.task not in GENERATION_TASKS:
            tasks = " or ".join(GENERATION_TASKS)
            raise FieldError(
                "run.init_decoder_from", f"none unless task is {tasks}", str(self.task)
            )
        if self.optimizer.name is OptimizerName.SOPHIA:
            allowed = "another one in fine-tuning: labels are sampled in pre-training alone"
            raise FieldError("optimizer.name", allowed, self.optimizer.name)
        if self.task is TaskName.EMBEDDING and self.run.accumulation_steps != 1:
            whole = f"1 with task={self.task}: a text is contrasted with the whole batch"
            raise FieldError("run.accumulation_steps", whole, self.run.accumulation_steps)
        if self.decoding.temperature:
            raise FieldError(
                "decoding.temperature", "0: texts are scored", self.decoding.temperature
            )

    @staticmethod
    def follow_settings(settings: GivenSettings) -> None:
        """Set the settings that follow from those given on a command line."""
        follow_steps(settings)
        follow_optimizer(settings)
