"""Configuration of the optimizer and of its learning rate's schedule."""

import dataclasses
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from albert_jax.config import as_choice

_FLAG = "--config.optimizer"  # how messages call a field


class ScheduleName(StrEnum):
    """How the rate goes on when it has been warmed up.

    The released code counts its polynomial decay from step 0, warm-up or not, so the rate falls by
    a jump as warm-up ends (``legacy_poly``). All others begin at the peak.
    """

    LEGACY_POLY = "legacy_poly"  # ALBERT, BERT: (1 - step / N)^p
    POLY = "poly"  # the same, counted from the end of warm-up
    COSINE = "cosine"  # half a wave, down to 0 (Loshchilov and Hutter 2017)
    # The peak, and at the end a fall to 0 (Hu et al. 2024): a run can be gone on with before it.
    WARMUP_STABLE_DECAY = "warmup_stable_decay"
    INVERSE_ROOT = "inverse_root"  # sqrt(W / step), without an end (Vaswani et al. 2017)


class OptimizerName(StrEnum):
    """Whether the step of a tensor is scaled by its trust ratio (lamb) or not (adamw)."""

    LAMB = "lamb"
    ADAMW = "adamw"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Optimizer and schedule. The defaults are those of the released pre-training (ALBERT §4.1).

    Raises:
        ValueError: a value is out of range; the message names the flag, what it got and what it
            may be.
    """

    name: OptimizerName = OptimizerName.LAMB
    learning_rate: float = 0.00176  # what warm-up rises to
    schedule: ScheduleName = ScheduleName.LEGACY_POLY
    poly_power: float = 1.0  # of the decay, where it is no cosine and no root
    decay_share: float = 0.1  # of all steps, the fall that ends a warmup_stable_decay
    num_train_steps: int = 125_000  # the rate is 0 from here on, but for inverse_root
    num_warmup_steps: int = 3_125  # steps over which the rate rises from 0
    start_warmup_step: int = 0  # the rate is 0 up to here
    weight_decay: float = 0.01
    beta_1: float = 0.9  # decay of the gradient's mean
    beta_2: float = 0.999  # decay of its square's mean
    epsilon: float = 1e-6  # added to the root of the second moment
    bias_correction: bool = False
    max_grad_norm: float | None = 1.0  # over all gradients together; None: no clipping
    # If set, `learning_rate` is the one for this batch and grows with the root of the actual one.
    reference_batch_size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", as_choice(OptimizerName, f"{_FLAG}.name", self.name))
        object.__setattr__(
            self, "schedule", as_choice(ScheduleName, f"{_FLAG}.schedule", self.schedule)
        )
        for field, (kinds, fits, allowed) in _RANGES.items():
            value = getattr(self, field)
            if value is None and field in _OPTIONAL:
                continue
            is_kind = isinstance(value, kinds) and isinstance(value, bool) is (bool in kinds)
            if not (is_kind and fits(value)):
                raise ValueError(_complaint(field, allowed, value))
            if float in kinds:
                object.__setattr__(self, field, float(value))
        if self.start_warmup_step and not self.num_warmup_steps:
            raise ValueError(
                _complaint("start_warmup_step", "0 without warm-up", self.start_warmup_step)
            )
        if self.start_warmup_step + self.num_warmup_steps > self.num_train_steps:
            allowed = (
                f"at most num_train_steps - start_warmup_step = "
                f"{self.num_train_steps - self.start_warmup_step}"
            )
            raise ValueError(_complaint("num_warmup_steps", allowed, self.num_warmup_steps))
        if self.schedule is ScheduleName.INVERSE_ROOT and not self.num_warmup_steps:
            raise ValueError(_complaint("num_warmup_steps", "at least 1 for inverse_root", 0))
        if self.schedule is ScheduleName.WARMUP_STABLE_DECAY:
            room = self.num_train_steps - self.start_warmup_step - self.num_warmup_steps
            if self.num_decay_steps > room:
                allowed = f"at most {room / self.num_train_steps:g}, what warm-up leaves"
                raise ValueError(_complaint("decay_share", allowed, self.decay_share))

    @property
    def num_decay_steps(self) -> int:
        """Steps over which a `warmup_stable_decay` falls."""
        return max(1, round(self.decay_share * self.num_train_steps))


def _complaint(field: str, allowed: str, value: Any) -> str:
    return f"{_FLAG}.{field} must be {allowed}, got {value!r}"


# field -> types (a whole number will do for a float), range, and both in words
_Range = tuple[tuple[type, ...], Callable[[Any], bool], str]
_POSITIVE: _Range = (float, int), lambda x: 0 < x < math.inf, "a finite number > 0"
_NOT_NEGATIVE: _Range = (float, int), lambda x: 0 <= x < math.inf, "a finite number >= 0"
_SHARE: _Range = (float, int), lambda x: 0 <= x < 1, "a number in [0, 1)"
_COUNT: _Range = (int,), lambda x: x >= 0, "a whole number >= 0"
_POSITIVE_COUNT: _Range = (int,), lambda x: x >= 1, "a whole number >= 1"
_RANGES: dict[str, _Range] = {
    "learning_rate": _POSITIVE,
    "poly_power": _POSITIVE,
    "decay_share": _SHARE,
    "num_train_steps": _POSITIVE_COUNT,
    "num_warmup_steps": _COUNT,
    "start_warmup_step": _COUNT,
    "weight_decay": _NOT_NEGATIVE,
    "beta_1": _SHARE,
    "beta_2": _SHARE,
    "epsilon": _POSITIVE,
    "bias_correction": ((bool,), lambda _: True, "True or False"),
    "max_grad_norm": _POSITIVE,
    "reference_batch_size": _POSITIVE_COUNT,
}
_OPTIONAL = ("max_grad_norm", "reference_batch_size")
