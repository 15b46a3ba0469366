"""Directories that transformers' EncoderDecoderModel loads."""

import json
import os
from collections.abc import Mapping
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
) -> None:
    """Write ``config.json``, ``generation_config.json`` and ``model.safetensors``.

    Layers that share parameters are repeated, as GPT-2 has no others.

    Args:
        path: a new directory.
        params: by our names, all of one dtype.
        config: the encoder's configuration.
        decoder: the decoder's.
        tokenizer: of the source, written beside the model.

    Raises:
        WeightsError: transformers has no such model, or the tokenizer has another vocabulary.
    """
    from albert_jax.interop.safetensors_files import write_safetensors

    if decoder.tie_to_encoder:
        raise WeightsError(
            "transformers has no decoder with tie_to_encoder: such a model has our format alone"
        )
    ids = None if tokenizer is None else special_ids_of(tokenizer, config)
    dtype = only_dtype(params)
    values, generation = encoder_decoder_to_json(config, decoder, dtype=dtype, special_ids=ids)
    config, params = add_identity(config, params)
    mapping = encoder_decoder_mapping(config, decoder)
    tensors = join_tensors(export_tensors(params, mapping))
    files: dict[str, Any] = {
        HUGGINGFACE_CONFIG_FILE: values,
        GENERATION_CONFIG_FILE: generation,
    }
    with new_directory(path, error=WeightsError) as directory:
        for name, content in files.items():
            text = json.dumps(content, indent=2) + "\n"
            (directory / name).write_text(text, encoding="utf-8")
        write_safetensors(directory / WEIGHTS_FILE, tensors)
        if tokenizer is not None:
            tokenizer.save_pretrained(directory, model_max_length=config.max_position_embeddings)
