"""Low-rank changes: what a layer adds to the kernels that it shares (Bae et al. 2024).

A layer i computes with ``kernel + down[i] @ up[i]``, of rank `AlbertConfig.depth_rank`. The second
factor is initialized to zero, so that a model begins as the ALBERT that shares everything. The sum
is taken once a step, not once a token, so the cost of a step does not depend on the rank; and the
sums are the kernels of an ALBERT that shares nothing, as which such a model is exported.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array

from albert_jax.config import AlbertConfig, ParameterSharing
from albert_jax.layers import initializer

Params = dict[str, Any]

CHANGES = "changes"  # what the changes of a half are called: its name, and this
_LAYERS = "albert/encoder/layers"


def changes_of(half: str) -> str:
    """Return the name of the changes of a half."""
    return f"{half}_{CHANGES}"


def initialize_changes(key: Array, config: AlbertConfig, half: Params) -> Params:
    """Initialize the changes of all kernels of a half.

    Args:
        key: of random numbers.
        config: gives rank and depth.
        half: its stacks ``[copies, inner, ...]``.

    Returns:
        By the name of each dense layer, ``down [layers, inner, inputs, rank]``, as kernels are
        initialized, and ``up [layers, inner, rank, outputs]``, zero.
    """
    leaves = flatten_dict(half).items()
    kernels = {path[0]: leaf.shape for path, leaf in leaves if path[-1] == "kernel"}
    blocks = (config.num_hidden_layers, config.inner_group_num)
    changes = {}
    for name, one in zip(sorted(kernels), jax.random.split(key, len(kernels)), strict=True):
        inputs, outputs = kernels[name][-2:]
        down = initializer(config, inputs=inputs)(one, (*blocks, inputs, config.depth_rank))
        changes[name] = {"down": down, "up": jnp.zeros((*blocks, config.depth_rank, outputs))}
    return changes


def add_changes(half: Params, changes: Params) -> Params:
    """Return the parameters of one layer's half with its changes added to the kernels.

    Example: a kernel ``[[1, 0], [0, 1]]`` with ``down [[1], [2]]`` and ``up [[0, 3]]`` becomes
    ``[[1, 3], [0, 7]]``.
    """
    return half | {
        name: half[name] | {"kernel": half[name]["kernel"] + change["down"] @ change["up"]}
        for name, change in changes.items()
    }


def merge_changes(
    params: Mapping[str, np.ndarray], config: AlbertConfig
) -> tuple[dict[str, np.ndarray], AlbertConfig]:
    """Return the same model with all changes added, as one that shares nothing.

    Args:
        params: by their names in a model with a head.
        config: the model's.
    """
    layers = config.num_hidden_layers
    merged = {}
    for name, stack in params.items():
        if f"_{CHANGES}/" in name:
            continue
        if name.startswith(f"{_LAYERS}/"):
            stack = stack[np.arange(layers) * len(stack) // layers]
            half, dense, leaf = name.removeprefix(f"{_LAYERS}/").split("/")
            if leaf == "kernel":
                change = f"{_LAYERS}/{changes_of(half)}/{dense}"
                stack = stack + params[f"{change}/down"] @ params[f"{change}/up"]
        merged[name] = stack
    unshared = dataclasses.replace(
        config, parameter_sharing=ParameterSharing.NONE, num_hidden_groups=1, depth_rank=0
    )
    return merged, unshared
