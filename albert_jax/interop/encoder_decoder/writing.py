"""Directories that transformers' EncoderDecoderModel loads."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.durable_files import new_directory
from albert_jax.interop.encoder_decoder.config_json import encoder_decoder_to_json
from albert_jax.interop.encoder_decoder.decoder_names import join_tensors
from albert_jax.interop.encoder_decoder.reading import (
    GENERATION_CONFIG_FILE,
    encoder_decoder_mapping,
)
from albert_jax.interop.huggingface import (
    HUGGINGFACE_CONFIG_FILE,
    WEIGHTS_FILE,
    add_identity,
    only_dtype,
)
from albert_jax.interop.names import WeightsError, export_tensors
from albert_jax.interop.saving import SavableTokenizer, special_ids_of


def save_encoder_decoder(
    path: str | os.PathLike[str],
    params: Mapping[str, np.ndarray],
    config: AlbertConfig,
    decoder: Gpt2Config,
    tokenizer: SavableTokenizer | None,
    options: Mapping[str, Any],
) -> None:
    """Write a new directory; see `write_encoder_decoder`."""
    with new_directory(path, error=WeightsError) as directory:
        write_encoder_decoder(directory, params, config, decoder, tokenizer, options)


def write_encoder_decoder(
    directory: Path,
    params: Mapping[str, np.ndarray],
    config: AlbertConfig,
    decoder: Gpt2Config,
    tokenizer: SavableTokenizer | None,
    options: Mapping[str, Any],
) -> None:
    """Write ``config.json``, ``generation_config.json`` and ``model.safetensors``.

    Shared parameters are written once per layer, since GPT-2 has no sharing.

    Args:
        directory: an empty directory.
        params: parameters by our names, all of one dtype.
        config: the encoder's configuration.
        decoder: the decoder's configuration.
        tokenizer: tokenizer of the source, written beside the model.
        options: options of generation, by transformers' names.

    Raises:
        WeightsError: transformers has no such model, or the tokenizer has another vocabulary.
    """
    from albert_jax.interop.safetensors_files import write_safetensors

    if decoder.tie_to_encoder:
        raise WeightsError(
            "transformers has no decoder with tie_to_encoder: a workdir alone holds such a model"
        )
    ids = None if tokenizer is None else special_ids_of(tokenizer, config)
    dtype = only_dtype(params)
    values, tokens = encoder_decoder_to_json(config, decoder, dtype=dtype, special_ids=ids)
    config, params = add_identity(config, params)
    tensors = join_tensors(export_tensors(params, encoder_decoder_mapping(config, decoder)))
    for name, content in (
        (HUGGINGFACE_CONFIG_FILE, values),
        (GENERATION_CONFIG_FILE, {**tokens, **options}),
    ):
        text = json.dumps(content, indent=2) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
    write_safetensors(directory / WEIGHTS_FILE, tensors)
    if tokenizer is not None:
        tokenizer.save_pretrained(directory, model_max_length=config.max_position_embeddings)
