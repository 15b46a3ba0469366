"""Attention: a reference, faster implementations for CPUs, GPUs and TPUs, and the choice of one."""

from albert_jax.attention.dispatch import Attention, choose_attention, make_attention_fn
from albert_jax.attention.implementation import (
    AttentionFn,
    AttentionImplementation,
    AttentionWorkload,
)
from albert_jax.attention.mask import AttentionMask, packed_mask, padding_mask
from albert_jax.attention.reference import dot_product_attention

__all__ = [
    "Attention",
    "AttentionFn",
    "AttentionImplementation",
    "AttentionMask",
    "AttentionWorkload",
    "choose_attention",
    "dot_product_attention",
    "make_attention_fn",
    "packed_mask",
    "padding_mask",
]
