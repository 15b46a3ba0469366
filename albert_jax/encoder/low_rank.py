"""Low-rank changes: what a layer adds to the kernels that it shares (Bae et al. 2024).

Layer i computes with ``kernel + down[i] @ up[i]``, where the product has rank
`AlbertConfig.depth_rank`. ``up`` is initialized to zero, so that a model starts as the ALBERT that
shares everything. The sum is taken once per step, not once per token, so the cost of a step does
not depend on the rank. The sums are the kernels of an ALBERT that shares nothing, and such a model
is exported as one.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import Array

from albert_jax.config import AlbertConfig
from albert_jax.encoder.experts import ROUTER
from albert_jax.layers import initializer

Params = dict[str, Any]

CHANGES = "changes"  # suffix of the names of changes, after a half's name


def changes_of(half: str) -> str:
    """Return the name of the changes of a half."""
    return f"{half}_{CHANGES}"


def initialize_changes(key: Array, config: AlbertConfig, half: Params) -> Params:
    """Initialize the changes of all kernels of a half.

    Args:
        key: random key.
        config: gives rank and depth.
        half: the half's stacks ``[copies, inner, ...]``.

    Returns:
        For each dense layer, by name: ``down [layers, inner, inputs, rank]``, initialized like a
        kernel, and ``up [layers, inner, rank, outputs]``, zero.
    """
    leaves = flatten_dict(half).items()
    kernels = {path[0]: leaf.shape for path, leaf in leaves if path[-1] == "kernel"}
    kernels.pop(ROUTER, None)
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
