"""The dense layer, layer norm and activations with ALBERT's initialization and precision.

Products, GELU and layer norm have backward passes of their own, for what they keep and how often
they go through memory. Their forward passes spell out what they compute, so that a policy of
rematerialization finds the products in it.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.config import AlbertConfig, HiddenAct, Initialization

_REFERENCE_WIDTH = 1024  # of ALBERT large, up to which initial weights were not made smaller

AnyArray = Array | np.ndarray  # what callers may pass: batches often come from NumPy

_GELU_SLOPE, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """GELU by tanh, as ALBERT was trained with. For the backward pass it keeps its input alone.

    Left to itself JAX keeps a second array of that size, at four times the hidden size the largest
    of a layer.
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.gelu(x, approximate=True), x


def _gelu_backward(x: Array, slope: Array) -> tuple[Array]:
    dtype = x.dtype
    x = x.astype(at_least_float32(dtype))
    tanh = jnp.tanh(_GELU_SLOPE * (x + _GELU_CUBE * x**3))
    inner = _GELU_SLOPE * (1 + 3 * _GELU_CUBE * x**2)
    derivative = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner
    return ((slope.astype(x.dtype) * derivative).astype(dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)

ACTIVATIONS: dict[HiddenAct, Callable[[Array], Array]] = {
    HiddenAct.GELU: gelu,
    HiddenAct.GELU_ERF: lambda x: jax.nn.gelu(x, approximate=False),
    HiddenAct.RELU: jax.nn.relu,
    HiddenAct.TANH: jnp.tanh,
    HiddenAct.LINEAR: lambda x: x,
}


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """The type for what must not lose precision: softmax, layer norm, logits and losses."""
    return jnp.promote_types(dtype, jnp.float32)


def initializer(
    config: AlbertConfig, *, inputs: int | None = None
) -> jax.nn.initializers.Initializer:
    """Normal, cut at two standard deviations and not rescaled: 0.02 realizes 0.0176.

    Args:
        config: gives the deviation, see `Initialization`.
        inputs: of a dense layer; None for a table, whose rows are looked up.
    """
    deviation = config.initializer_range
    if config.initialization is Initialization.HIDDEN_SIZE:
        deviation *= min(1, math.sqrt(_REFERENCE_WIDTH / config.hidden_size))
    elif config.initialization is Initialization.FAN_IN and inputs is not None:
        deviation *= math.sqrt(_REFERENCE_WIDTH / inputs)
    return jax.nn.initializers.truncated_normal(deviation)


@jax.custom_vjp
def matmul(
    x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs features"]
) -> Float[Array, "*batch features"]:
    """Each vector times the kernel.

    The kernel's gradient is one product over all vectors as they lie in memory. The one that JAX
    derives sums over several axes and comes out turned, for which a CPU first writes the other
    operand turned as well.
    """
    return _matmul_forward(x, kernel)[0]


def _matmul_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    along = (((x.ndim - 1,), (0,)), ((), ()))
    return jax.lax.dot_general(x, kernel, along), (x, kernel)


def _matmul_backward(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = kept
    vectors, slopes = (y.reshape(-1, y.shape[-1]) for y in (x, slope))
    to_kernel = jax.lax.dot_general(vectors, slopes, (((0,), (0,)), ((), ())))
    return slope @ kernel.T, to_kernel


matmul.defvjp(_matmul_forward, _matmul_backward)


def dense(
    config: AlbertConfig, features: int, dtype: DTypeLike, name: str | None = None
) -> nn.Dense:
    """A dense layer with bias; float32 parameters, computed in `dtype`."""

    def draw(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return initializer(config, inputs=shape[0])(key, shape, dtype)

    def multiply(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        return matmul(x, kernel)

    return nn.Dense(features, dtype=dtype, kernel_init=draw, name=name, dot_general=multiply)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
    x: Float[Array, "*batch features"],
    scale: Float[AnyArray, " features"],
    bias: Float[AnyArray, " features"],
    epsilon: float,
    dtype: DTypeLike,
) -> Float[Array, "*batch features"]:
    """Layer norm over the last axis, its moments taken in at least float32.

    The variance is that of the centered values: the one-pass form loses it to rounding at an
    epsilon as small as ALBERT's 1e-12.

    Args:
        x: what is normed.
        scale: factor of each feature.
        bias: what is added to each feature.
        epsilon: added to the variance.
        dtype: of the result.
    """
    return _layer_norm_forward(x, scale, bias, epsilon, dtype)[0]


def _layer_norm_forward(
    x: Array, scale: AnyArray, bias: AnyArray, epsilon: float, dtype: DTypeLike
) -> tuple[Array, tuple[AnyArray, ...]]:
    values = x.astype(at_least_float32(dtype))
    mean = values.mean(-1, keepdims=True)
    centered = values - mean
    inverse = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + epsilon)
    return (centered * inverse * scale + bias).astype(dtype), (x, scale, mean, inverse)


def _layer_norm_backward(
    epsilon: float, dtype: DTypeLike, kept: tuple[AnyArray, ...], slope: Array
) -> tuple[Array, Array, Array]:
    del epsilon
    # Held fast, or GPUs' compiler computes the moments of each row again for every feature's sum
    # over rows, and writes what it sums up in float32 for it.
    x, scale, mean, inverse, slope = jax.lax.optimization_barrier((*kept, slope))
    slope = slope.astype(at_least_float32(dtype))
    normed = (x.astype(at_least_float32(dtype)) - mean) * inverse
    scaled = slope * scale
    along = (scaled * normed).mean(-1, keepdims=True)
    pulled = inverse * (scaled - scaled.mean(-1, keepdims=True) - normed * along)
    rows = tuple(range(x.ndim - 1))
    to_scale, to_bias = (slope * normed).sum(rows), slope.sum(rows)
    return pulled.astype(x.dtype), to_scale.astype(scale.dtype), to_bias.astype(scale.dtype)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """`layer_norm` with its parameters."""

    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return layer_norm(x, scale, bias, self.epsilon, self.dtype)
