"""Reading of encoder-decoder directories, and of GPT-2 directories as decoders."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from albert_jax.config import AlbertConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.input_files import read_json_object, require_fields
from albert_jax.interop.encoder_decoder.config_json import decoder_from_json, gpt2_from_json
from albert_jax.interop.encoder_decoder.decoder_names import (
    decoder_mapping,
    projection_mapping,
    split_tensors,
)
from albert_jax.interop.encoder_decoder.decoder_weights import (
    PREFIX,
    DecoderWeights,
    share,
    share_equal,
)
from albert_jax.interop.huggingface import (
    ENCODER_PREFIX,
    HUGGINGFACE_CONFIG_FILE,
    drop_duplicates,
    drop_identity,
    read_tensors,
)
from albert_jax.interop.huggingface_config import config_from_json
from albert_jax.interop.names import FlatTree, ParameterSlice, WeightsError, huggingface_mapping
from albert_jax.interop.stored_weights import StoredWeights
from albert_jax.settings import FieldError

GENERATION_CONFIG_FILE = "generation_config.json"
MODEL_TYPE = "encoder-decoder"

_ENCODER, _TIED = "encoder.", "lm_head.weight"
# Buffers of old files: masks of attention, and the value of masked scores.
_BUFFERS = re.compile(r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)")


def is_encoder_decoder(directory: epath.Path) -> bool:
    """Return True if ``config.json`` is that of an EncoderDecoderModel.

    Raises:
        WeightsError: it is not a JSON object.
    """
    file = directory / HUGGINGFACE_CONFIG_FILE
    if not file.exists():
        return False
    return read_json_object(file, error=WeightsError).get("model_type") == MODEL_TYPE


def read_encoder_decoder(directory: epath.Path) -> StoredWeights:
    """Read a directory of transformers' EncoderDecoderModel.

    A half of the decoder's layers is shared if it is equal in all of them, as it was before
    `save_encoder_decoder` repeated it.

    Raises:
        WeightsError: its models are not supported, or its files are damaged.
    """
    file = directory / HUGGINGFACE_CONFIG_FILE
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    require_fields(values, {"encoder": dict, "decoder": dict}, str(file), error=WeightsError)
    generation = directory / GENERATION_CONFIG_FILE
    options: Mapping[str, Any] = {}
    if generation.exists():
        options = read_json_object(generation, error=WeightsError, drop_nulls=True)
    try:
        config = config_from_json(values["encoder"])
        decoder = decoder_from_json(values, options)
    except ValueError as error:
        raise WeightsError(f"{file}: {error}") from error
    tensors = read_tensors(directory)
    of_encoder = {
        f"{ENCODER_PREFIX}{name.removeprefix(_ENCODER)}": tensor
        for name, tensor in tensors.items()
        if name.startswith(_ENCODER)
    }
    config, of_encoder = drop_identity(config, drop_duplicates(of_encoder, config))
    others = {name: tensor for name, tensor in tensors.items() if not name.startswith(_ENCODER)}
    decoder, of_decoder = _decoder_tensors(others, decoder, PREFIX, str(directory))
    return StoredWeights(
        source=str(directory),
        config=config,
        head=None,
        architecture="AlbertForConditionalGeneration",
        step=None,
        tensors={_in_file(name): tensor for name, tensor in of_encoder.items()} | of_decoder,
        mapping=encoder_decoder_mapping(config, decoder),
        decoder=decoder,
    )


def read_gpt2(
    directory: epath.Path, settings: Mapping[str, Any]
) -> tuple[DecoderWeights, Gpt2Config]:
    """Read a directory of GPT-2, with or without cross-attention, as a decoder.

    Args:
        directory: a directory with ``config.json`` and weights.
        settings: fields of `Gpt2Config` that replace those of the directory.

    Raises:
        WeightsError: it is not a GPT-2, or its files are damaged.
        FieldError: a setting is not allowed.
    """
    file = directory / HUGGINGFACE_CONFIG_FILE
    if not file.exists():
        raise WeightsError(f"{directory} has no {HUGGINGFACE_CONFIG_FILE} of a GPT-2")
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    try:
        config = gpt2_from_json(values, settings)
    except ValueError as error:
        if isinstance(error, FieldError) and error.field in settings:
            raise  # the caller's mistake, not the file's
        raise WeightsError(f"{file}: {error}") from error
    if config.tie_to_encoder:
        raise WeightsError("a decoder with tie_to_encoder has no layers that GPT-2's could become")
    prefix = "transformer."
    tensors = {
        name if name == _TIED else f"{prefix}{name.removeprefix(prefix)}": tensor
        for name, tensor in read_tensors(directory).items()
    }
    wanted = config.parameter_sharing if "parameter_sharing" in settings else None
    found, tensors = _decoder_tensors(tensors, config, prefix, str(directory))
    if wanted is not None:
        found = share(found, wanted, str(directory))
    return DecoderWeights(str(directory), tensors, decoder_mapping(found, prefix)), found


def encoder_decoder_mapping(config: AlbertConfig, decoder: Gpt2Config) -> dict[str, ParameterSlice]:
    """Map every name that a directory of both may have: encoder, decoder, and the layer between."""
    return {
        **{
            _in_file(name): target
            for name, target in huggingface_mapping(config).items()
            if name.startswith(ENCODER_PREFIX)
        },
        **decoder_mapping(decoder, PREFIX),
        **projection_mapping(decoder, config.hidden_size),
    }


def _in_file(name: str) -> str:
    return f"{_ENCODER}{name.removeprefix(ENCODER_PREFIX)}"


def _decoder_tensors(
    tensors: FlatTree, config: Gpt2Config, prefix: str, source: str
) -> tuple[Gpt2Config, FlatTree]:
    """Drop what is tied or not a parameter, split what is joined, and find what layers share."""
    tied = prefix.removesuffix("transformer.") + _TIED
    table = tensors.get(f"{prefix}wte.weight")
    if tied in tensors and table is not None and not np.array_equal(tensors[tied], table):
        raise WeightsError(f"{source}: {tied} must be equal to the word table {prefix}wte.weight")
    kept = {
        name: tensor
        for name, tensor in tensors.items()
        if name != tied and not _BUFFERS.fullmatch(name.removeprefix(prefix))
    }
    parts = split_tensors(kept)
    return share_equal(config, parts, prefix), parts
