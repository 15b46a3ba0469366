"""Configuration of the optimizer and of its learning rate schedule."""

import dataclasses
from enum import StrEnum

from albert_jax.settings import FieldError, check_settings, setting


class ScheduleName(StrEnum):
    """Shape of the learning rate after warm-up.

    The released code counts its polynomial decay from step 0, warm-up or not, so the rate drops
    abruptly as warm-up ends (``legacy_poly``). All others begin at the peak.
    """

    LEGACY_POLY = "legacy_poly"  # ALBERT, BERT: (1 - step / N)^p
    POLY = "poly"  # the same, counted from the end of warm-up
    COSINE = "cosine"  # half a period, down to 0 (Loshchilov and Hutter 2017)
    # Constant at the peak, then a decay to 0 at the end (Hu et al. 2024): training can be extended
    # from any step before the decay.
    WARMUP_STABLE_DECAY = "warmup_stable_decay"
    INVERSE_ROOT = "inverse_root"  # sqrt(W / step), without an end (Vaswani et al. 2017)


class OptimizerName(StrEnum):
    """Optimizer. Released ALBERT models were trained with the first two only."""

    LAMB = "lamb"  # updates scaled by each tensor's trust ratio (You et al. 2020)
    ADAMW = "adamw"  # the same without ratios
    # Orthogonalized steps for the layers' matrices (Jordan et al. 2024) and AdamW's for all else,
    # scaled so that AdamW's learning rates fit (Liu et al. 2025).
    MUON = "muon"
    ADEMAMIX = "ademamix"  # AdamW with a second, slow mean of gradients (Pagliardini et al. 2024)
    # AdamW at a constant rate, with a mean of the weights, which is evaluated, in place of momentum
    # (Defazio et al. 2024).
    SCHEDULE_FREE = "schedule_free"
    # Mean gradients over the curvature of the loss, each entry at most 1 (Liu et al. 2023).
    SOPHIA = "sophia"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and learning rate schedule, by default those of pre-training in ALBERT §4.1.

    Raises:
        FieldError: a value is not allowed.
    """

    name: OptimizerName = setting(OptimizerName.LAMB, "how gradients become updates")
    learning_rate: float = setting(0.00176, "peak, reached after warm-up", above=0)
    schedule: ScheduleName = setting(
        ScheduleName.LEGACY_POLY, "shape of the learning rate after warm-up"
    )
    poly_power: float = setting(
        1.0, "power of the decay in legacy_poly, poly and warmup_stable_decay", above=0
    )
    decay_share: float = setting(
        0.1, "fraction of all steps in the decay of warmup_stable_decay", at_least=0, below=1
    )
    num_train_steps: int = setting(
        125_000, "steps; the rate is 0 at the end, except with inverse_root", at_least=1
    )
    num_warmup_steps: int = setting(
        3_125, "steps over which the rate rises from 0; follows num_train_steps", at_least=0
    )
    start_warmup_step: int = setting(0, "step before which the rate is 0", at_least=0)
    weight_decay: float = setting(0.01, "decoupled weight decay", at_least=0)
    beta_1: float = setting(0.9, "decay of the gradient's mean", at_least=0, below=1)
    beta_2: float = setting(0.999, "decay of the squared gradient's mean", at_least=0, below=1)
    epsilon: float = setting(1e-6, "added to the root of the second moment", above=0)
    muon_momentum: float = setting(0.95, "decay of muon's mean gradient", at_least=0, below=1)
    slow_beta: float = setting(
        0.999,
        "decay of ademamix's slow mean; use 0.9999 for more than 100,000 steps",
        at_least=0,
        below=1,
    )
    slow_share: float = setting(5.0, "weight of ademamix's slow mean", at_least=0)
    curvature_every: int = setting(10, "steps between two of sophia's estimates", at_least=1)
    curvature_beta: float = setting(
        0.99, "decay of the mean of sophia's estimates", at_least=0, below=1
    )
    curvature_scale: float = setting(
        0.05, "sophia's gradients are divided by this times the curvature", above=0
    )
    bias_correction: bool = setting(False, "correct the moments for their start at 0")
    max_grad_norm: float | None = setting(
        1.0, "clip the norm over all gradients to this; none: no clipping", above=0
    )
    average_decay: float | None = setting(
        None,
        "decay of a running mean of the parameters, which is evaluated and exported; none: no mean",
        above=0,
        below=1,
    )
    z_loss_weight: float = setting(
        0.0, "weight of the squared log of softmax's denominator in pre-training", at_least=0
    )
    reference_batch_size: int | None = setting(
        None,
        "batch size that learning_rate is for: scale it with the square root of the actual one",
        at_least=1,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        warmup, before = self.num_warmup_steps, self.start_warmup_step
        if before and not warmup:
            raise FieldError("start_warmup_step", "0 without warm-up", before)
        after = self.num_train_steps - before
        if warmup > after:
            most = f"at most num_train_steps - start_warmup_step = {after}"
            raise FieldError("num_warmup_steps", most, warmup)
        if self.schedule is ScheduleName.INVERSE_ROOT and not warmup:
            raise FieldError("num_warmup_steps", "at least 1 for inverse_root", 0)
        if self.schedule is ScheduleName.WARMUP_STABLE_DECAY:
            room = after - warmup
            if self.num_decay_steps > room:
                most = f"at most {room / self.num_train_steps:g}, what warm-up leaves"
                raise FieldError("decay_share", most, self.decay_share)
        if self.name is OptimizerName.SCHEDULE_FREE:
            self._check_schedule_free()

    def _check_schedule_free(self) -> None:
        stable = ScheduleName.WARMUP_STABLE_DECAY
        if self.schedule is not stable:
            allowed = f"{stable} for {self.name}, with decay_share 0"
            raise FieldError("schedule", allowed, self.schedule)
        if self.decay_share:
            raise FieldError("decay_share", f"0 for {self.name}", self.decay_share)
        if not self.beta_1:
            raise FieldError("beta_1", f"above 0 for {self.name}", self.beta_1)
        if self.average_decay is not None:
            allowed = f"none for {self.name}, which evaluates a mean of its own"
            raise FieldError("average_decay", allowed, self.average_decay)

    @property
    def num_decay_steps(self) -> int:
        """Steps in the decay of a `warmup_stable_decay`."""
        return max(1, round(self.decay_share * self.num_train_steps))
