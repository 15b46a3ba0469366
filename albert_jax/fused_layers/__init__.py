"""Passes between the matrix products of a layer as Triton kernels for NVIDIA GPUs."""

from albert_jax.fused_layers.gelu import gelu_dense
from albert_jax.fused_layers.layer_norm import add_and_norm
from albert_jax.fused_layers.verification import check_fused_layers, unsupported_reason

__all__ = ["add_and_norm", "check_fused_layers", "gelu_dense", "unsupported_reason"]
