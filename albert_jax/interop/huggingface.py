"""Directories as transformers writes and reads them: ``config.json`` and a state dict."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from albert_jax.config import AlbertConfig, EmbeddingMapping, HeadConfig
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

_ENCODER = "albert."
_BARE_ENCODER = "AlbertModel"
_WORD_TABLE = "embeddings.word_embeddings.weight"
# What old files keep besides parameters, and what is tied to another tensor.
_POSITIONS = re.compile(r"(albert\.)?embeddings\.(position_ids|token_type_ids)")
_TIED_TWICE = ("predictions.decoder.weight", "predictions.decoder.bias")
_UNTIED_UNUSED = ("predictions.bias",)


def is_huggingface_directory(path: epath.Path) -> bool:
    """Whether ``config.json`` is one of theirs; a workdir has a file of that name too.

    Raises:
        WeightsError: it is no JSON.
    """
    file = path / HUGGINGFACE_CONFIG_FILE
    return file.exists() and "model_type" in _read_json(file)


def _read_json(file: epath.Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{file} is no JSON object: {error}") from error


def read_huggingface(directory: epath.Path) -> StoredWeights:
    """Reads configuration and tensors; any of their classes' directories, old or new.

    Raises:
        WeightsError: there are no weights, they cannot be read, or the configuration is not one
            of an ALBERT that we have.
    """
    file = directory / HUGGINGFACE_CONFIG_FILE
    values = _read_json(file)
    try:
        config, head = config_from_json(values), head_from_json(values)
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file}: {error}") from error
    tensors = _drop_duplicates(_with_prefix(_read_tensors(directory)), config)
    architectures = values.get("architectures") or [None]
    return StoredWeights(
        source=str(directory),
        config=config,
        head=head if "classifier.weight" in tensors else None,
        architecture=architectures[0],
        step=None,
        tensors=tensors,
        mapping=huggingface_mapping(config),
    )


def _read_tensors(directory: epath.Path) -> FlatTree:
    # Only a directory of these needs the package.
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
    """Under the names of a model with a head; a bare encoder's directory leaves the prefix out."""
    if _WORD_TABLE not in tensors:
        return tensors
    return {f"{_ENCODER}{name}": tensor for name, tensor in tensors.items()}


def _drop_duplicates(tensors: FlatTree, config: AlbertConfig) -> FlatTree:
    unread = _TIED_TWICE if config.tie_word_embeddings else _UNTIED_UNUSED
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in unread and not _POSITIONS.fullmatch(name)
    }


def write_huggingface(
    directory: Path,
    params: Mapping[str, np.ndarray],
    config: AlbertConfig,
    head: HeadConfig | None,
    *,
    architecture: str,
    special_ids: tuple[int, int, int] | None = None,
) -> None:
    """Writes what transformers 5 and 4.57 load: ``config.json`` and ``model.safetensors``.

    Args:
        directory: exists and is empty.
        params: by our names, all of one type.
        config: the encoder's configuration.
        head: what a classifier among the parameters tells apart.
        architecture: their class, which the Auto classes then choose.
        special_ids: of padding, [CLS] and [SEP]; by default those of the released vocabulary.

    Raises:
        WeightsError: they cannot hold the model.
    """
    from albert_jax.interop.safetensors_files import write_safetensors

    dtype, *others = sorted({parameter.dtype.name for parameter in params.values()})
    if others:
        raise WeightsError(f"parameters are of several types: {', '.join([dtype, *others])}")
    options: dict[str, Any] = {"architecture": architecture, "dtype": dtype}
    if special_ids is not None:
        options["special_ids"] = special_ids
    values = to_json(config, head, **options)
    if not config.has_embedding_mapping:  # theirs always maps: by the identity, nothing changes
        config = dataclasses.replace(config, embedding_mapping=EmbeddingMapping.ALWAYS)
        mapping = "albert/encoder/embedding_hidden_mapping_in"
        params = {
            **params,
            f"{mapping}/kernel": np.eye(config.hidden_size, dtype=dtype),
            f"{mapping}/bias": np.zeros(config.hidden_size, dtype),
        }
    tensors = export_tensors(params, huggingface_mapping(config))
    if not config.tie_word_embeddings and "predictions/bias" in params:
        tensors["predictions.bias"] = params["predictions/bias"]  # read by none, missed by theirs
    if architecture == _BARE_ENCODER:
        tensors = {name.removeprefix(_ENCODER): tensor for name, tensor in tensors.items()}
    (directory / HUGGINGFACE_CONFIG_FILE).write_text(
        json.dumps(values, indent=2) + "\n", encoding="utf-8"
    )
    write_safetensors(directory / WEIGHTS_FILE, tensors)
