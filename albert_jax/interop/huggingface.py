"""Directories of Hugging Face transformers: ``config.json`` and a state dict."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from albert_jax.config import AlbertConfig, EmbeddingMapping, HeadConfig
from albert_jax.input_files import read_json_object
from albert_jax.interop.huggingface_config import config_from_json, head_from_json, to_json
from albert_jax.interop.names import (
    FlatTree,
    WeightsError,
    export_tensors,
    huggingface_mapping,
)
from albert_jax.interop.stored_weights import StoredWeights
from albert_jax.interop.torch_pickle import read_torch_file

HUGGINGFACE_CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
TORCH_FILE = "pytorch_model.bin"

ENCODER_PREFIX = "albert."
_BARE_ENCODER = "AlbertModel"
_WORD_TABLE = "embeddings.word_embeddings.weight"
# Entries of old files that are not parameters, or are tied to another tensor.
_POSITIONS = re.compile(r"(albert\.)?embeddings\.(position_ids|token_type_ids)")
_TIED_TWICE = ("predictions.decoder.weight", "predictions.decoder.bias")
_UNTIED_UNUSED = ("predictions.bias",)


def is_huggingface_directory(path: epath.Path) -> bool:
    """Return True if ``config.json`` has a ``model_type``; a workdir has a file of that name too.

    Raises:
        WeightsError: it is not a JSON object.
    """
    file = path / HUGGINGFACE_CONFIG_FILE
    if not file.exists():
        return False
    return "model_type" in read_json_object(file, error=WeightsError, drop_nulls=True)


def read_huggingface(directory: epath.Path) -> StoredWeights:
    """Read configuration and tensors of a directory saved by any version of transformers.

    Raises:
        WeightsError: there are no weights, they cannot be read, or the configuration is not that
            of a supported ALBERT.
    """
    file = directory / HUGGINGFACE_CONFIG_FILE
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    try:
        config, head = config_from_json(values), head_from_json(values)
    except ValueError as error:
        raise WeightsError(f"{file}: {error}") from error
    tensors = drop_duplicates(_with_prefix(read_tensors(directory)), config)
    config, tensors = drop_identity(config, tensors)
    return StoredWeights(
        source=str(directory),
        config=config,
        head=head if "classifier.weight" in tensors else None,
        architecture=_architecture(values),
        step=None,
        tensors=tensors,
        mapping=huggingface_mapping(config),
    )


def _architecture(values: Mapping[str, Any]) -> str | None:
    """Return the class that was saved, if the file names one."""
    named = values.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) else None


def read_tensors(directory: epath.Path) -> FlatTree:
    """Read the tensors of a directory, from whichever kind of file it has.

    Raises:
        WeightsError: it has none, or they cannot be read.
    """
    # Imported here because no other format needs safetensors.
    from albert_jax.interop.safetensors_files import read_safetensors, read_sharded

    readers = {
        WEIGHTS_FILE: read_safetensors,
        INDEX_FILE: read_sharded,
        TORCH_FILE: read_torch_file,
    }
    for name, reader in readers.items():
        if (directory / name).exists():
            return reader(directory / name)
    raise WeightsError(
        f"{directory} has a {HUGGINGFACE_CONFIG_FILE} but no weights: none of {', '.join(readers)}"
    )


def _with_prefix(tensors: FlatTree) -> FlatTree:
    """Add the encoder's prefix, which the directory of a bare encoder omits."""
    if _WORD_TABLE not in tensors:
        return tensors
    return {f"{ENCODER_PREFIX}{name}": tensor for name, tensor in tensors.items()}


def drop_duplicates(tensors: FlatTree, config: AlbertConfig) -> FlatTree:
    """Drop entries of old files that are not parameters, or are tied to another tensor."""
    unread = _TIED_TWICE if config.tie_word_embeddings else _UNTIED_UNUSED
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in unread and not _POSITIONS.fullmatch(name)
    }


def drop_identity(config: AlbertConfig, tensors: FlatTree) -> tuple[AlbertConfig, FlatTree]:
    """Drop an embedding mapping that changes nothing, such as `add_identity` adds."""
    names = [
        f"{ENCODER_PREFIX}encoder.embedding_hidden_mapping_in.{leaf}" for leaf in ("weight", "bias")
    ]
    kernel, bias = (tensors.get(name) for name in names)
    identity = np.eye(config.hidden_size)
    if config.embedding_size != config.hidden_size or kernel is None or bias is None:
        return config, tensors
    if not np.array_equal(kernel, identity) or np.any(bias):
        return config, tensors
    kept = {name: tensor for name, tensor in tensors.items() if name not in names}
    return dataclasses.replace(config, embedding_mapping=EmbeddingMapping.WHEN_NEEDED), kept


def add_identity(
    config: AlbertConfig, params: Mapping[str, np.ndarray]
) -> tuple[AlbertConfig, Mapping[str, np.ndarray]]:
    """Map the embeddings by the identity if nothing maps them: transformers always maps them."""
    if config.has_embedding_mapping:
        return config, params
    mapping, dtype = "albert/encoder/embedding_hidden_mapping_in", only_dtype(params)
    return dataclasses.replace(config, embedding_mapping=EmbeddingMapping.ALWAYS), {
        **params,
        f"{mapping}/kernel": np.eye(config.hidden_size, dtype=dtype),
        f"{mapping}/bias": np.zeros(config.hidden_size, dtype),
    }


def only_dtype(params: Mapping[str, np.ndarray]) -> str:
    """Return the name of the dtype of all parameters.

    Raises:
        WeightsError: they have several dtypes.
    """
    dtype, *others = sorted({parameter.dtype.name for parameter in params.values()})
    if others:
        raise WeightsError(f"parameters are of several dtypes: {', '.join([dtype, *others])}")
    return dtype


def write_huggingface(
    directory: Path,
    params: Mapping[str, np.ndarray],
    config: AlbertConfig,
    head: HeadConfig | None,
    *,
    architecture: str,
    special_ids: tuple[int, int, int] | None = None,
) -> None:
    """Write ``config.json`` and ``model.safetensors`` for transformers 5 and 4.57.

    Args:
        directory: an empty directory.
        params: parameters by our names, all of one dtype.
        config: the encoder's configuration.
        head: configuration of a classifier among the parameters.
        architecture: transformers' class, for its Auto classes.
        special_ids: ids of padding, [CLS] and [SEP]; by default those of the released vocabulary.

    Raises:
        WeightsError: transformers has no such model.
    """
    from albert_jax.interop.safetensors_files import write_safetensors

    dtype = only_dtype(params)
    options: dict[str, Any] = {"architecture": architecture, "dtype": dtype}
    if special_ids is not None:
        options["special_ids"] = special_ids
    values = to_json(config, head, **options)
    config, params = add_identity(config, params)
    tensors = export_tensors(params, huggingface_mapping(config))
    if not config.tie_word_embeddings and "predictions/bias" in params:
        tensors["predictions.bias"] = params["predictions/bias"]  # unused, but expected
    if architecture == _BARE_ENCODER:
        tensors = {name.removeprefix(ENCODER_PREFIX): tensor for name, tensor in tensors.items()}
    (directory / HUGGINGFACE_CONFIG_FILE).write_text(
        json.dumps(values, indent=2) + "\n", encoding="utf-8"
    )
    write_safetensors(directory / WEIGHTS_FILE, tensors)
