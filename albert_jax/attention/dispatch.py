"""The choice of an attention: one that is asked for, supported, and correct on the device."""

from enum import StrEnum
from typing import Any

from jax import Array

from albert_jax.attention.blocked import BLOCKED
from albert_jax.attention.cudnn import CUDNN
from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask
from albert_jax.attention.reference import REFERENCE
from albert_jax.attention.splash import SPLASH
from albert_jax.attention.verification import error_of, tolerance


class Attention(StrEnum):
    """Implementations of attention. To register one, it is enough to add a member."""

    implementation: AttentionImplementation | None

    def __new__(
        cls, value: str, implementation: AttentionImplementation | None = None
    ) -> "Attention":
        member = str.__new__(cls, value)
        member._value_ = value
        member.implementation = implementation
        return member

    AUTO = "auto"  # the first below that is for the device and correct on it, or else xla
    XLA = "xla", REFERENCE  # anywhere, any model: scores of all queries and keys
    BLOCKED = "blocked", BLOCKED  # CPUs: long rows a few heads at a time, short ones as xla
    CUDNN = "cudnn", CUDNN  # NVIDIA GPUs, in half precision
    SPLASH = "splash", SPLASH  # TPUs: Pallas's kernel


def make_attention_fn(attention: Attention, mask: AttentionMask) -> AttentionFn:
    """Bind an attention to the mask of a batch.

    Args:
        attention: chosen by `choose_attention`.
        mask: which keys a query attends to.

    Raises:
        ValueError: `auto` was not resolved, or the implementation does not support what it is
            called with.
    """
    implementation = _implementation(attention)
    if mask.reach is not None and not implementation.supports_reach:
        raise ValueError(f"{attention} supports no window")
    bound = implementation.bind(mask)

    def attend(query: Array, key: Array, value: Array, **options: Any) -> Array:
        if "bias" in options and not implementation.supports_bias:
            raise ValueError(f"{attention} supports no bias by position")
        if "dropout_key" in options and not implementation.supports_dropout:
            raise ValueError(f"{attention} supports no dropout")
        return bound(query, key, value, **options)

    return attend


def unsupported_reason(attention: Attention, workload: AttentionWorkload) -> str | None:
    """Return why an attention cannot be used for a workload, or None if it can."""
    return _implementation(attention).reason_against(workload)


def choose_attention(wanted: Attention, workload: AttentionWorkload) -> tuple[Attention, str]:
    """Return the attention to use, and a log line about it.

    A kernel is compared with the reference once, on the actual device, before it is used.

    Raises:
        ValueError: the wanted one does not support the workload, or its results are wrong here.
    """
    if wanted is not Attention.AUTO:
        reason, line = _check(wanted, workload)
        if reason is not None:
            raise ValueError(f"{wanted} cannot be used: {reason}; xla and auto can")
        return wanted, line
    rejected = []
    for attention in Attention:
        implementation = attention.implementation
        if implementation and implementation.platform == workload.device.platform:
            reason, line = _check(attention, workload)
            if reason is None:
                return attention, line
            rejected.append(f"; not {attention}: {reason}")
    return Attention.XLA, f"attention: {Attention.XLA}{''.join(rejected)}"


def _check(attention: Attention, workload: AttentionWorkload) -> tuple[str | None, str]:
    """Return why an attention cannot be used, or None and a log line if it can."""
    implementation, line = _implementation(attention), f"attention: {attention}"
    reason = implementation.reason_against(workload)
    if reason is not None or not implementation.verified or workload.described:
        return reason, line
    try:
        error = error_of(implementation, workload)
    except RuntimeError as failure:  # of a library or compiler that is old or for other devices
        return f"it fails on this device: {str(failure).partition(chr(10))[0]}", line
    allowed = tolerance(workload)
    if not error <= allowed:  # also NaN
        return f"it is {error:.1g} off the reference on this device, {allowed} allowed", line
    return None, f"{line}, within {error:.1g} of the reference on this device"


def _implementation(attention: Attention) -> AttentionImplementation:
    if attention.implementation is None:
        raise ValueError("attention=auto must be resolved by choose_attention first")
    return attention.implementation
