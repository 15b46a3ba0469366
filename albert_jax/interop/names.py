"""Mappings between our parameters and the tensors of other formats.

Formats are Hugging Face's state dict and the released TF checkpoints.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from albert_jax.config import (
    AlbertConfig,
    DepthSignal,
    FeedForwardKind,
    Norm,
    NormKind,
    ParameterSharing,
    PositionEncoding,
)
from albert_jax.decoder.config import Gpt2Config
from albert_jax.encoder import encoder_shapes
from albert_jax.interop.name_table import (
    PROJECTION,
    Leaf,
    Module,
    Shape,
    decoder_modules_of_layer,
    decoder_modules_outside_layers,
    decoder_sizes,
    modules_of_layer,
    modules_outside_layers,
    parameter_shape,
    shape_of,
)

AVERAGED = "--average_experts"  # the flag of `experiments.convert`
FlatTree = dict[str, np.ndarray]  # "albert/pooler/kernel" -> array


class WeightsError(ValueError):
    """Weights cannot be read or written, or not in that format; the message is one line."""


class ParameterSlice(NamedTuple):
    """The parameter, or the part of one, that a tensor of another format holds."""

    path: str  # "albert/encoder/layers/attention/query/kernel"
    shape: Shape  # of the other format's tensor
    block: tuple[int, int] | None = None  # [copy, inner] of a stacked parameter
    transposed: bool = False

    def take(self, parameter: np.ndarray) -> np.ndarray:
        """Cut the other format's tensor out of our parameter."""
        tensor = parameter if self.block is None else parameter[self.block]
        return np.ascontiguousarray(tensor.T if self.transposed else tensor)

    def fits(self, tensor: np.ndarray) -> bool:
        """Return True if a tensor has the right shape."""
        return len(tensor.shape) == len(self.shape) and all(
            wanted in (None, size) for size, wanted in zip(tensor.shape, self.shape, strict=True)
        )


def num_groups_in_file(config: AlbertConfig) -> int:
    """Return the number of layer groups in a file: one per layer if layers share nothing.

    Raises:
        WeightsError: layers share only one half, or are of a kind that no other format has.
    """
    for name, only in (
        ("position_encoding", PositionEncoding.ABSOLUTE),
        ("norm", Norm.POST),
        ("norm_kind", NormKind.LAYER),
        ("feed_forward", FeedForwardKind.MLP),
        ("attention_window", 0),
    ):
        if getattr(config, name) != only:
            raise WeightsError(
                f"model.{name}={getattr(config, name)}: other formats support only {only}"
            )
    check_plain_layers(config)
    if config.attention_copies != config.feed_forward_copies:
        raise WeightsError(
            f"model.parameter_sharing={config.parameter_sharing} shares one half of a layer alone; "
            f"other formats support only {ParameterSharing.ALL} and {ParameterSharing.NONE}"
        )
    return config.attention_copies


def check_plain_layers(config: AlbertConfig) -> None:
    """Check that layers consist only of kernels, biases and norms.

    Raises:
        WeightsError: layers have more, or less, than in other formats; the message says how to
            write them anyway.
    """
    for name, plain, reason in (
        ("num_experts", 0, f"no other format has experts; {AVERAGED} replaces them by their mean"),
        (
            *("depth_rank", 0),
            "no other format has changes of shared kernels; --to=huggingface adds them, and then "
            "shares nothing",
        ),
        (
            *("depth_signal", DepthSignal.NONE),
            "no other format tells layers apart; --to=huggingface writes each layer's own kernels "
            "and biases, where norms follow the sums",
        ),
        ("dense_biases", True, "other formats have them; --to=huggingface writes zeros"),
    ):
        if (found := getattr(config, name)) != plain:
            raise WeightsError(f"model.{name}={found}: {reason}")


def check_layer_groups(
    config: AlbertConfig, group_of: Callable[[int, int, int], int], whose: str
) -> None:
    """Check that another format's code assigns every layer to the same group as ours.

    Other code divides in floating point, which for some depths rounds to a neighboring group.

    Args:
        config: the encoder's configuration.
        group_of: the other code's group of a layer, given its index and the numbers of layers and
            groups.
        whose: the other code, for the message.

    Raises:
        WeightsError: a layer is in another group.
    """
    layers, groups = config.num_hidden_layers, num_groups_in_file(config)
    for layer in range(layers):
        ours, theirs = layer * groups // layers, group_of(layer, layers, groups)
        if ours != theirs:
            raise WeightsError(
                f"of {layers} layers in {groups} groups, layer {layer} belongs to group {ours}, "
                f"but by {whose} rounding to group {theirs}"
            )


def _leaves(
    config: AlbertConfig,
) -> Iterator[tuple[Module, Leaf, tuple[int, int] | None]]:
    """Yield every tensor that a file of this configuration may have, and its block of a stack."""
    for module in modules_outside_layers(config):
        for leaf in module.leaves:
            yield module, leaf, None
    for block in np.ndindex(num_groups_in_file(config), config.inner_group_num):
        for module in modules_of_layer(*block):
            for leaf in module.leaves:
                yield module, leaf, block


def _mapping(
    config: AlbertConfig,
    name_of: Callable[[Module, Leaf], str | None],
    is_transposed: Callable[[Leaf], bool],
) -> dict[str, ParameterSlice]:
    """Return a format's mapping, given its names (None if it lacks a leaf) and transposes."""
    mapping = {}
    for module, leaf, block in _leaves(config):
        if (name := name_of(module, leaf)) is not None:
            path, transposed = f"{module.native}/{leaf.native}", is_transposed(leaf)
            shape = parameter_shape(config, module, leaf)
            mapping[name] = ParameterSlice(
                path, shape[::-1] if transposed else shape, block, transposed
            )
    return mapping


def huggingface_mapping(config: AlbertConfig) -> dict[str, ParameterSlice]:
    """Map every name that a state dict of transformers may have, heads included.

    Example: ``albert.pooler.weight`` is ``albert/pooler/kernel``, transposed.

    Raises:
        WeightsError: see `num_groups_in_file`.
    """

    def name_of(module: Module, leaf: Leaf) -> str | None:
        return None if module.huggingface is None else f"{module.huggingface}.{leaf.huggingface}"

    return _mapping(config, name_of, lambda leaf: leaf.huggingface_transposed)


def tensorflow_mapping(config: AlbertConfig) -> dict[str, ParameterSlice]:
    """Map every name that a released or fine-tuned TF checkpoint may have, except optimizer slots.

    Example: ``cls/seq_relationship/output_weights`` is ``sop_classifier/kernel``, transposed.

    Raises:
        WeightsError: see `num_groups_in_file`.
    """

    def name_of(module: Module, leaf: Leaf) -> str | None:
        if module.tensorflow is None:
            return None
        return "/".join(filter(None, (module.tensorflow, leaf.tensorflow)))

    return _mapping(config, name_of, lambda leaf: leaf.tensorflow_transposed)


def native_mapping(config: AlbertConfig) -> dict[str, ParameterSlice]:
    """Map every parameter that a model of this configuration may have to itself.

    The encoder has more kinds of parameters than other formats have names for.
    """
    mapping = {}
    has_norm_biases = config.norm_kind is NormKind.LAYER
    for module in modules_outside_layers(config):
        for leaf in module.leaves:
            path = f"{module.native}/{leaf.native}"
            if has_norm_biases or not path.endswith("layer_norm/bias"):
                mapping[path] = ParameterSlice(path, parameter_shape(config, module, leaf))
    for name, shape in encoder_shapes(config).items():
        path = f"albert/encoder/{name}"
        mapping[path] = ParameterSlice(path, shape)
    return mapping


def native_decoder_mapping(config: AlbertConfig, decoder: Gpt2Config) -> dict[str, ParameterSlice]:
    """Map every parameter of a decoder, and of the layer between it and its encoder, to itself."""
    sizes = decoder_sizes(decoder, config.hidden_size)
    modules: list[tuple[Module, Shape]] = [
        (module, ()) for module in decoder_modules_outside_layers()
    ]
    modules += [(module, (copies, 1)) for module, copies in decoder_modules_of_layer(decoder)]
    if config.hidden_size != decoder.n_embd:
        modules.append((PROJECTION, ()))
    mapping = {}
    for module, stack in modules:
        for leaf in module.leaves:
            path = f"{module.native}/{leaf.native}"
            mapping[path] = ParameterSlice(path, stack + shape_of(sizes, module, leaf))
    return mapping


def export_tensors(
    params: Mapping[str, np.ndarray], mapping: Mapping[str, ParameterSlice]
) -> FlatTree:
    """Convert our parameters to the tensors of another format.

    Args:
        params: parameters by our names.
        mapping: from `huggingface_mapping` or `tensorflow_mapping`.

    Raises:
        WeightsError: the other format has no name for a parameter.
    """
    nameless = sorted(params.keys() - {target.path for target in mapping.values()})
    if nameless:
        raise WeightsError(f"the other format has no name for {', '.join(nameless)}")
    return {
        name: target.take(params[target.path])
        for name, target in mapping.items()
        if target.path in params
    }
