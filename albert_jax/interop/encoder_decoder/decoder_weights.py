"""A decoder's weights by themselves, and joined with those of an encoder."""

import dataclasses
from collections.abc import Container, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from albert_jax.config import ParameterSharing
from albert_jax.decoder.config import Gpt2Config
from albert_jax.interop.encoder_decoder.decoder_names import (
    decoder_mapping,
    equal_halves,
    projection_mapping,
)
from albert_jax.interop.name_table import PROJECTION
from albert_jax.interop.names import FlatTree, ParameterSlice, WeightsError, export_tensors
from albert_jax.interop.stored_weights import DECODER, StoredWeights

PREFIX = "decoder.transformer."
_WORDS = "decoder/word_embeddings/embedding"

_Entry = TypeVar("_Entry")

_SHARING = {(one.shares_attention, one.shares_feed_forward): one for one in ParameterSharing}


class DecoderWeights(NamedTuple):
    """A decoder's tensors under the names of their format, and every name that it may have."""

    source: str
    tensors: FlatTree
    mapping: dict[str, ParameterSlice]


def join_weights(encoder: StoredWeights, decoder: DecoderWeights) -> StoredWeights:
    """Return the weights of both as those of one model.

    A decoder that was stored with the encoder is left out. So is the layer from one width to the
    other, if it is for another encoder's width.
    """
    unused = {name for name, one in encoder.mapping.items() if one.path.startswith(DECODER)}
    kernel = decoder.mapping.get(f"{PROJECTION.huggingface}.weight")
    if kernel is not None and kernel.shape[-1] != encoder.config.hidden_size:
        unused |= {f"{PROJECTION.huggingface}.{leaf.huggingface}" for leaf in PROJECTION.leaves}
    tensors = _without(unused, encoder.tensors) | _without(unused, decoder.tensors)
    mapping = _without(unused, encoder.mapping) | _without(unused, decoder.mapping)
    source = f"{encoder.source} and {decoder.source}"
    return dataclasses.replace(
        encoder, source=source, tensors=tensors, mapping=mapping, decoder=None
    )


def take_decoder(
    stored: StoredWeights, settings: Mapping[str, Any]
) -> tuple[DecoderWeights, Gpt2Config]:
    """Take the decoder out of an encoder-decoder, with its cross-attention.

    Args:
        stored: weights with a decoder, of any format.
        settings: fields of `Gpt2Config` that replace those stored.

    Raises:
        WeightsError: the weights are damaged, or layers that are to be shared differ.
        FieldError: a setting is not allowed.
    """
    decoder, source = stored.decoder, stored.source
    if decoder is None:
        raise WeightsError(f"{source} has no decoder")
    config = dataclasses.replace(decoder, **settings)
    if config.tie_to_encoder != decoder.tie_to_encoder:
        there, here = str(decoder.tie_to_encoder).lower(), str(config.tie_to_encoder).lower()
        raise WeightsError(f"{source}: tie_to_encoder is {there} there, so it cannot be {here}")
    if decoder.parameter_sharing is ParameterSharing.ALL:  # shared layers fit any depth
        decoder = dataclasses.replace(decoder, n_layer=config.n_layer)
    params = {
        name: tensor for name, tensor in stored.read_all().items() if name.startswith(DECODER)
    }
    width = stored.config.hidden_size
    of_source = decoder_mapping(decoder, PREFIX) | projection_mapping(decoder, width)
    tensors = export_tensors(params, of_source)
    if "parameter_sharing" in settings:
        found = share_equal(decoder, tensors, PREFIX)
        share(found, config.parameter_sharing, source)
    mapping = decoder_mapping(config, PREFIX) | projection_mapping(config, width)
    return DecoderWeights(source, tensors, mapping), config


def append_token(weights: DecoderWeights, config: Gpt2Config) -> tuple[DecoderWeights, Gpt2Config]:
    """Append a token to a decoder's vocabulary, whose vector is the mean of the others.

    GPT-2 has no padding token, so one may have to be added.

    Raises:
        WeightsError: there is no word table.
    """
    names = [name for name, one in weights.mapping.items() if one.path == _WORDS]
    name = next((name for name in names if name in weights.tensors), None)
    if name is None:
        raise WeightsError(f"{weights.source} has no word table")
    table = weights.tensors[name]
    longer = np.concatenate([table, table.mean(axis=0, keepdims=True, dtype=table.dtype)])
    place = weights.mapping[name]._replace(shape=longer.shape)
    return (
        weights._replace(
            tensors={**weights.tensors, name: longer}, mapping={**weights.mapping, name: place}
        ),
        dataclasses.replace(config, vocab_size=config.vocab_size + 1),
    )


def share_equal(config: Gpt2Config, tensors: FlatTree, prefix: str) -> Gpt2Config:
    """Return a decoder that shares the halves that are equal in all layers."""
    if config.n_layer == 1:
        return config
    sharing = _SHARING[equal_halves(tensors, config, prefix)]
    return dataclasses.replace(config, parameter_sharing=sharing)


def share(config: Gpt2Config, wanted: ParameterSharing, source: str) -> Gpt2Config:
    """Return a decoder that shares what is wanted, if that is equal in all layers.

    Raises:
        WeightsError: it is not.
    """
    shared = dataclasses.replace(config, parameter_sharing=wanted)
    if (
        shared.attention_copies < config.attention_copies
        or shared.feed_forward_copies < config.feed_forward_copies
    ):
        raise WeightsError(f"{source}: layers differ, so parameter_sharing cannot be {wanted}")
    return shared


def _without(names: Container[str], entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
    return {name: entry for name, entry in entries.items() if name not in names}
