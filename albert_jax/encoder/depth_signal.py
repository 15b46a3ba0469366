"""Vectors by which the applications of a shared block differ; see `DepthSignal`.

A scale multiplies what a half adds to its input. It is multiplied into the last parameters of the
half, which happens once per step instead of once per token. If a norm comes before the sum, those
are the norm's parameters, since the norm would undo an earlier scale.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from albert_jax.config import AlbertConfig, DepthSignal, Norm
from albert_jax.layers import AnyArray

Params = dict[str, Any]

DEPTH_SIGNAL = "depth_signal"  # its name among the stacks of the layers
_LAST = ("dense", "output", "output_experts")  # last layers of the halves, and the last experts


def initialize_signal(config: AlbertConfig) -> Params:
    """Return scales of one for each half, or embeddings of zero, as ``[layers, inner, H]``."""
    shape = (config.num_hidden_layers, config.inner_group_num, config.hidden_size)
    if config.depth_signal is DepthSignal.EMBEDDING:
        return {"embedding": jnp.zeros(shape)}
    return {"attention": jnp.ones(shape), "feed_forward": jnp.ones(shape)}


def add_embedding(
    hidden: Float[Array, "batch length hidden"], block: Params, config: AlbertConfig
) -> Float[Array, "batch length hidden"]:
    """Add the embedding of a layer's block to the block's input, if it has one."""
    if config.depth_signal is not DepthSignal.EMBEDDING:
        return hidden
    return hidden + block[DEPTH_SIGNAL]["embedding"].astype(hidden.dtype)


def scale_half(half: Params, scale: Float[AnyArray, " hidden"], config: AlbertConfig) -> Params:
    """Return the parameters of one layer's half, with its output before the sum scaled.

    Example: ``{"output": {"kernel": [[1, 1]], "bias": [1, 0]}}`` with the scale ``[2, 3]`` is
    ``{"output": {"kernel": [[2, 3]], "bias": [2, 0]}}``.
    """
    last = ("output_layer_norm",) if config.norm is Norm.SANDWICH else _LAST
    return half | {
        name: {
            leaf: value if leaf == "down" else value * scale for leaf, value in half[name].items()
        }
        for name in last
        if name in half
    }
