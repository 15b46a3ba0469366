"""Names and shapes of a decoder's parameters in GPT-2's state dict.

GPT-2's projections are ``[inputs, outputs]``, as ours. Its self-attention has query, key and value
in one tensor ``c_attn``, its cross-attention key and value: they are cut apart when they are read,
and joined when they are written. Between the two a part has the name ``...c_attn.weight[key]``.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from albert_jax.decoder.config import Gpt2Config
from albert_jax.interop.name_table import Leaf, Module, shape_of
from albert_jax.interop.names import FlatTree, ParameterSlice

# Sizes: V vocabulary, P positions, D width, F feed-forward.
_TABLE = (Leaf("embedding", "weight", ""),)
_DENSE = (Leaf("kernel", "weight", ""), Leaf("bias", "bias", ""))
_NORM = (Leaf("scale", "weight", ""), Leaf("bias", "bias", ""))
_OUTSIDE_LAYERS = (
    Module("word_embeddings", "wte", None, _TABLE, "V D"),
    Module("position_embeddings", "wpe", None, _TABLE, "P D"),
    Module("layer_norm", "ln_f", None, _NORM, "D"),
)


def _parts(module: str, names: tuple[str, ...], joined: str) -> Iterator[Module]:
    """Yield the parts of a joined projection."""
    for part in names:
        leaves = tuple(Leaf(leaf.native, f"{leaf.huggingface}[{part}]", "") for leaf in _DENSE)
        yield Module(f"{module}/{part}", joined, None, leaves, "D D")


# By half; cross-attention is shared with self-attention.
_LAYER: dict[str, tuple[Module, ...]] = {
    "attention": (
        Module("attention/layer_norm", "ln_1", None, _NORM, "D"),
        *_parts("attention", ("query", "key", "value"), "attn.c_attn"),
        Module("attention/dense", "attn.c_proj", None, _DENSE, "D D"),
        Module("cross_attention/layer_norm", "ln_cross_attn", None, _NORM, "D"),
        Module("cross_attention/query", "crossattention.q_attn", None, _DENSE, "D D"),
        *_parts("cross_attention", ("key", "value"), "crossattention.c_attn"),
        Module("cross_attention/dense", "crossattention.c_proj", None, _DENSE, "D D"),
    ),
    "feed_forward": (
        Module("feed_forward/layer_norm", "ln_2", None, _NORM, "D"),
        Module("feed_forward/intermediate", "mlp.c_fc", None, _DENSE, "D F"),
        Module("feed_forward/output", "mlp.c_proj", None, _DENSE, "F D"),
    ),
}
_JOINED = {"attn.c_attn": ("query", "key", "value"), "crossattention.c_attn": ("key", "value")}
_JOINED_NAME = re.compile(r"h\.\d+\.(attn\.c_attn|crossattention\.c_attn)\.(?:weight|bias)$")
_PART_NAME = re.compile(r"(.+)\[(\w+)\]$")


def decoder_mapping(config: Gpt2Config, prefix: str) -> dict[str, ParameterSlice]:
    """Map every name that a state dict may have for a decoder, joined tensors in parts.

    All layers that share a half map to the same part of a parameter.

    Args:
        config: the decoder's configuration.
        prefix: of the names, such as ``decoder.transformer.``.

    Example: ``decoder.transformer.h.1.mlp.c_fc.bias`` is ``[1, 0]`` of
    ``decoder/layers/feed_forward/intermediate/bias``, or ``[0, 0]`` if layers share it.
    """
    copies = {"attention": config.attention_copies, "feed_forward": config.feed_forward_copies}
    sizes = {
        "V": config.vocab_size,
        "P": config.n_positions,
        "D": config.n_embd,
        "F": config.inner_size,
    }
    mapping = {}

    def add(module: Module, names: str, native: str, block: tuple[int, int] | None) -> None:
        for leaf in module.leaves:
            path = f"decoder/{native}{module.native}/{leaf.native}"
            name = f"{prefix}{names}{module.huggingface}.{leaf.huggingface}"
            mapping[name] = ParameterSlice(path, shape_of(sizes, module, leaf), block)

    for module in _OUTSIDE_LAYERS:
        add(module, "", "", None)
    for layer in range(config.n_layer):
        for half, modules in _LAYER.items():
            for module in modules:
                add(module, f"h.{layer}.", "layers/", (layer * copies[half] // config.n_layer, 0))
    return mapping


def split_tensors(tensors: Mapping[str, np.ndarray]) -> FlatTree:
    """Cut joined projections into parts."""
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
    """Invert `split_tensors`; parts are in order."""
    joined: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        match = _PART_NAME.match(name)
        joined.setdefault(name if match is None else match[1], []).append(tensor)
    return {
        name: np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
        for name, parts in joined.items()
    }


def equal_halves(tensors: Mapping[str, np.ndarray], layers: int, prefix: str) -> tuple[bool, bool]:
    """Return True for the halves, attention and feed-forward, that are equal in all layers.

    Args:
        tensors: cut into parts.
        layers: number of layers.
        prefix: see `decoder_mapping`.
    """

    def is_equal(half: str) -> bool:
        for module in _LAYER[half]:
            for leaf in module.leaves:
                name = f"{module.huggingface}.{leaf.huggingface}"
                first = tensors.get(f"{prefix}h.0.{name}")
                for layer in range(1, layers):
                    other = tensors.get(f"{prefix}h.{layer}.{name}")
                    if first is None or other is None:
                        if first is not other:
                            return False
                    elif not np.array_equal(first, other):
                        return False
        return True

    return is_equal("attention"), is_equal("feed_forward")
