"""Vectors by which the applications of a shared block differ, see `DepthSignal`.

A scale multiplies what a half adds to its input. It is multiplied into the parameters that come
last in the half, once a step and not once a token. Where a norm follows, before the sum, these are
the norm's, as the norm would undo it.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from albert_jax.config import AlbertConfig, DepthSignal, Norm
from albert_jax.layers import AnyArray

Params = dict[str, Any]

DEPTH_SIGNAL = "depth_signal"  # among the stacks of the layers
_LAST = ("dense", "output", "output_experts")  # of attention, and of the feed-forward half


def initialize_signal(config: AlbertConfig) -> Params:
    """Return ones for each half of each application, or zeros for each: ``[layers, inner, H]``."""
    shape = (config.num_hidden_layers, config.inner_group_num, config.hidden_size)
    if config.depth_signal is DepthSignal.EMBEDDING:
        return {"embedding": jnp.zeros(shape)}
    return {"attention": jnp.ones(shape), "feed_forward": jnp.ones(shape)}


def add_embedding(
    hidden: Float[Array, "batch length hidden"], block: Params, config: AlbertConfig
) -> Float[Array, "batch length hidden"]:
    """Return the input of a layer's block with its embedding, if it has one."""
    if config.depth_signal is not DepthSignal.EMBEDDING:
        return hidden
    return hidden + block[DEPTH_SIGNAL]["embedding"].astype(hidden.dtype)


def scale_half(half: Params, scale: Float[AnyArray, " hidden"], config: AlbertConfig) -> Params:
    """Return the parameters of one layer's half, whose result before the sum is scaled.

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
