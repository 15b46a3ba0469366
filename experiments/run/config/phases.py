"""Configuration of the early parts of a pre-training run."""

import dataclasses

from albert_jax.settings import check_settings, setting
from data_pipeline.config import LONGEST_ROW, SHORTEST_ROW
from experiments.run.config.training_run import MOST_ROWS


@dataclasses.dataclass(frozen=True)
class PhaseConfig:
    """An early part of training, on rows of another length or in batches of another size.

    Raises:
        FieldError: a value is not allowed.
    """

    num_steps: int = setting(0, "steps of the phase; 0: no such phase", at_least=0)
    max_seq_length: int = setting(
        128, "length of a row, with special tokens", at_least=SHORTEST_ROW, at_most=LONGEST_ROW
    )
    max_predictions_per_seq: int = setting(20, "prediction slots of a row", at_least=1)
    masked_lm_prob: float | None = setting(
        None, "fraction of tokens to predict; none: data.masked_lm_prob", at_least=0, at_most=1
    )
    global_batch_size: int | None = setting(
        None,
        "rows per step; none: the experiment's global_batch_size",
        at_least=1,
        at_most=MOST_ROWS,
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
    """Parts of training before rows of `data.max_seq_length`, counted in steps of the run. Schedule
    and optimizer continue through all of them, with the rate for the run's own batch size."""

    first: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)
    second: PhaseConfig = dataclasses.field(default_factory=PhaseConfig)

    @property
    def in_order(self) -> list[PhaseConfig]:
        """The phases with steps."""
        return [phase for phase in (self.first, self.second) if phase.num_steps]
