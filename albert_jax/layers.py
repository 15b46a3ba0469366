"""Layers with ALBERT's initialization and precision: dense, embedding, norm, activations.

GELU and layer norm define their own backward passes, to keep fewer arrays and make fewer passes
over memory.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.config import AlbertConfig, FeedForwardKind, HiddenAct, Initialization, NormKind
from albert_jax.matmuls.dense_matmul import Matmuls, matmul

_REFERENCE_WIDTH = 1024  # hidden size of ALBERT large, at which `initializer_range` is not scaled

AnyArray = Array | np.ndarray  # accepted from callers: batches often come from NumPy
HeadVectors = Float[Array, "batch length heads width"]  # queries, keys, values, contexts

GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715


@jax.custom_vjp
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Compute the tanh approximation of GELU, with which ALBERT was trained.

    Only the input is kept for the backward pass. By default JAX keeps a second array of that size,
    which at four times the hidden size is the largest of a layer.
    """
    return _gelu_forward(x)[0]


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return jax.nn.gelu(x, approximate=True), x


def _gelu_backward(x: Array, cotangent: Array) -> tuple[Array]:
    dtype = x.dtype
    x = x.astype(at_least_float32(dtype))
    tanh = jnp.tanh(GELU_SCALE * (x + GELU_CUBIC * x**3))
    inner = GELU_SCALE * (1 + 3 * GELU_CUBIC * x**2)
    derivative = 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh**2) * inner
    return ((cotangent.astype(x.dtype) * derivative).astype(dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)

ACTIVATIONS: dict[HiddenAct, Callable[[Array], Array]] = {
    HiddenAct.GELU: gelu,
    HiddenAct.GELU_ERF: lambda x: jax.nn.gelu(x, approximate=False),
    HiddenAct.RELU: jax.nn.relu,
    HiddenAct.TANH: jnp.tanh,
    HiddenAct.LINEAR: lambda x: x,
}
GATES: dict[FeedForwardKind, Callable[[Array], Array]] = {
    FeedForwardKind.GEGLU: gelu,
    FeedForwardKind.SWIGLU: jax.nn.silu,
}


def at_least_float32(dtype: DTypeLike) -> jnp.dtype:
    """Return the type for what must not lose precision: softmax, layer norm, logits and losses."""
    return jnp.promote_types(dtype, jnp.float32)


def initializer(
    config: AlbertConfig, *, inputs: int | None = None
) -> jax.nn.initializers.Initializer:
    """Return a normal initializer that is truncated at two standard deviations and not rescaled.

    A standard deviation of 0.02 therefore yields weights with one of 0.0176.

    Args:
        config: gives the standard deviation, see `Initialization`.
        inputs: number of inputs of a dense layer; None for an embedding table.
    """
    deviation = config.initializer_range
    if config.initialization is Initialization.HIDDEN_SIZE:
        deviation *= min(1, math.sqrt(_REFERENCE_WIDTH / config.hidden_size))
    elif config.initialization is Initialization.FAN_IN and inputs is not None:
        deviation *= math.sqrt(_REFERENCE_WIDTH / inputs)
    return jax.nn.initializers.truncated_normal(deviation)


class Dense(nn.Module):
    """A dense layer, by default with a bias; parameters are float32, computation is in `dtype`."""

    config: AlbertConfig
    features: int
    dtype: DTypeLike = jnp.float32
    matmuls: Matmuls = Matmuls.SAME
    has_bias: bool = True

    def __call__(
        self, x: Float[Array, "*batch inputs"], *, bias_has_gradient: bool = True
    ) -> Float[Array, "*batch features"]:
        """Apply the layer.

        Without `bias_has_gradient` the bias gets no gradient here. This is for a bias whose
        gradient is zero (that of keys adds the same value to all scores of a query) or is computed
        elsewhere.
        """
        kernel, bias = self.parameters(x.shape[-1])
        if not self.has_bias:
            return matmul(x.astype(self.dtype), kernel, self.matmuls)
        bias = bias if bias_has_gradient else jax.lax.stop_gradient(bias)
        return affine(x.astype(self.dtype), kernel, bias, self.matmuls)

    @nn.compact
    def parameters(
        self, inputs: int
    ) -> tuple[Float[Array, "inputs features"], Float[Array, " features"]]:
        """Return kernel and bias in `dtype` for use elsewhere; without a bias, zeros."""
        initialize = initializer(self.config, inputs=inputs)
        kernel = self.param("kernel", initialize, (inputs, self.features))
        if not self.has_bias:
            return jnp.asarray(kernel, self.dtype), jnp.zeros((self.features,), self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return jnp.asarray(kernel, self.dtype), jnp.asarray(bias, self.dtype)


@runtime_checkable
class AnyDense(Protocol):
    """The interface for applying a dense layer, with or without experts."""

    @property
    def config(self) -> AlbertConfig: ...

    @property
    def matmuls(self) -> Matmuls: ...

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]: ...


def affine(
    x: Float[Array, "*batch inputs"],
    kernel: Float[Array, "inputs features"],
    bias: Float[Array, " features"],
    matmuls: Matmuls = Matmuls.SAME,
) -> Float[Array, "*batch features"]:
    """Multiply each vector by the kernel, and add the bias."""
    # The gradient of a reshaped bias is one sum; that of a broadcast bias would be two.
    return matmul(x, kernel, matmuls) + bias.reshape(*[1] * (x.ndim - 1), -1)


def attention_dropout(module: nn.Module, rate: float, *, deterministic: bool) -> dict[str, Any]:
    """Return the dropout options for attention; empty if nothing is dropped."""
    if deterministic or rate == 0:
        return {}
    return {"dropout_rate": rate, "dropout_key": module.make_rng("dropout")}


def gather_positions(
    hidden: Float[Array, "batch length hidden"], positions: Int[AnyArray, "batch chosen"]
) -> Float[Array, "batch chosen hidden"]:
    """Gather the vectors at the given positions of each row.

    Example: row ``[a, b, c]`` at positions ``[2, 0]`` gives ``[c, a]``.
    """
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


def dense(
    config: AlbertConfig,
    features: int,
    dtype: DTypeLike,
    name: str | None = None,
    matmuls: Matmuls = Matmuls.SAME,
    *,
    has_bias: bool = True,
) -> Dense:
    """Build a dense layer."""
    return Dense(config, features, dtype, matmuls, has_bias, name=name)


def embedding_table(
    config: AlbertConfig, rows: int, dtype: DTypeLike, name: str | None = None
) -> nn.Embed:
    """Build an embedding table of width E; parameters are float32, lookups return `dtype`."""
    return nn.Embed(
        rows, config.embedding_size, dtype=dtype, embedding_init=initializer(config), name=name
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
    x: Float[Array, "*batch features"],
    scale: Float[AnyArray, " features"],
    bias: Float[AnyArray, " features"],
    epsilon: float,
    dtype: DTypeLike,
) -> Float[Array, "*batch features"]:
    """Normalize over the last axis, with moments in at least float32.

    The variance is computed from the centered values. With an epsilon as small as ALBERT's 1e-12,
    the one-pass formula would lose it to rounding.

    Args:
        x: the input.
        scale: factor of each feature.
        bias: added to each feature.
        epsilon: added to the variance.
        dtype: dtype of the result.
    """
    return _layer_norm_forward(x, scale, bias, epsilon, dtype)[0]


def _layer_norm_forward(
    x: Array, scale: AnyArray, bias: AnyArray, epsilon: float, dtype: DTypeLike
) -> tuple[Array, tuple[Any, ...]]:
    values = x.astype(at_least_float32(dtype))
    mean = values.mean(-1, keepdims=True)
    centered = values - mean
    inverse = jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + epsilon)
    return (centered * inverse * scale + bias).astype(dtype), (x, scale, mean, inverse)


def _layer_norm_backward(
    epsilon: float, dtype: DTypeLike, residuals: tuple[Any, ...], cotangent: Array
) -> tuple[Array, Array, Array]:
    del epsilon
    # Without the barrier, XLA's GPU compiler recomputes each row's moments for every feature's sum
    # over rows, and writes the summands to memory in float32.
    x, scale, mean, inverse, cotangent = jax.lax.optimization_barrier((*residuals, cotangent))
    cotangent = cotangent.astype(at_least_float32(dtype))
    normalized = (x.astype(at_least_float32(dtype)) - mean) * inverse
    scaled = cotangent * scale
    projection = (scaled * normalized).mean(-1, keepdims=True)
    of_x = inverse * (scaled - scaled.mean(-1, keepdims=True) - normalized * projection)
    rows = tuple(range(x.ndim - 1))
    of_scale, of_bias = (cotangent * normalized).sum(rows), cotangent.sum(rows)
    return of_x.astype(x.dtype), of_scale.astype(scale.dtype), of_bias.astype(scale.dtype)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class RmsNorm(nn.Module):
    """RMS norm over the last axis with a learned scale, computed in at least float32."""

    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        values = x.astype(at_least_float32(self.dtype))
        mean_square = jnp.square(values).mean(-1, keepdims=True)
        return (values * jax.lax.rsqrt(mean_square + self.epsilon) * scale).astype(self.dtype)


class LayerNorm(nn.Module):
    """`layer_norm` with its parameters."""

    epsilon: float
    dtype: DTypeLike = jnp.float32

    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        return layer_norm(x, *self.parameters(x.shape[-1]), self.epsilon, self.dtype)

    @nn.compact
    def parameters(
        self, features: int
    ) -> tuple[Float[AnyArray, " features"], Float[AnyArray, " features"]]:
        """Return scale and bias for use elsewhere."""
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        return scale, bias


NormLayer = LayerNorm | RmsNorm


def normalization(config: AlbertConfig, dtype: DTypeLike, name: str | None = None) -> NormLayer:
    """Build a norm of the configured kind; parameters are float32, the result is in `dtype`."""
    kind = RmsNorm if config.norm_kind is NormKind.RMS else LayerNorm
    return kind(config.layer_norm_eps, dtype, name=name)
