"""Support of fused layers by a device, and their comparison with the plain layers on it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from albert_jax.attention.implementation import AttentionWorkload
from albert_jax.config import AlbertConfig
from albert_jax.fused_layers.gelu import gelu_dense
from albert_jax.fused_layers.halves import has_fused_gelu, has_fused_norm
from albert_jax.fused_layers.layer_norm import add_and_norm
from albert_jax.fused_layers.tiles import triton
from albert_jax.layers import gelu, layer_norm
from albert_jax.matmuls.dense_matmul import matmul
from albert_jax.matmuls.verification import relative_error

_AMPERE = 8.0  # the compute capability from which Triton supports bfloat16
_LENGTHS = (8, 128)  # of the compared rows, if rows may have any length
_ROWS, _SEED, _TOLERANCE = 2, 0, 2e-2


def unsupported_reason(workload: AttentionWorkload) -> str | None:
    """Return why the layers of a workload cannot be fused, or None if they can."""
    config, device, dtype = workload.config, workload.device, jnp.dtype(workload.dtype)
    if device.platform != "gpu":
        return f"they are for NVIDIA GPUs, this is a {device.platform}"
    capability = str(getattr(device, "compute_capability", ""))
    if not capability.replace(".", "").isdigit() or float(capability) < _AMPERE:
        return (
            f"they need an NVIDIA GPU of compute capability {_AMPERE}, this one is {capability!r}"
        )
    if dtype.itemsize != 2:
        return f"they compute in half precision, run.dtype is {dtype.name}"
    if workload.partitioned:
        return "they cannot be split over devices: run.tensor must be 1"
    fuses_norm = has_fused_norm(config) and config.hidden_dropout_prob == 0
    if not fuses_norm and not has_fused_gelu(config):
        return (
            "this model has nothing to fuse: neither model.norm=post of model.norm_kind=layer "
            "without model.hidden_dropout_prob nor model.hidden_act=gelu"
        )
    if triton is None:
        return f"JAX {jax.__version__} does not have jax.experimental.pallas.triton"
    return None


def check_fused_layers(workload: AttentionWorkload) -> float:
    """Return the largest relative error of the values and gradients of fused layers.

    It is measured on the device against plain layers in float32, for two rows of each length.

    Raises:
        ValueError: it is too large, or the kernels fail; the message continues "fused layers: ".
    """
    config, dtype = workload.config, workload.dtype
    with jax.default_device(workload.device):
        try:
            errors = [_error(config, dtype, length) for length in workload.lengths or _LENGTHS]
        except Exception as failure:  # Pallas, Triton and XLA each have their own classes
            line = str(failure).partition("\n")[0] or type(failure).__name__
            raise ValueError(f"they fail on this device: {line}") from failure
    error = float(np.max(errors))  # NaN if there is one
    if not error <= _TOLERANCE:
        raise ValueError(
            f"they are {error:.1g} off the plain layers on this device, {_TOLERANCE} allowed"
        )
    return error


def _error(config: AlbertConfig, dtype: DTypeLike, length: int) -> float:
    hidden, wide, epsilon = config.hidden_size, config.feed_forward_width, config.layer_norm_eps
    key = jax.random.key(_SEED)
    vectors = jax.random.normal(key, (3, _ROWS, length, hidden)).astype(dtype)
    kernel = jax.random.normal(key, (hidden, wide)) / np.sqrt(hidden)  # for results of size one
    widened = jax.random.normal(key, (_ROWS, length, wide)).astype(dtype)
    scale, shift = 1 + jax.random.normal(key, (2, hidden)) / 4

    def fused_norm(*x: Array) -> Array:
        return add_and_norm(*x, epsilon, dtype)

    def plain_norm(residual: Array, projected: Array, bias: Array, *scale_and_bias: Array) -> Array:
        return layer_norm(residual + projected + bias, *scale_and_bias, epsilon, jnp.float32)

    def plain_gelu(x: Array, kernel: Array, bias: Array) -> Array:
        return gelu(matmul(x, kernel) + bias)

    summands = vectors[0], vectors[1], vectors[0, 0, 0], scale, shift
    products = vectors[0], kernel.astype(dtype), widened[0, 0]
    return float(
        np.max(
            [
                _difference(fused_norm, plain_norm, summands, vectors[2]),
                _difference(gelu_dense, plain_gelu, products, widened),
            ]
        )
    )


def _difference(
    fused: Callable[..., Array],
    plain: Callable[..., Array],
    operands: Sequence[Array],
    cotangent: Array,
) -> float:
    """Return the largest relative difference of values and gradients; NaN if there is one."""

    def results(function: Callable[..., Array], operands: Sequence[Array], cotangent: Array) -> Any:
        def run(operands: Sequence[Array], cotangent: Array) -> tuple[Array, ...]:
            value, pullback = jax.vjp(function, *operands)
            return value, *pullback(cotangent)

        return jax.device_get(jax.jit(run)(operands, cotangent))

    ours = results(fused, operands, cotangent)
    with jax.default_matmul_precision("float32"):
        exact = [x.astype(jnp.float32) for x in operands], cotangent.astype(jnp.float32)
        expected = results(plain, *exact)
    return relative_error(ours, expected)
