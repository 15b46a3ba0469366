"""Conversion between ``config.json`` of GPT-2 and encoder-decoders and our configurations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.input_files import shorten
from albert_jax.interop.huggingface_config import activation_from_json, activation_to_json, to_json
from albert_jax.interop.names import WeightsError

# Fields of the same name and meaning in both.
_SHARED_FIELDS = tuple(
    field.name
    for field in dataclasses.fields(Gpt2Config)
    if field.name not in {"activation_function", "parameter_sharing", "tie_to_encoder"}
)
_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def gpt2_from_json(values: Mapping[str, Any], settings: Mapping[str, Any]) -> Gpt2Config:
    """Convert the configuration of GPT-2; defaults are GPT-2's, except that it has no padding.

    Args:
        values: content of ``config.json``, without nulls.
        settings: fields that replace those of the file.

    Raises:
        WeightsError: it is not GPT-2, or it is of a kind that is not supported.
        FieldError: a value is out of range, or there is no padding token.
    """
    if values.get("model_type") != "gpt2":
        raise WeightsError(f"the decoder must be gpt2, got {shorten(values.get('model_type'))}")
    if values.get("tie_word_embeddings", True) is not True:
        raise WeightsError("tie_word_embeddings must be true: the word table is the output matrix")
    if "cross_attention_hidden_size" in values:
        raise WeightsError("cross_attention_hidden_size is not supported")
    fields = {name: values[name] for name in _SHARED_FIELDS if name in values}
    fields["activation_function"] = activation_from_json(values, "activation_function", "gelu_new")
    fields |= settings
    for name in ("bos_token_id", "eos_token_id"):
        fields[name] = _only_id(name, fields.get(name, getattr(Gpt2Config, name, None)))
    if fields.get("pad_token_id") is None:
        raise WeightsError(
            f"pad_token_id is missing: GPT-2 has no padding; give any token but the one with which "
            f"targets begin, bos_token_id ({fields['bos_token_id']})"
        )
    return Gpt2Config(**fields)


def decoder_from_json(values: Mapping[str, Any], generation: Mapping[str, Any]) -> Gpt2Config:
    """Convert the decoder's configuration of an encoder-decoder.

    Args:
        values: content of ``config.json``, without nulls.
        generation: content of ``generation_config.json``, whose special tokens take precedence.

    Raises:
        WeightsError: see `gpt2_from_json`.
        FieldError: a value is out of range, or padding is the token with which targets begin.
    """
    decoder = values["decoder"]
    known = {**decoder, **values, **generation}
    tokens = {name: known[name] for name in _TOKENS if name in known}
    if "decoder_start_token_id" in known:
        tokens["bos_token_id"] = known["decoder_start_token_id"]
    return gpt2_from_json(decoder, tokens)


def encoder_decoder_to_json(
    config: AlbertConfig,
    decoder: Gpt2Config,
    *,
    dtype: str,
    special_ids: tuple[int, int, int] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert to transformers' ``config.json`` and ``generation_config.json``.

    Args:
        config: the encoder's configuration.
        decoder: the decoder's configuration.
        dtype: dtype of the weights.
        special_ids: ids of padding, [CLS] and [SEP] of sources; by default those of the released
            vocabulary.

    Raises:
        WeightsError: transformers has no such encoder.
    """
    options: dict[str, Any] = {"architecture": "AlbertModel", "dtype": dtype}
    if special_ids is not None:
        options["special_ids"] = special_ids
    of_decoder = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{name: getattr(decoder, name) for name in _SHARED_FIELDS},
        "activation_function": activation_to_json(decoder.activation_function),
        "is_decoder": True,
        "add_cross_attention": True,
        "tie_word_embeddings": True,
        "dtype": dtype,
    }
    tokens = {name: getattr(decoder, name) for name in _TOKENS}
    tokens["decoder_start_token_id"] = decoder.bos_token_id
    values = {
        "architectures": ["EncoderDecoderModel"],
        "model_type": "encoder-decoder",
        "is_encoder_decoder": True,
        "encoder": to_json(config, None, **options),
        "decoder": of_decoder,
        "dtype": dtype,
        **tokens,
    }
    return values, tokens


def _only_id(name: str, value: Any) -> Any:
    """Return a token's id, which may be given as a list of one."""
    if isinstance(value, list):
        if len(value) != 1:
            raise WeightsError(f"{name} must be one token, got {shorten(value)}")
        return value[0]
    return value
