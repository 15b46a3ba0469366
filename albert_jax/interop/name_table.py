"""Names of the modules and parameters in every format, and the shapes of the parameters."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from albert_jax.config import AlbertConfig, Norm, PositionEncoding
from albert_jax.decoder.config import Gpt2Config

Shape = tuple[int | None, ...]  # None: the number of labels of a classifier


class Leaf(NamedTuple):
    """A parameter of a module under its name in each format."""

    native: str
    huggingface: str
    tensorflow: str
    huggingface_transposed: bool = False
    tensorflow_transposed: bool = False


@dataclasses.dataclass(frozen=True)
class Module:
    """A module under its name in each format; None if the format does not have it."""

    native: str
    huggingface: str | None
    tensorflow: str | None
    leaves: tuple[Leaf, ...]
    sizes: str  # axes of its largest parameter; the others have the last axis only

    def below(self, native: str, huggingface: str, tensorflow: str) -> "Module":
        """Return the module as part of another one, with prefixed names."""
        return dataclasses.replace(
            self,
            native=native + self.native,
            huggingface=f"{huggingface}{self.huggingface}",
            tensorflow=f"{tensorflow}{self.tensorflow}",
        )


_TABLE = (Leaf("embedding", "weight", ""),)
_DENSE = (Leaf("kernel", "weight", "kernel", True), Leaf("bias", "bias", "bias"))
_NORM = (Leaf("scale", "weight", "gamma"), Leaf("bias", "bias", "beta"))
_OUTPUT_BIAS = Leaf("bias", "bias", "output_bias")
_OUTPUT = (Leaf("kernel", "weight", "output_weights", True, True), _OUTPUT_BIAS)

# Sizes: V vocabulary, P positions, T token types, E embedding, H hidden, F feed-forward, n labels.
_EMBEDDINGS = (
    Module("word_embeddings", "word_embeddings", "word_embeddings", _TABLE, "V E"),
    Module("position_embeddings", "position_embeddings", "position_embeddings", _TABLE, "P E"),
    Module(
        "token_type_embeddings", "token_type_embeddings", "token_type_embeddings", _TABLE, "T E"
    ),
    Module("layer_norm", "LayerNorm", "LayerNorm", _NORM, "E"),
)
_MAPPING = Module(
    "albert/encoder/embedding_hidden_mapping_in",
    "albert.encoder.embedding_hidden_mapping_in",
    "bert/encoder/embedding_hidden_mapping_in",
    _DENSE,
    "E H",
)
# Not in any other format, see `num_groups_in_file`. Sizes: D distances, W width of a head.
_RELATIVE = Module(
    "albert/encoder",
    None,
    None,
    (Leaf("relative_keys", "", ""), Leaf("relative_values", "", "")),
    "D W",
)
_LAST_NORM = Module("albert/encoder/layer_norm", None, None, _NORM, "H")
_ATTENTION = (
    Module("query", "attention.query", "attention_1/self/query", _DENSE, "H H"),
    Module("key", "attention.key", "attention_1/self/key", _DENSE, "H H"),
    Module("value", "attention.value", "attention_1/self/value", _DENSE, "H H"),
    Module("dense", "attention.dense", "attention_1/output/dense", _DENSE, "H H"),
    Module("layer_norm", "attention.LayerNorm", "LayerNorm", _NORM, "H"),
)
_FEED_FORWARD = (
    Module("intermediate", "ffn", "ffn_1/intermediate/dense", _DENSE, "H F"),
    Module("output", "ffn_output", "ffn_1/intermediate/output/dense", _DENSE, "F H"),
    Module("layer_norm", "full_layer_layer_norm", "LayerNorm_1", _NORM, "H"),
)
_PREDICTIONS = (
    Module("dense", "dense", "transform/dense", _DENSE, "H E"),
    Module("layer_norm", "LayerNorm", "transform/LayerNorm", _NORM, "E"),
)
_TIED = (Module("predictions", "predictions", "cls/predictions", (_OUTPUT_BIAS,), "V"),)
_UNTIED = (
    Module("predictions", "predictions.decoder", None, (Leaf("decoder", "weight", ""),), "V E"),
    Module("predictions", "predictions.decoder", None, (_OUTPUT_BIAS,), "V"),
)
_CLASSIFIERS = (
    Module("albert/pooler", "albert.pooler", "bert/pooler/dense", _DENSE, "H H"),
    Module("sop_classifier", "sop_classifier.classifier", "cls/seq_relationship", _OUTPUT, "H 2"),
    Module("discriminator_predictions/dense", None, None, _DENSE, "H H"),
    Module("discriminator_predictions/dense_prediction", None, None, _DENSE, "H 1"),
    Module("classifier", "classifier", "", _OUTPUT, "H n"),
    Module("qa_outputs", "qa_outputs", "cls/squad", _OUTPUT, "H 2"),
    Module("start_logits/dense", None, "start_logits/dense", _DENSE, "H 1"),
    Module("end_logits/dense_0", None, "end_logits/dense_0", _DENSE, "2H H"),
    Module("end_logits/layer_norm", None, "end_logits/LayerNorm", _NORM, "H"),
    Module("end_logits/dense_1", None, "end_logits/dense_1", _DENSE, "H 1"),
    Module("answer_class/dense_0", None, "answer_class/dense_0", _DENSE, "2H H"),
    Module("answer_class/dense_1", None, "answer_class/dense_1", _DENSE[:1], "H 1"),
)


def _parts(module: str, names: tuple[str, ...], joined: str) -> Iterator[Module]:
    """Yield the parts of a projection that GPT-2 has in one tensor, ``c_attn.weight[key]``."""
    for part in names:
        leaves = tuple(Leaf(leaf.native, f"{leaf.huggingface}[{part}]", "") for leaf in _DENSE)
        yield Module(f"{module}/{part}", joined, None, leaves, "D D")


# Modules of the decoder; GPT-2's kernels are [inputs, outputs], like ours. Sizes: V vocabulary,
# P positions, D width, F feed-forward, M width of the encoder.
_GPT2_DENSE = (Leaf("kernel", "weight", ""), _DENSE[1])
_DECODER = (
    Module("word_embeddings", "wte", None, _TABLE, "V D"),
    Module("position_embeddings", "wpe", None, _TABLE, "P D"),
    Module("layer_norm", "ln_f", None, _NORM, "D"),
)
_DECODER_ATTENTION = (
    Module("attention/layer_norm", "ln_1", None, _NORM, "D"),
    *_parts("attention", ("query", "key", "value"), "attn.c_attn"),
    Module("attention/dense", "attn.c_proj", None, _GPT2_DENSE, "D D"),
)
_CROSS_ATTENTION = (
    Module("cross_attention/layer_norm", "ln_cross_attn", None, _NORM, "D"),
    Module("cross_attention/query", "crossattention.q_attn", None, _GPT2_DENSE, "D D"),
    *_parts("cross_attention", ("key", "value"), "crossattention.c_attn"),
    Module("cross_attention/dense", "crossattention.c_proj", None, _GPT2_DENSE, "D D"),
)
_DECODER_FEED_FORWARD = (
    Module("feed_forward/layer_norm", "ln_2", None, _NORM, "D"),
    Module("feed_forward/intermediate", "mlp.c_fc", None, _GPT2_DENSE, "D F"),
    Module("feed_forward/output", "mlp.c_proj", None, _GPT2_DENSE, "F D"),
)
PROJECTION = Module("enc_to_dec_proj", "enc_to_dec_proj", None, _DENSE, "M D")


def modules_outside_layers(config: AlbertConfig) -> Iterator[Module]:
    """Yield the modules of a model with all heads, except those of its layers."""
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


def modules_of_layer(group: int, inner: int) -> Iterator[Module]:
    """Yield the modules of one inner block of a layer group."""
    huggingface = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}."
    tensorflow = f"bert/encoder/transformer/group_{group}/inner_group_{inner}/"
    for half, modules in (("attention", _ATTENTION), ("feed_forward", _FEED_FORWARD)):
        for module in modules:
            yield module.below(f"albert/encoder/layers/{half}/", huggingface, tensorflow)


def decoder_modules_outside_layers() -> Iterator[Module]:
    """Yield the modules of a decoder, except those of its layers."""
    for module in _DECODER:
        yield dataclasses.replace(module, native=f"decoder/{module.native}")


def decoder_modules_of_layer(config: Gpt2Config) -> Iterator[tuple[Module, int]]:
    """Yield the modules of a decoder's layer, and the number of copies of each.

    Cross-attention is shared if self-attention is. A decoder that is tied to the encoder has no
    other layers of its own.
    """
    halves: list[tuple[tuple[Module, ...], int]] = [(_CROSS_ATTENTION, config.attention_copies)]
    if not config.tie_to_encoder:
        halves.insert(0, (_DECODER_ATTENTION, config.attention_copies))
        halves.append((_DECODER_FEED_FORWARD, config.feed_forward_copies))
    for modules, copies in halves:
        for module in modules:
            yield dataclasses.replace(module, native=f"decoder/layers/{module.native}"), copies


def decoder_sizes(config: Gpt2Config, encoder_size: int | None) -> Mapping[str, int | None]:
    """Return the sizes that a decoder's modules name, for `shape_of`."""
    return {
        "V": config.vocab_size,
        "P": config.n_positions,
        "D": config.n_embd,
        "F": config.inner_size,
        "M": encoder_size,
    }


def parameter_shape(config: AlbertConfig, module: Module, leaf: Leaf) -> Shape:
    """Return the native shape of a parameter, without the leading axes of a stack of layers."""
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
    return shape_of(sizes, module, leaf)


def shape_of(sizes: Mapping[str, int | None], module: Module, leaf: Leaf) -> Shape:
    """Return the native shape of a parameter, given the sizes that the module names."""
    shape = tuple(sizes[axis] for axis in module.sizes.split())
    return shape[-1:] if leaf.native == "bias" else shape
