"""The files of a model that generates, beside its encoder's: decoder, options, target tokenizer."""

from pathlib import Path
from typing import NamedTuple

from etils import epath

from albert_jax.decoder.config import Gpt2Config
from albert_jax.generation import (
    GenerationOptions,
    options_bytes,
    options_to_json,
    read_generation_options,
)
from albert_jax.interop.encoder_decoder import write_encoder_decoder
from albert_jax.interop.names import WeightsError
from albert_jax.interop.stored_weights import flatten
from albert_jax.interop.workdir import (
    DECODER_FILE,
    GENERATION,
    OPTIONS_FILE,
    TARGET_TOKENIZER,
    write_decoder_config,
)
from albert_jax.pretrained import PretrainedWeights, directory_of
from data_pipeline.tokenizers.albert import AlbertTokenizer
from data_pipeline.tokenizers.targets import load_target_tokenizer


class GenerationFiles(NamedTuple):
    """What a source has beside weights and the source tokenizer; None for what it lacks."""

    options: GenerationOptions | None = None
    target_tokenizer: epath.Path | None = None


def read_generation_files(source: epath.PathLike) -> GenerationFiles:
    """Read what is beside the weights of a model that generates.

    Raises:
        WeightsError: the options are damaged.
    """
    directory = epath.Path(directory_of(source)) / TARGET_TOKENIZER
    return GenerationFiles(
        read_generation_options(source), directory if directory.exists() else None
    )


def write_to_workdir(directory: Path, decoder: Gpt2Config, files: GenerationFiles) -> None:
    """Write the files that only workdirs of generation tasks have."""
    write_decoder_config(epath.Path(directory / DECODER_FILE), decoder)
    if files.options is not None:
        (directory / OPTIONS_FILE).write_bytes(options_bytes(files.options))
    if files.target_tokenizer is not None:
        copy_directory(files.target_tokenizer, directory / TARGET_TOKENIZER)


def write_for_transformers(
    directory: Path,
    stored: PretrainedWeights,
    tokenizer: AlbertTokenizer | None,
    files: GenerationFiles,
) -> None:
    """Write a directory that transformers' EncoderDecoderModel loads.

    Raises:
        WeightsError: transformers has no such model.
    """
    assert stored.decoder is not None
    options = {} if files.options is None else options_to_json(files.options)
    params = flatten(stored.params)
    write_encoder_decoder(directory, params, stored.config, stored.decoder, tokenizer, options)
    if files.target_tokenizer is not None:
        place = directory / TARGET_TOKENIZER
        copy_directory(files.target_tokenizer, place)
        load_target_tokenizer(place).save_huggingface(place)


def check_encoder_alone(stored: PretrainedWeights) -> None:
    """Check that a model has no decoder, which only the formats huggingface and orbax hold.

    Raises:
        WeightsError: it has one.
    """
    if stored.decoder is not None:
        raise WeightsError(
            f"only the formats huggingface and orbax hold {GENERATION}, a model with a decoder"
        )


def copy_directory(source: epath.Path, target: Path) -> None:
    """Copy a directory, local or remote, into a new local one."""
    target.mkdir()
    for entry in source.iterdir():
        if entry.is_dir():
            copy_directory(entry, target / entry.name)
        else:
            (target / entry.name).write_bytes(entry.read_bytes())
