"""Parameters of all layers, in stacks ``[copies, inner, ...]``, and those of one layer."""

import itertools
from collections.abc import Iterator
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from albert_jax.attention.reference import dot_product_attention
from albert_jax.config import AlbertConfig, DepthSignal
from albert_jax.encoder.depth_signal import DEPTH_SIGNAL, initialize_signal, scale_half
from albert_jax.encoder.low_rank import add_changes, changes_of, initialize_changes

Params = dict[str, Any]


def half_of_layer(block: Params, name: str, config: AlbertConfig) -> Params:
    """Return the parameters that a layer's half computes with, out of those of its block."""
    params: Params = block[name]
    if config.depth_rank:
        params = add_changes(params, block[changes_of(name)])
    if config.depth_signal is DepthSignal.SCALE:
        params = scale_half(params, block[DEPTH_SIGNAL][name], config)
    return params


def segments(layers_with_experts: tuple[bool, ...]) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of layers that are alike: start, stop, and whether they have experts.

    Example: ``(False, False, True)`` gives ``(0, 2, False)`` and ``(2, 3, True)``.
    """
    start = 0
    for has_experts, run in itertools.groupby(layers_with_experts):
        stop = start + len(list(run))
        yield start, stop, has_experts
        start = stop


def initialize_layers(key: Array, config: AlbertConfig, halves: dict[str, nn.Module]) -> Params:
    """Initialize both halves, each leaf ``[copies, inner, ...]``, every slice independently.

    A key gives the same halves with and without low-rank changes.
    """
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
    stacks = {name: initialize(name, key) for name, key in zip(halves, keys, strict=True)}
    own = {}  # what each layer has of its own
    if config.depth_rank:
        own = {
            changes_of(name): initialize_changes(jax.random.fold_in(key, 1), config, stacks[name])
            for name, key in zip(halves, keys, strict=True)
        }
    if config.depth_signal is not DepthSignal.NONE:
        own[DEPTH_SIGNAL] = initialize_signal(config)
    return stacks | own


def split_by_depth(stacks: Params, layers: int) -> tuple[Params, Params]:
    """Separate the halves that all layers share from those that differ, one slice per layer.

    Example: with 4 layers, a half with 1 copy is constant, one with 2 copies becomes the slices
    0, 0, 1, 1, and one with 4 copies becomes the slices 0, 1, 2, 3.
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
