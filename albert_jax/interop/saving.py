"""Directories that transformers loads: a model's parameters, configuration and tokenizer."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import numpy as np

from albert_jax.config import AlbertConfig, HeadConfig
from albert_jax.durable_files import new_directory
from albert_jax.encoder.merging import merge_layers
from albert_jax.interop import huggingface
from albert_jax.interop.names import WeightsError

CARD_FILE = "README.md"


@runtime_checkable
class SavableTokenizer(Protocol):
    """The tokenizer interface of `save_pretrained`; `data_pipeline.AlbertTokenizer` has it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def pad_id(self) -> int: ...

    @property
    def cls_id(self) -> int: ...

    @property
    def sep_id(self) -> int: ...

    def save_pretrained(self, directory: Path, *, model_max_length: int) -> None:
        """Write its files in Hugging Face's layout."""


def save_huggingface(
    path: str | os.PathLike[str],
    params: Mapping[str, np.ndarray],
    config: AlbertConfig,
    head: HeadConfig | None,
    *,
    architecture: str,
    tokenizer: SavableTokenizer | None,
    card: str | None = None,
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Write a Hugging Face directory; see `PretrainedModel.save_pretrained`.

    What distinguishes layers is merged into parameters that each layer then has for itself, and
    missing biases become zero; see `merge_layers`.

    Args:
        path: a new directory.
        params: parameters by their names in a model with a head, all of one type.
        config: the encoder's configuration.
        head: labels of a classifier among the parameters.
        architecture: the class that transformers' Auto classes choose.
        tokenizer: written beside the model.
        card: the text of the model card, if there is to be one.
        files: further files by their names, which may have a folder.

    Raises:
        WeightsError: see `PretrainedModel.save_pretrained`.
    """
    params, config = merge_layers(params, config)
    ids = None if tokenizer is None else special_ids_of(tokenizer, config)
    with new_directory(path, error=WeightsError) as directory:
        huggingface.write_huggingface(
            directory, params, config, head, architecture=architecture, special_ids=ids
        )
        if tokenizer is not None:
            tokenizer.save_pretrained(directory, model_max_length=config.max_position_embeddings)
        if card is not None:
            (directory / CARD_FILE).write_text(card, encoding="utf-8")
        write_files(directory, files)


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files by their names, which may have a folder."""
    for name, content in files.items():
        file = directory / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)


def special_ids_of(tokenizer: SavableTokenizer, config: AlbertConfig) -> tuple[int, int, int]:
    """Return the ids of padding, [CLS] and [SEP].

    Raises:
        WeightsError: the tokenizer's vocabulary has another size than the model's.
    """
    if tokenizer.vocab_size != config.vocab_size:
        raise WeightsError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, vocab_size is {config.vocab_size}"
        )
    return tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id
