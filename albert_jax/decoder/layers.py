"""The halves of a decoder's layer: causal self-attention, cross-attention, feed-forward.

Each normalizes its input first, then adds its result to the input (Radford et al. 2019, §2.3). The
decoder binds how queries attend to keys, through a causal mask or a cache, as the encoder binds its
attention. Parameters have the names of the encoder's halves, so that LAMB, weight decay and
sharding treat both alike.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.attention.implementation import AttentionFn
from albert_jax.decoder.config import Gpt2Config
from albert_jax.layers import ACTIVATIONS, HeadVectors, LayerNorm, affine, attention_dropout

# Layouts in memory: a CPU multiplies a few queries with such matrices two to four times as fast as
# with transposed ones.
Keys = Float[Array, "batch heads width keys"]
Values = Float[Array, "batch heads keys width"]

# The projection of the encoder's output, [batch, source, hidden], to keys and values.
MemoryProjection = Callable[[Array], tuple[Keys, Values]]
# (query, projection, *, dropout_rate, dropout_key) -> context: attention to the encoder's output,
# which it projects unless it already has the keys and values.
CrossAttentionFn = Callable[..., Array]


class Projection(nn.Module):
    """A dense layer with bias, in `dtype`; parameters are float32, initially normal, untruncated.

    A residual projection is the last of its half. Its initial weights are divided by the square
    root of the number of halves that add to the residual, two per layer (Radford et al. 2019,
    §2.3); cross-attention, which came later, is not counted.
    """

    config: Gpt2Config
    features: int
    dtype: DTypeLike = jnp.float32
    residual: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch features"]:
        deviation = self.config.initializer_range
        if self.residual:
            deviation /= math.sqrt(2 * self.config.n_layer)
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(deviation), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        dtype = self.dtype
        return affine(x.astype(dtype), jnp.asarray(kernel, dtype), jnp.asarray(bias, dtype))


def as_keys(x: HeadVectors) -> Keys:
    """Return keys in the layout in which queries are multiplied with them."""
    return x.transpose(0, 2, 3, 1)


def as_values(x: HeadVectors) -> Values:
    """Return values in the layout in which probabilities are multiplied with them."""
    return x.transpose(0, 2, 1, 3)


class _Attention(nn.Module):
    """What self-attention and cross-attention have in common."""

    config: Gpt2Config
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        config, width = self.config, self.config.n_embd
        self.layer_norm = LayerNorm(config.layer_norm_epsilon, self.dtype)
        self.query = Projection(config, width, self.dtype)
        self.key = Projection(config, width, self.dtype)
        self.value = Projection(config, width, self.dtype)
        self.dense = Projection(config, width, self.dtype, residual=True)
        self.dropout = nn.Dropout(config.resid_pdrop)

    def _split(self, x: Float[Array, "batch length hidden"]) -> HeadVectors:
        heads = self.config.n_head
        return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)

    def _dropout_options(self, deterministic: bool) -> dict[str, Any]:
        return attention_dropout(self, self.config.attn_pdrop, deterministic=deterministic)

    def _add(
        self, hidden: Float[Array, "batch length hidden"], context: HeadVectors, deterministic: bool
    ) -> Float[Array, "batch length hidden"]:
        projected = self.dense(context.reshape(hidden.shape))
        return hidden + self.dropout(projected, deterministic=deterministic)


class CausalSelfAttention(_Attention):
    """Attention of each token of the target to itself and those before it."""

    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: AttentionFn,
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length hidden"]:
        x = self.layer_norm(hidden)
        query, key, value = (self._split(f(x)) for f in (self.query, self.key, self.value))
        context = attend(query, key, value, **self._dropout_options(deterministic))
        return self._add(hidden, context, deterministic)


class CrossAttention(_Attention):
    """Attention of each token of the target to the encoder's output."""

    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: CrossAttentionFn,
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length hidden"]:
        query = self._split(self.query(self.layer_norm(hidden)))
        context = attend(query, self.project, **self._dropout_options(deterministic))
        return self._add(hidden, context, deterministic)

    def project(self, memory: Float[Array, "batch source hidden"]) -> tuple[Keys, Values]:
        """Return the keys and values of the encoder's output."""
        keys, values = (self._split(f(memory)) for f in (self.key, self.value))
        return as_keys(keys), as_values(values)


class DecoderFeedForward(nn.Module):
    """The feed-forward half: widen, activate, narrow, drop, add."""

    config: Gpt2Config
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: AttentionFn,
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length hidden"]:
        del attend  # all halves are called the same way
        config, dtype = self.config, self.dtype
        x = LayerNorm(config.layer_norm_epsilon, dtype, name="layer_norm")(hidden)
        wide = Projection(config, config.inner_size, dtype, name="intermediate")(x)
        wide = ACTIVATIONS[config.activation_function](wide)
        narrow = Projection(config, config.n_embd, dtype, residual=True, name="output")(wide)
        return hidden + nn.Dropout(config.resid_pdrop)(narrow, deterministic=deterministic)
