"""The record that describes an implementation of attention, and the workload it must support."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import Array
from jax.typing import DTypeLike

from albert_jax.attention.mask import AttentionMask
from albert_jax.config import AlbertConfig
from albert_jax.positions import position_encoder

# Attention with its mask bound: (query, key, value, *, bias, dropout_rate, dropout_key) -> context,
# where each of the four arrays is [batch, length, heads, width].
AttentionFn = Callable[..., Array]


class AttentionWorkload(NamedTuple):
    """The model, rows and device that attention must support."""

    config: AlbertConfig
    dtype: DTypeLike
    lengths: tuple[int, ...]  # of rows; empty: any
    packed: bool  # True if a row may hold several sequences
    device: jax.Device
    partitioned: bool = False  # True if run.tensor splits arrays over devices
    slotted: bool = False  # True if the rows of a batch share slots for their sequences
    described: bool = False  # True if the device is not present, so nothing is verified on it

    @property
    def head_width(self) -> int:
        """The width of a head."""
        return self.config.hidden_size // self.config.num_attention_heads


@dataclasses.dataclass(frozen=True)
class AttentionImplementation:
    """One way to compute attention.

    Attributes:
        bind: maps a batch's mask to a function ``(query, key, value) -> context``, with the keyword
            arguments `bias` if it supports a bias, and `dropout_rate` and `dropout_key` if it
            supports dropout. Called once for all layers, or twice if some have a window.
        unsupported_reason: maps a workload to the reason why it is unsupported, in words that
            continue "cudnn cannot be used: ", or to None if it is supported. Bias, dropout and
            windows have been checked before.
        platform: platform of the devices on which `auto` tries it; None for no devices.
        supports_bias: True if a position encoding may add to scores and values.
        supports_dropout: True if it can drop probabilities.
        supports_reach: True if a mask may have a `reach`.
        verified: True if it must agree with the reference on the device before it is used.
    """

    bind: Callable[[AttentionMask], AttentionFn]
    unsupported_reason: Callable[[AttentionWorkload], str | None]
    platform: str | None = None
    supports_bias: bool = False
    supports_dropout: bool = False
    supports_reach: bool = False
    verified: bool = True

    def reason_against(self, workload: AttentionWorkload) -> str | None:
        """Return why a workload is unsupported, or None if it is supported."""
        config = workload.config
        if position_encoder(config).has_bias and not self.supports_bias:
            return (
                f"it supports no bias by position (model.position_encoding="
                f"{config.position_encoding})"
            )
        if config.attention_probs_dropout_prob > 0 and not self.supports_dropout:
            return (
                "it has no dropout that follows the run's seed: "
                "model.attention_probs_dropout_prob must be 0, it is "
                f"{config.attention_probs_dropout_prob}"
            )
        if config.attention_window and not self.supports_reach:
            window = config.attention_window
            return f"it has no window: model.attention_window must be 0, it is {window}"
        return self.unsupported_reason(workload)
