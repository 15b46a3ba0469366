"""The two halves of a layer: self-attention and feed-forward."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from albert_jax.attention.implementation import AttentionFn
from albert_jax.config import AlbertConfig, Norm
from albert_jax.encoder.execution import Execution
from albert_jax.encoder.experts import EXPERTS, ROUTER, ROUTING, LowRankExperts, RoutedDense, Router
from albert_jax.fused_layers.halves import fuses_norm, project_and_add, widen
from albert_jax.layers import (
    AnyArray,
    AnyDense,
    Dense,
    HeadVectors,
    NormLayer,
    attention_dropout,
    dense,
    gather_positions,
    normalization,
)
from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.positions import position_encoder


class SelfAttention(nn.Module):
    """The attention half of a layer: attend, project, drop, add; normalize after or before.

    It is `local` if attention has a window. With `chosen_positions` it returns these positions
    only: attention is computed for all, in one kernel, and what follows only for the chosen ones.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    local: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: AttentionFn,
        *,
        deterministic: bool,
        chosen_positions: Int[AnyArray, "batch chosen"] | None = None,
    ) -> Float[Array, "batch chosen hidden"]:
        config = self.config
        norm, end_norm = _norms_of_half(config, self.dtype)
        inputs = norm(hidden) if config.norm.is_before else hidden
        rate = config.attention_probs_dropout_prob
        dropout = attention_dropout(self, rate, deterministic=deterministic)
        fused, matmuls = self.execution.fused, self.execution.matmuls
        known = not dropout and fuses_norm(config, fused=fused, deterministic=deterministic)

        def project(layer: Dense, *, known: bool = False) -> HeadVectors:
            projected = layer(inputs, bias_has_gradient=not known)
            return projected.reshape(*hidden.shape[:-1], config.num_attention_heads, -1)

        layer = functools.partial(_dense, config, self.dtype, matmuls, config.hidden_size)
        query, key, value, output = map(layer, ("query", "key", "value", "dense"))
        positions = position_encoder(config)
        vectors = project(query), project(key, known=known and not positions.rotates)
        rotated = (positions.rotate(each, local=self.local) for each in vectors)
        context = attend(*rotated, project(value, known=known), **dropout).reshape(hidden.shape)
        if chosen_positions is not None:
            hidden, context = (gather_positions(x, chosen_positions) for x in (hidden, context))
        return project_and_add(
            *(hidden, context, output, end_norm, value if known else None),
            fused=fused,
            deterministic=deterministic,
        )


class FeedForward(nn.Module):
    """The feed-forward half: widen, activate, narrow, drop, add; normalize after or before."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()
    has_experts: bool = False

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: AttentionFn,
        *,
        deterministic: bool,
        chosen_positions: Int[AnyArray, "batch chosen"] | None = None,
    ) -> Float[Array, "batch length hidden"]:
        del attend, chosen_positions  # both halves are called the same way
        config = self.config
        norm, end_norm = _norms_of_half(config, self.dtype)
        inputs = norm(hidden) if config.norm.is_before else hidden
        layer = self._layers(inputs)
        fused, width = self.execution.fused, config.feed_forward_width
        gate = layer(width, "gate") if config.feed_forward.is_gated else None
        wide = widen(inputs, layer(width, "intermediate"), gate, fused=fused)
        output = layer(config.hidden_size, "output")
        return project_and_add(
            hidden, wide, output, end_norm, fused=fused, deterministic=deterministic
        )

    def _layers(
        self, inputs: Float[Array, "batch length hidden"]
    ) -> Callable[[int, str], AnyDense]:
        """Return a function that builds a dense layer by width and name, with experts if any."""
        layer = functools.partial(_dense, self.config, self.dtype, self.execution.matmuls)
        if not self.has_experts:
            return layer
        gates, routing = Router(self.config, name=ROUTER)(inputs)
        self.sow("intermediates", ROUTING, routing)

        def routed(features: int, name: str) -> RoutedDense:
            experts = LowRankExperts(self.config, features, self.dtype, name=f"{name}_{EXPERTS}")
            return RoutedDense(layer(features, name), experts, gates)

        return routed


def _dense(
    config: AlbertConfig, dtype: DTypeLike, matmuls: Matmuls, features: int, name: str
) -> Dense:
    """Build a dense layer of a half."""
    return dense(config, features, dtype, name, matmuls, has_bias=config.dense_biases)


def _norms_of_half(config: AlbertConfig, dtype: DTypeLike) -> tuple[NormLayer, NormLayer]:
    """Return the norm of a half and the norm at its end: the same one unless it has two."""
    norm = normalization(config, dtype, "layer_norm")
    if config.norm is not Norm.SANDWICH:
        return norm, norm
    return norm, normalization(config, dtype, "output_layer_norm")
