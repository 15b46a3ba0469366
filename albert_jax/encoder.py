"""The layers and their cross-layer parameter sharing (ALBERT §3.1, §4.5).

A layer is an attention half and a feed-forward half. Each half is stored once per copy:
`AlbertConfig.attention_copies` and `feed_forward_copies` give their numbers, from one (the paper's
sharing) to one per layer (BERT). Every stored tensor has two leading axes ``[copies, inner]``,
whatever their sizes, so that names and shapes mean the same in every mode. The depth is a scan: a
copy that all layers use enters it as a constant, so its gradient adds up over depth; several copies
enter it one slice a layer.
"""

import dataclasses
import functools
from collections.abc import Callable
from enum import StrEnum
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from albert_jax.attention.dispatch import Attention
from albert_jax.attention.implementation import AttentionFn
from albert_jax.attention.reference import dot_product_attention
from albert_jax.config import AlbertConfig, Norm
from albert_jax.fused_layers.halves import fuses_norm, project_and_add, widen
from albert_jax.layers import (
    Dense,
    HeadVectors,
    NormLayer,
    attention_dropout,
    dense,
    normalization,
)
from albert_jax.matmuls.dense_matmul import Matmuls
from albert_jax.positions import position_encoder

Params = dict[str, Any]


class Remat(StrEnum):
    """Rematerialization: what the backward pass computes again instead of keeping."""

    NONE = "none"  # keep everything: fastest
    DOTS = "dots"  # keep the results of matmuls with parameters
    FULL = "full"  # keep the input of each layer alone: least memory


@dataclasses.dataclass(frozen=True)
class Execution:
    """Options of how layers are computed, which change their results by rounding alone."""

    remat: Remat = Remat.NONE
    attention: Attention = Attention.XLA
    unroll: int = 1  # layers per iteration of the scan: more to fuse, more to compile
    # Sequences a packed row for which cuDNN has room, on average over the rows of a device, padding
    # behind a row counted as one; None: in each row as many as any may have.
    sequence_slots: int | None = None
    fused: bool = False  # Triton kernels for the passes between matrix products
    matmuls: Matmuls = Matmuls.SAME  # of both halves


_POLICIES: dict[Remat, Callable[..., bool] | None] = {
    Remat.DOTS: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    Remat.FULL: None,
}


def rematerialize(apply_layer: Callable[..., Any], remat: Remat) -> Callable[..., Any]:
    """Return the body of a scan over layers whose backward pass computes again what it may."""
    if remat is Remat.NONE:
        return apply_layer
    return jax.checkpoint(apply_layer, prevent_cse=False, policy=_POLICIES[remat])


class SelfAttention(nn.Module):
    """The attention half of a layer: attend, project, drop, add; normalize after or before."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: AttentionFn,
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length hidden"]:
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

        layer = functools.partial(dense, config, config.hidden_size, self.dtype, matmuls=matmuls)
        query, key, value, output = map(layer, ("query", "key", "value", "dense"))
        positions = position_encoder(config)
        vectors = project(query), project(key, known=known and not positions.rotates)
        context = attend(*map(positions.rotate, vectors), project(value, known=known), **dropout)
        return project_and_add(
            *(hidden, context.reshape(hidden.shape), output, end_norm, value if known else None),
            fused=fused,
            deterministic=deterministic,
        )


class FeedForward(nn.Module):
    """The feed-forward half: widen, activate, narrow, drop, add; normalize after or before."""

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "batch length hidden"],
        attend: AttentionFn,
        *,
        deterministic: bool,
    ) -> Float[Array, "batch length hidden"]:
        del attend  # both halves are called alike
        config = self.config
        norm, end_norm = _norms_of_half(config, self.dtype)
        inputs = norm(hidden) if config.norm.is_before else hidden
        layer = functools.partial(dense, config, dtype=self.dtype, matmuls=self.execution.matmuls)
        fused, width = self.execution.fused, config.feed_forward_width
        gate = layer(width, name="gate") if config.feed_forward.is_gated else None
        wide = widen(inputs, layer(width, name="intermediate"), gate, fused=fused)
        output = layer(config.hidden_size, name="output")
        return project_and_add(
            hidden, wide, output, end_norm, fused=fused, deterministic=deterministic
        )


class AlbertEncoder(nn.Module):
    """The map from embedding to hidden size and the layers.

    Layer i of L uses copy ``i * copies // L`` of each half; a group with inner blocks applies them
    one after another, so the depth is ``num_hidden_layers * inner_group_num``.
    """

    config: AlbertConfig
    dtype: DTypeLike = jnp.float32
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self,
        embedded: Float[Array, "batch length embedding"],
        attend: AttentionFn,
        *,
        deterministic: bool,
        output_hidden_states: bool,
    ) -> tuple[
        Float[Array, "batch length hidden"],
        tuple[Float[Array, "batch length hidden"], ...] | None,
    ]:
        """Return the last hidden state, and on demand all 1 + depth, the layers' input first.

        Where layers normalize before their halves, the final layer norm is applied to all of them.
        """
        config = self.config
        hidden = embedded
        if config.has_embedding_mapping:
            mapping = dense(config, config.hidden_size, self.dtype, "embedding_hidden_mapping_in")
            hidden = mapping(embedded)

        bias = position_encoder(config).bias(self, self.dtype)
        if bias is not None:
            attend = functools.partial(attend, bias=bias)
        halves = {
            "attention": SelfAttention(config, self.dtype, self.execution, parent=None),
            "feed_forward": FeedForward(config, self.dtype, self.execution, parent=None),
        }
        stacks = self.param("layers", _initialize_layers, config, halves)
        keys = None
        if not deterministic:
            shape = (config.num_hidden_layers, config.inner_group_num, len(halves))
            keys = jax.random.split(self.make_rng("dropout"), shape)
        constant, varying = split_by_depth(stacks, config.num_hidden_layers)

        def apply(half: nn.Module, params: Params, hidden: Array, rngs: Any) -> Array:
            variables = {"params": params}
            output = half.apply(variables, hidden, attend, deterministic=deterministic, rngs=rngs)
            return cast(Array, output)

        def apply_group(hidden: Array, xs: tuple[Params, Array | None]) -> tuple[Array, Any]:
            varying, keys = xs
            layer = constant | varying
            outputs = []
            for inner in range(config.inner_group_num):
                for number, (name, half) in enumerate(halves.items()):
                    params = jax.tree.map(lambda leaf, inner=inner: leaf[inner], layer[name])
                    rngs = None if keys is None else {"dropout": keys[inner, number]}
                    hidden = apply(half, params, hidden, rngs)
                outputs.append(hidden)
            return hidden, outputs if output_hidden_states else None

        first = hidden
        hidden, outputs = jax.lax.scan(
            rematerialize(apply_group, self.execution.remat),
            hidden,
            (varying, keys),
            length=config.num_hidden_layers,
            unroll=self.execution.unroll,
        )
        states: tuple[Array, ...] = (hidden,)
        if output_hidden_states:
            by_layer = zip(*outputs, strict=True)  # outputs: for each inner block, [layers, ...]
            states = (first, *(block for layer in by_layer for block in layer))
        if config.norm.is_before:
            norm = normalization(config, self.dtype, "layer_norm")
            states = tuple(map(norm, states))
        return states[-1], states if output_hidden_states else None


def _norms_of_half(config: AlbertConfig, dtype: DTypeLike) -> tuple[NormLayer, NormLayer]:
    """Return the norm of a half, and that at its end: the same one unless there are two."""
    norm = normalization(config, dtype, "layer_norm")
    if config.norm is not Norm.SANDWICH:
        return norm, norm
    return norm, normalization(config, dtype, "output_layer_norm")


def _initialize_layers(key: Array, config: AlbertConfig, halves: dict[str, nn.Module]) -> Params:
    """Initialize both halves, each leaf ``[copies, inner, ...]``, every slice independently."""
    copies = {"attention": config.attention_copies, "feed_forward": config.feed_forward_copies}
    hidden = jnp.zeros((1, 1, config.hidden_size))

    def initialize(name: str, key: Array) -> Params:
        def one(key: Array) -> Params:
            variables = halves[name].init(key, hidden, dot_product_attention, deterministic=True)
            return cast(Params, variables["params"])

        return jax.vmap(jax.vmap(one))(
            jax.random.split(key, (copies[name], config.inner_group_num))
        )

    keys = jax.random.split(key, len(halves))
    return {name: initialize(name, key) for name, key in zip(halves, keys, strict=True)}


def split_by_depth(stacks: Params, layers: int) -> tuple[Params, Params]:
    """Separate the halves that all layers share from those that differ, one slice a layer.

    Example: with 4 layers, a half with 1 copy is constant, one with 2 copies becomes the slices
    0, 0, 1, 1, one with 4 copies the slices 0, 1, 2, 3.
    """
    constant, varying = {}, {}
    for name, stack in stacks.items():
        copies = jax.tree.leaves(stack)[0].shape[0]
        if copies == 1:
            constant[name] = jax.tree.map(lambda leaf: leaf[0], stack)
        elif copies == layers:
            varying[name] = stack
        else:
            copy_of_layer = np.arange(layers) * copies // layers
            varying[name] = jax.tree.map(lambda leaf, used=copy_of_layer: leaf[used], stack)
    return constant, varying
