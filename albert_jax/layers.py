"""The dense layer, layer norm and activations with ALBERT's initialization and precision."""

import math
from collections.abc import Callable

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

ACTIVATIONS: dict[HiddenAct, Callable[[Array], Array]] = {
    HiddenAct.GELU: lambda x: jax.nn.gelu(x, approximate=True),
    HiddenAct.GELU_ERF: lambda x: jax.nn.gelu(x, approximate=False),
    HiddenAct.RELU: jax.nn.relu,
    HiddenAct.TANH: jnp.tanh,
    HiddenAct.LINEAR: lambda x: x,
}


def wide(dtype: DTypeLike) -> jnp.dtype:
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


def dense(
    config: AlbertConfig, features: int, dtype: DTypeLike, name: str | None = None
) -> nn.Dense:
    """A dense layer with bias; float32 parameters, computed in `dtype`."""

    def draw(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        return initializer(config, inputs=shape[0])(key, shape, dtype)

    return nn.Dense(features, dtype=dtype, kernel_init=draw, name=name)


class LayerNorm(nn.Module):
    """Layer norm over the last axis, its moments taken in at least float32.

    The variance is that of the centered values: the one-pass form loses it to rounding at an
    epsilon as small as ALBERT's 1e-12.
    """

    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x = x.astype(wide(self.dtype))
        centered = x - x.mean(-1, keepdims=True)
        variance = jnp.square(centered).mean(-1, keepdims=True)
        normed = centered * jax.lax.rsqrt(variance + self.epsilon)
        return (normed * scale + bias).astype(self.dtype)
