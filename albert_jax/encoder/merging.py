"""Merging of models whose layers differ into models with plain layers, as other formats have.

Low-rank changes, scales and embeddings of layers become parts of kernels and biases, which each
layer then has for itself; missing biases become zero. The merged model computes the same function.
Averaging experts changes it: the mean of all experts replaces each token's own mixture (Nouriborji
et al. 2025).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import cast

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from albert_jax.config import AlbertConfig, DepthSignal, Norm, ParameterSharing
from albert_jax.encoder.depth_signal import DEPTH_SIGNAL
from albert_jax.encoder.experts import EXPERTS, ROUTER
from albert_jax.encoder.stacks import Params, half_of_layer

FlatParams = Mapping[str, np.ndarray]

_LAYERS = "albert/encoder/layers/"
_PROJECTIONS = ("query", "key", "value")


def merge_layers(params: FlatParams, config: AlbertConfig) -> tuple[FlatParams, AlbertConfig]:
    """Return the same model with plain layers; unchanged if it has them already or cannot.

    Experts cannot be merged: their kernels depend on the token. Embeddings of layers can be merged
    only if norms come after the sums: what is added before a norm is not part of a bias.

    Args:
        params: parameters by their names in a model with a head.
        config: the model's configuration.
    """
    differ = bool(config.depth_rank) or config.depth_signal is not DepthSignal.NONE
    embeds = config.depth_signal is DepthSignal.EMBEDDING
    if config.num_experts or (embeds and config.norm is not Norm.POST):
        return params, config
    if config.dense_biases and not differ:
        return params, config
    plain = dataclasses.replace(
        config, depth_rank=0, depth_signal=DepthSignal.NONE, dense_biases=True
    )
    if differ:
        plain = _unshared(plain)

    def merge(name: str, block: Params, layer: int) -> Params:
        del layer
        half = half_of_layer(block, name, config)
        half = {dense: _with_bias(leaves) for dense, leaves in half.items()}
        if embeds and name == "attention":
            return _with_embedding(half, block[DEPTH_SIGNAL]["embedding"])
        return half

    return _map_halves(params, config, plain, merge, keep=False), plain


def average_experts(params: FlatParams, config: AlbertConfig) -> tuple[FlatParams, AlbertConfig]:
    """Return a different model, without experts: the mean of all is added to its kernels.

    If only some layers have experts, the layers of the result share nothing.

    Args:
        params: parameters by their names in a model with a head.
        config: the model's configuration.
    """
    if not config.num_experts:
        return params, config
    plain = dataclasses.replace(config, num_experts=0)
    if not all(config.layers_with_experts):
        plain = _unshared(plain)

    def merge(name: str, block: Params, layer: int) -> Params:
        half = {dense: leaves for dense, leaves in block[name].items() if dense != ROUTER}
        for dense in [dense for dense in half if dense.endswith(f"_{EXPERTS}")]:
            experts = half.pop(dense)
            if config.layers_with_experts[layer]:
                mean = np.mean(experts["down"] @ experts["up"], axis=0)
                dense = dense.removesuffix(f"_{EXPERTS}")
                half[dense] = half[dense] | {"kernel": half[dense]["kernel"] + mean}
        return half

    return _map_halves(params, config, plain, merge, keep=True), plain


def _unshared(config: AlbertConfig) -> AlbertConfig:
    return dataclasses.replace(config, parameter_sharing=ParameterSharing.NONE, num_hidden_groups=1)


def _with_bias(leaves: Params) -> Params:
    if "kernel" not in leaves or "bias" in leaves:
        return leaves
    kernel = leaves["kernel"]
    return leaves | {"bias": np.zeros(kernel.shape[-1], kernel.dtype)}


def _with_embedding(half: Params, embedding: np.ndarray) -> Params:
    """Fold an embedding of the input into attention's biases, for the projections and the sum."""
    moved = {
        name: half[name] | {"bias": half[name]["bias"] + embedding @ half[name]["kernel"]}
        for name in _PROJECTIONS
    }
    return half | moved | {"dense": half["dense"] | {"bias": half["dense"]["bias"] + embedding}}


def _map_halves(
    params: FlatParams,
    config: AlbertConfig,
    plain: AlbertConfig,
    merge: Callable[[str, Params, int], Params],
    *,
    keep: bool,
) -> dict[str, np.ndarray]:
    """Apply a function to each copy of the halves that the resulting model has.

    Args:
        params: the model's parameters.
        config: the model's configuration.
        plain: the resulting model's configuration.
        merge: maps (name of a half, parameters of a block, its layer) to the half's parameters. If
            layers share a copy, the layer is the first of them.
        keep: True to keep what layers have in addition to their halves.
    """
    outside = {name: leaf for name, leaf in params.items() if not name.startswith(_LAYERS)}
    stacks: Params = unflatten_dict(
        {name.removeprefix(_LAYERS): params[name] for name in params.keys() - outside.keys()},
        sep="/",
    )
    layers = config.num_hidden_layers

    def block_of(layer: int, inner: int) -> Params:
        return jax.tree.map(lambda leaf: leaf[layer * len(leaf) // layers, inner], stacks)

    def merge_half(name: str, copies: int) -> Params:
        first_layers = [-(-copy * layers // copies) for copy in range(copies)]
        merged = [
            [merge(name, block_of(layer, inner), layer) for inner in range(config.inner_group_num)]
            for layer in first_layers
        ]
        rows = [jax.tree.map(lambda *leaves: np.stack(leaves), *blocks) for blocks in merged]
        return cast(Params, jax.tree.map(lambda *leaves: np.stack(leaves), *rows))

    copies = {"attention": plain.attention_copies, "feed_forward": plain.feed_forward_copies}
    halves = {name: merge_half(name, number) for name, number in copies.items()}
    merged = flatten_dict((stacks if keep else {}) | halves, sep="/")
    return outside | {f"{_LAYERS}{name}": leaf for name, leaf in merged.items()}
