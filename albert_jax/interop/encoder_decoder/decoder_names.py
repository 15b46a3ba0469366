"""Names and shapes of a decoder's parameters in GPT-2's state dict.

GPT-2's projections are ``[inputs, outputs]``, like ours. Its self-attention has query, key and
value in one tensor ``c_attn``; its cross-attention has key and value in one. They are split when
they are read, and joined when they are written. In between, a part is called
``...c_attn.weight[key]``.
"""

import re
from collections.abc import Mapping

import numpy as np

from albert_jax.decoder.config import Gpt2Config
from albert_jax.interop.name_table import (
    PROJECTION,
    Module,
    decoder_modules_of_layer,
    decoder_modules_outside_layers,
    decoder_sizes,
    shape_of,
)
from albert_jax.interop.names import FlatTree, ParameterSlice

_JOINED = {"attn.c_attn": ("query", "key", "value"), "crossattention.c_attn": ("key", "value")}
_JOINED_NAME = re.compile(r"h\.\d+\.(attn\.c_attn|crossattention\.c_attn)\.(?:weight|bias)$")
_PART_NAME = re.compile(r"(.+)\[(\w+)\]$")


def decoder_mapping(config: Gpt2Config, prefix: str) -> dict[str, ParameterSlice]:
    """Map every name that a state dict may have for a decoder, with joined tensors in parts.

    All layers that share a half map to the same part of a parameter.

    Args:
        config: the decoder's configuration.
        prefix: prefix of the names, such as ``decoder.transformer.``.

    Example: ``decoder.transformer.h.1.mlp.c_fc.bias`` is ``[1, 0]`` of
    ``decoder/layers/feed_forward/intermediate/bias``, or ``[0, 0]`` if layers share it.
    """
    sizes, mapping = decoder_sizes(config, None), {}

    def add(module: Module, names: str, block: tuple[int, int] | None) -> None:
        for leaf in module.leaves:
            name = f"{prefix}{names}{module.huggingface}.{leaf.huggingface}"
            path, shape = f"{module.native}/{leaf.native}", shape_of(sizes, module, leaf)
            mapping[name] = ParameterSlice(path, shape, block)

    for module in decoder_modules_outside_layers():
        add(module, "", None)
    for layer in range(config.n_layer):
        for module, copies in decoder_modules_of_layer(config):
            add(module, f"h.{layer}.", (layer * copies // config.n_layer, 0))
    return mapping


def projection_mapping(config: Gpt2Config, encoder_size: int) -> dict[str, ParameterSlice]:
    """Map the layer from the encoder's width to the decoder's; empty if they are equal."""
    if encoder_size == config.n_embd:
        return {}
    sizes, mapping = decoder_sizes(config, encoder_size), {}
    for leaf in PROJECTION.leaves:
        path, shape = f"{PROJECTION.native}/{leaf.native}", shape_of(sizes, PROJECTION, leaf)
        name, transposed = f"{PROJECTION.huggingface}.{leaf.huggingface}", len(shape) > 1
        mapping[name] = ParameterSlice(path, shape[::-1], None, transposed)
    return mapping


def split_tensors(tensors: Mapping[str, np.ndarray]) -> FlatTree:
    """Split joined projections into parts."""
    found: FlatTree = {}
    for name, tensor in tensors.items():
        match = _JOINED_NAME.search(name)
        if match is None or tensor.ndim == 0:
            found[name] = tensor
            continue
        parts = _JOINED[match[1]]
        for part, piece in zip(parts, np.array_split(tensor, len(parts), axis=-1), strict=True):
            found[f"{name}[{part}]"] = piece
    return found


def join_tensors(tensors: Mapping[str, np.ndarray]) -> FlatTree:
    """Invert `split_tensors`; parts must be in order."""
    joined: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        match = _PART_NAME.match(name)
        joined.setdefault(name if match is None else match[1], []).append(tensor)
    return {
        name: np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        for name, parts in joined.items()
    }


def equal_halves(
    tensors: Mapping[str, np.ndarray], config: Gpt2Config, prefix: str
) -> tuple[bool, bool]:
    """Return whether attention, and whether feed-forward, is equal in all layers.

    Args:
        tensors: the decoder's tensors, split into parts.
        config: the decoder's configuration.
        prefix: see `decoder_mapping`.
    """
    unequal = set()
    for module, _ in decoder_modules_of_layer(config):
        is_feed_forward = "/feed_forward/" in module.native
        for leaf in module.leaves if is_feed_forward not in unequal else ():
            name = f"{module.huggingface}.{leaf.huggingface}"
            names = [f"{prefix}h.{layer}.{name}" for layer in range(config.n_layer)]
            found = [tensors[name] for name in names if name in tensors]
            equal = all(np.array_equal(found[0], other) for other in found[1:])
            if not equal or len(found) not in (0, config.n_layer):
                unequal.add(is_feed_forward)
    return False not in unequal, True not in unequal
