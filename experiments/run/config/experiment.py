"""Configuration of a pre-training experiment: model, data, optimizer and run, checked together."""

import dataclasses
from typing import ClassVar

from albert_jax.config import AlbertConfig
from albert_jax.settings import FieldError, check_settings, setting
from albert_jax.tasks.config import ObjectiveConfig, TokenLoss
from albert_jax.tasks.distillation import DistillationConfig
from albert_jax.training.config import OptimizerConfig, OptimizerName, ScheduleName
from data_pipeline.config import DataConfig
from experiments.cli.given_settings import GivenSettings
from experiments.goodput.profiling import check_profile
from experiments.run.config.derived_settings import follow_lengths, follow_optimizer, follow_steps
from experiments.run.config.phases import PhaseConfig, PhasesConfig
from experiments.run.config.training_run import (
    LARGEST_SEED,
    MOST_ROWS,
    RunConfig,
    check_batch_size,
)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """A pre-training experiment. All but `run` is fixed in a workdir.

    Raises:
        FieldError: a value is not allowed, or two parts do not fit together.
    """

    LOCATIONS: ClassVar[frozenset[str]] = frozenset(
        {
            *("data.corpus_dir", "data.decay_corpus_dir", "data.records_dir", "data.plan_dir"),
            "distillation.teacher",
        }
    )

    model: AlbertConfig = dataclasses.field(default_factory=AlbertConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)
    phases: PhasesConfig = dataclasses.field(default_factory=PhasesConfig)
    global_batch_size: int = setting(
        4096, "rows per step, over all devices and micro-batches", at_least=1, at_most=MOST_ROWS
    )
    seed: int = setting(
        12345,
        "seed of parameters, data order, masks and dropout",
        at_least=0,
        at_most=LARGEST_SEED,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.model.type_vocab_size < 2:
            segments = "at least 2, one for each segment of a pair"
            raise FieldError("model.type_vocab_size", segments, self.model.type_vocab_size)
        self._check_objective()
        self._check_distillation()
        check_batch_size("global_batch_size", self.global_batch_size, self.run)
        self._check_length("data.max_seq_length", self.data.max_seq_length)
        self._check_length("run.evaluation_seq_length", self.evaluation_seq_length)
        for name in ("first", "second"):
            self._check_phase(f"phases.{name}", getattr(self.phases, name))
        check_profile(self.run.profile_steps, self.optimizer.num_train_steps)
        early = sum(phase.num_steps for phase in self.phases.in_order)
        if early and early >= (steps := self.optimizer.num_train_steps):
            more = f"more than the {early} of the phases, to leave steps at data.max_seq_length"
            raise FieldError("optimizer.num_train_steps", more, steps)
        if self.data.decay_corpus_dir:
            self._check_decay(early)

    @staticmethod
    def follow_settings(settings: GivenSettings) -> None:
        """Set the settings that are derived from those that a command line names."""
        follow_steps(settings)
        follow_optimizer(settings)
        follow_lengths(settings)

    def _check_distillation(self) -> None:
        if not self.distillation.teacher:
            return
        if self.generator is not None:
            loss = f"empty with objective.token_loss={self.objective.token_loss}"
            raise FieldError("distillation.teacher", loss, self.distillation.teacher)
        if self.optimizer.name is OptimizerName.SOPHIA:
            words = "another with distillation.teacher, whose loss has no labels to sample"
            raise FieldError("optimizer.name", words, self.optimizer.name)
        if self.distillation.top_k > self.model.vocab_size:
            most = f"at most model.vocab_size ({self.model.vocab_size})"
            raise FieldError("distillation.top_k", most, self.distillation.top_k)

    def _check_objective(self) -> None:
        """Check the settings that replaced tokens exclude, and the generator."""
        kind = self.objective.token_loss
        if kind is TokenLoss.REPLACED_TOKENS:
            if self.model.num_experts:
                words = f"0 with objective.token_loss={kind}"
                raise FieldError("model.num_experts", words, self.model.num_experts)
            if self.optimizer.name is OptimizerName.SOPHIA:
                words = f"another with objective.token_loss={kind}"
                raise FieldError("optimizer.name", words, self.optimizer.name)
        try:
            _ = self.generator
        except FieldError as error:
            raise error.within("objective") from error

    def _check_length(self, name: str, length: int) -> None:
        longest = self.model.longest_row
        if longest is not None and length > longest:
            raise FieldError(name, f"at most model.max_position_embeddings ({longest})", length)

    def _check_phase(self, name: str, phase: PhaseConfig) -> None:
        if not phase.num_steps:
            return
        if phase.global_batch_size is not None:
            check_batch_size(f"{name}.global_batch_size", phase.global_batch_size, self.run)
        self._check_length(f"{name}.max_seq_length", phase.max_seq_length)
        try:
            dataclasses.replace(
                self.data,
                max_seq_length=phase.max_seq_length,
                max_predictions_per_seq=phase.max_predictions_per_seq,
            )
        except FieldError as error:
            raise error.within(name) from error

    def _check_decay(self, early: int) -> None:
        """Check that there is a decay, and that steps on another corpus come before it."""
        optimizer, data = self.optimizer, self.data
        stable = ScheduleName.WARMUP_STABLE_DECAY
        if optimizer.schedule is not stable:
            allowed = f"{stable} with data.decay_corpus_dir={data.decay_corpus_dir}"
            raise FieldError("optimizer.schedule", allowed, optimizer.schedule)
        if not optimizer.decay_share:
            allowed = f"above 0 with data.decay_corpus_dir={data.decay_corpus_dir}"
            raise FieldError("optimizer.decay_share", allowed, optimizer.decay_share)
        if data.records_dir:
            allowed = "empty with data.records_dir"
            raise FieldError("data.decay_corpus_dir", allowed, data.decay_corpus_dir)
        steps, decay = optimizer.num_train_steps, optimizer.num_decay_steps
        if early + decay >= steps:
            more = f"more than {early} of the phases and {decay} of the decay"
            raise FieldError("optimizer.num_train_steps", more, steps)

    @property
    def generator(self) -> AlbertConfig | None:
        """Sizes of the generator of replaced tokens; None where there is none."""
        return self.objective.generator_config(self.model)

    @property
    def evaluation_seq_length(self) -> int:
        """Length of the rows of an evaluation."""
        return self.run.evaluation_seq_length or self.data.max_seq_length
