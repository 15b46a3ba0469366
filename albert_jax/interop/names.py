"""What others call our parameters: Hugging Face's state dict and the released TF checkpoints."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from albert_jax.config import AlbertConfig, Norm, ParameterSharing, PositionEncoding

FlatTree = dict[str, np.ndarray]  # "albert/pooler/kernel" -> array
Shape = tuple[int | None, ...]  # None: as many as a classifier has labels


class WeightsError(ValueError):
    """Weights cannot be read or written, or not in that format; one line for the user."""


class ParameterSlice(NamedTuple):
    """Where a tensor of theirs stands in our tree."""

    path: str  # "albert/encoder/layers/attention/query/kernel"
    shape: Shape  # their tensor's
    block: tuple[int, int] | None = None  # which copy and inner block of a stacked parameter
    transposed: bool = False

    def take(self, parameter: np.ndarray) -> np.ndarray:
        """Their tensor, out of our parameter."""
        tensor = parameter if self.block is None else parameter[self.block]
        return np.ascontiguousarray(tensor.T if self.transposed else tensor)

    def fits(self, tensor: np.ndarray) -> bool:
        """Whether a tensor has the shape that theirs must have."""
        return len(tensor.shape) == len(self.shape) and all(
            wanted in (None, size) for size, wanted in zip(tensor.shape, self.shape, strict=True)
        )


class _Leaf(NamedTuple):
    ours: str
    huggingface: str
    tensorflow: str
    huggingface_transposed: bool = False
    tensorflow_transposed: bool = False


@dataclasses.dataclass(frozen=True)
class _Module:
    """A module under each of its names; None where a format does not know it."""

    ours: str
    huggingface: str | None
    tensorflow: str | None
    leaves: tuple[_Leaf, ...]
    sizes: str  # of its largest parameter's axes; the others have the last axis alone

    def below(self, ours: str, huggingface: str, tensorflow: str) -> "_Module":
        """The same module as part of another."""
        return dataclasses.replace(
            self,
            ours=ours + self.ours,
            huggingface=f"{huggingface}{self.huggingface}",
            tensorflow=f"{tensorflow}{self.tensorflow}",
        )


_TABLE = (_Leaf("embedding", "weight", ""),)
_DENSE = (_Leaf("kernel", "weight", "kernel", True), _Leaf("bias", "bias", "bias"))
_NORM = (_Leaf("scale", "weight", "gamma"), _Leaf("bias", "bias", "beta"))
_OUTPUT_BIAS = _Leaf("bias", "bias", "output_bias")
_OUTPUT = (_Leaf("kernel", "weight", "output_weights", True, True), _OUTPUT_BIAS)

# V vocabulary, P positions, T token types, E embedding, H hidden, F feed-forward, n labels.
_EMBEDDINGS = (
    _Module("word_embeddings", "word_embeddings", "word_embeddings", _TABLE, "V E"),
    _Module("position_embeddings", "position_embeddings", "position_embeddings", _TABLE, "P E"),
    _Module(
        "token_type_embeddings", "token_type_embeddings", "token_type_embeddings", _TABLE, "T E"
    ),
    _Module("layer_norm", "LayerNorm", "LayerNorm", _NORM, "E"),
)
_MAPPING = _Module(
    "albert/encoder/embedding_hidden_mapping_in",
    "albert.encoder.embedding_hidden_mapping_in",
    "bert/encoder/embedding_hidden_mapping_in",
    _DENSE,
    "E H",
)
# What no other format knows, see `num_groups_in_file`. D distances, W units of a head.
_RELATIVE = _Module(
    "albert/encoder",
    None,
    None,
    (_Leaf("relative_keys", "", ""), _Leaf("relative_values", "", "")),
    "D W",
)
_LAST_NORM = _Module("albert/encoder/layer_norm", None, None, _NORM, "H")
_ATTENTION = (
    _Module("query", "attention.query", "attention_1/self/query", _DENSE, "H H"),
    _Module("key", "attention.key", "attention_1/self/key", _DENSE, "H H"),
    _Module("value", "attention.value", "attention_1/self/value", _DENSE, "H H"),
    _Module("dense", "attention.dense", "attention_1/output/dense", _DENSE, "H H"),
    _Module("layer_norm", "attention.LayerNorm", "LayerNorm", _NORM, "H"),
)
_FEED_FORWARD = (
    _Module("intermediate", "ffn", "ffn_1/intermediate/dense", _DENSE, "H F"),
    _Module("output", "ffn_output", "ffn_1/intermediate/output/dense", _DENSE, "F H"),
    _Module("layer_norm", "full_layer_layer_norm", "LayerNorm_1", _NORM, "H"),
)
_PREDICTIONS = (
    _Module("dense", "dense", "transform/dense", _DENSE, "H E"),
    _Module("layer_norm", "LayerNorm", "transform/LayerNorm", _NORM, "E"),
)
_TIED = (_Module("predictions", "predictions", "cls/predictions", (_OUTPUT_BIAS,), "V"),)
_UNTIED = (
    _Module("predictions", "predictions.decoder", None, (_Leaf("decoder", "weight", ""),), "V E"),
    _Module("predictions", "predictions.decoder", None, (_OUTPUT_BIAS,), "V"),
)
_CLASSIFIERS = (
    _Module("albert/pooler", "albert.pooler", "bert/pooler/dense", _DENSE, "H H"),
    _Module("sop_classifier", "sop_classifier.classifier", "cls/seq_relationship", _OUTPUT, "H 2"),
    _Module("classifier", "classifier", "", _OUTPUT, "H n"),
    _Module("qa_outputs", "qa_outputs", "cls/squad", _OUTPUT, "H 2"),
    _Module("start_logits/dense", None, "start_logits/dense", _DENSE, "H 1"),
    _Module("end_logits/dense_0", None, "end_logits/dense_0", _DENSE, "2H H"),
    _Module("end_logits/layer_norm", None, "end_logits/LayerNorm", _NORM, "H"),
    _Module("end_logits/dense_1", None, "end_logits/dense_1", _DENSE, "H 1"),
    _Module("answer_class/dense_0", None, "answer_class/dense_0", _DENSE, "2H H"),
    _Module("answer_class/dense_1", None, "answer_class/dense_1", _DENSE[:1], "H 1"),
)


def _modules_outside_layers(config: AlbertConfig) -> Iterator[_Module]:
    for module in _EMBEDDINGS:
        if module.sizes == "P E" and config.position_encoding is not PositionEncoding.ABSOLUTE:
            continue
        yield module.below("albert/embeddings/", "albert.embeddings.", "bert/embeddings/")
    if config.has_embedding_mapping:
        yield _MAPPING
    if config.position_encoding is PositionEncoding.RELATIVE_LOCAL:
        yield _RELATIVE
    if config.norm is Norm.PRE:
        yield _LAST_NORM
    for module in _PREDICTIONS:
        yield module.below("predictions/", "predictions.", "cls/predictions/")
    yield from _TIED if config.tie_word_embeddings else _UNTIED
    yield from _CLASSIFIERS


def _modules_of_layer(group: int, inner: int) -> Iterator[_Module]:
    theirs = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}."
    tensorflow = f"bert/encoder/transformer/group_{group}/inner_group_{inner}/"
    for half, modules in (("attention", _ATTENTION), ("feed_forward", _FEED_FORWARD)):
        for module in modules:
            yield module.below(f"albert/encoder/layers/{half}/", theirs, tensorflow)


def _shape(config: AlbertConfig, module: _Module, leaf: _Leaf) -> Shape:
    sizes: dict[str, int | None] = {
        "V": config.vocab_size,
        "P": config.max_position_embeddings,
        "T": config.type_vocab_size,
        "E": config.embedding_size,
        "H": config.hidden_size,
        "2H": 2 * config.hidden_size,
        "F": config.intermediate_size,
        "D": 2 * config.max_relative_distance + 1,
        "W": config.hidden_size // config.num_attention_heads,
        "n": None,
        "1": 1,
        "2": 2,
    }
    shape = tuple(sizes[axis] for axis in module.sizes.split())
    return shape[-1:] if leaf.ours == "bias" else shape


def num_groups_in_file(config: AlbertConfig) -> int:
    """The groups of a file: one for each layer where layers share nothing.

    Raises:
        WeightsError: layers share one half alone, or are of a kind that no other format knows.
    """
    for name, only in (
        ("position_encoding", PositionEncoding.ABSOLUTE),
        ("norm", Norm.POST),
    ):
        if getattr(config, name) is not only:
            raise WeightsError(
                f"model.{name}={getattr(config, name)}: other formats can hold {only} alone"
            )
    if config.attention_copies != config.feed_forward_copies:
        raise WeightsError(
            f"model.parameter_sharing={config.parameter_sharing} shares one half of a layer alone; "
            f"only {ParameterSharing.ALL} and {ParameterSharing.NONE} can be held by other formats"
        )
    return config.attention_copies


def check_layer_groups(
    config: AlbertConfig, group_of: Callable[[int, int, int], int], whose: str
) -> None:
    """Whether another format's code puts every layer into the group that we put it into.

    Others divide in floating point, which for some depths rounds to a neighbor.

    Args:
        config: the encoder's configuration.
        group_of: the other code's group of a layer, given its number, layers and groups.
        whose: names the other code.

    Raises:
        WeightsError: it does not.
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
) -> Iterator[tuple[_Module, _Leaf, Shape, tuple[int, int] | None]]:
    """Every tensor that a file of any model of this configuration may have, and its block."""
    for module in _modules_outside_layers(config):
        for leaf in module.leaves:
            yield module, leaf, _shape(config, module, leaf), None
    for block in np.ndindex(num_groups_in_file(config), config.inner_group_num):
        for module in _modules_of_layer(*block):
            for leaf in module.leaves:
                yield module, leaf, _shape(config, module, leaf), block


def huggingface_mapping(config: AlbertConfig) -> dict[str, ParameterSlice]:
    """Every name that a state dict of transformers may have, heads included.

    Example: ``albert.pooler.weight`` stands at ``albert/pooler/kernel``, transposed.

    Raises:
        WeightsError: see `num_groups_in_file`.
    """
    return {
        f"{module.huggingface}.{leaf.huggingface}": ParameterSlice(
            f"{module.ours}/{leaf.ours}",
            shape[::-1] if leaf.huggingface_transposed else shape,
            block,
            leaf.huggingface_transposed,
        )
        for module, leaf, shape, block in _leaves(config)
        if module.huggingface is not None
    }


def tensorflow_mapping(config: AlbertConfig) -> dict[str, ParameterSlice]:
    """Every name that a released or fine-tuned TF checkpoint may have, slots aside.

    Example: ``cls/seq_relationship/output_weights`` stands at ``sop_classifier/kernel``,
    transposed.

    Raises:
        WeightsError: see `num_groups_in_file`.
    """
    return {
        "/".join(filter(None, (module.tensorflow, leaf.tensorflow))): ParameterSlice(
            f"{module.ours}/{leaf.ours}",
            shape[::-1] if leaf.tensorflow_transposed else shape,
            block,
            leaf.tensorflow_transposed,
        )
        for module, leaf, shape, block in _leaves(config)
        if module.tensorflow is not None
    }


def native_mapping(config: AlbertConfig) -> dict[str, ParameterSlice]:
    """Every parameter that a model of this configuration may have, under its own name."""
    copies = {"attention": config.attention_copies, "feed_forward": config.feed_forward_copies}
    mapping = {}
    for stacked, modules in (
        (False, _modules_outside_layers(config)),
        (True, _modules_of_layer(0, 0)),
    ):
        for module in modules:
            stack: Shape = ()
            if stacked:
                stack = (copies[module.ours.split("/")[-2]], config.inner_group_num)
            for leaf in module.leaves:
                path = f"{module.ours}/{leaf.ours}"
                mapping[path] = ParameterSlice(path, stack + _shape(config, module, leaf))
    return mapping


def export_tensors(
    params: Mapping[str, np.ndarray], mapping: Mapping[str, ParameterSlice]
) -> FlatTree:
    """Our parameters as their tensors.

    Args:
        params: by our names.
        mapping: from `huggingface_mapping` or `tensorflow_mapping`.

    Raises:
        WeightsError: they have no name for one of ours.
    """
    nameless = sorted(params.keys() - {target.path for target in mapping.values()})
    if nameless:
        raise WeightsError(f"the other format has no name for {', '.join(nameless)}")
    return {
        name: target.take(params[target.path])
        for name, target in mapping.items()
        if target.path in params
    }
