"""Workdirs of this project as models: configuration, head and the parameters of a checkpoint."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from etils import epath

from albert_jax.config import HeadConfig
from albert_jax.decoder.config import Gpt2Config
from albert_jax.input_files import read_json_object, require_fields
from albert_jax.interop.names import (
    ParameterSlice,
    WeightsError,
    native_decoder_mapping,
    native_mapping,
)
from albert_jax.interop.stored_weights import (
    GENERATOR,
    StoredWeights,
    flatten,
    read_albert_config,
)
from albert_jax.settings import FieldError, did_you_mean

ALBERT_CONFIG_FILE = "albert_config.json"
HEAD_FILE = "head.json"
DECODER_FILE = "decoder_config.json"  # for generation, like the next three
OPTIONS_FILE = "generation_config.json"
TARGET_TOKENIZER = "target_tokenizer"
GENERATION = "AlbertForConditionalGeneration"
CHECKPOINTS = "checkpoints"

Settings = TypeVar("Settings")


def split_step(path: epath.Path) -> tuple[epath.Path, int | None]:
    """Split a path into workdir and step.

    Example: ``runs/a/checkpoints/500`` is step 500 of ``runs/a``.
    """
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path, None


def is_workdir(path: epath.Path) -> bool:
    """Return True if `read_workdir` can read a path."""
    return (path / ALBERT_CONFIG_FILE).exists() and (path / CHECKPOINTS).exists()


def read_workdir(path: epath.Path, step: int | None, *, average: bool = True) -> StoredWeights:
    """Read the parameters of one checkpoint.

    Args:
        path: the workdir.
        step: step of the checkpoint; None for the best one, see `resolve_step`.
        average: read the mean of the parameters, if the run kept one.

    Raises:
        WeightsError: the configuration cannot be read.
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    # Imported here because Orbax takes seconds to import and no other format needs it.
    from albert_jax.training.checkpoint import resolve_step, restore_params

    config = read_albert_config(path / ALBERT_CONFIG_FILE)
    architecture, head = read_head(path / HEAD_FILE)
    directory = path / CHECKPOINTS
    step = resolve_step(directory, step)
    params = flatten(restore_params(directory, step, average=average))
    mapping, decoder = native_mapping(config), None
    # A generator's sizes follow from the run's objective, which is not read here.
    generator = (name for name in params if name.startswith(GENERATOR))
    mapping |= {name: ParameterSlice(name, params[name].shape) for name in generator}
    if (path / DECODER_FILE).exists():
        decoder, architecture = read_decoder_config(path / DECODER_FILE), GENERATION
        mapping |= native_decoder_mapping(config, decoder)
    return StoredWeights(
        f"{directory}/{step}", config, head, architecture, step, params, mapping, decoder
    )


def read_head(file: epath.Path) -> tuple[str | None, HeadConfig | None]:
    """Read the class of a fine-tuned model and the configuration of its head.

    Both are None without the file, as in a workdir of pre-training.

    Raises:
        WeightsError: the file was not written by `write_head`.
    """
    if not file.exists():
        return None, None
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    require_fields(values, {"architecture": str, "labels": list}, str(file), error=WeightsError)
    return values.pop("architecture"), make_settings(HeadConfig, values, str(file))


def write_head(file: epath.Path, architecture: str, head: HeadConfig) -> None:
    """Write a workdir's ``head.json``.

    Example: ``{"architecture": "AlbertForTokenClassification", "labels": ["B", "I", "O"],
    "problem_type": "single_label_classification", "classifier_dropout_prob": 0.1}``
    """
    values = {"architecture": architecture, **dataclasses.asdict(head)}
    file.write_text(json.dumps(values, indent=2) + "\n")


def decoder_config_bytes(config: Gpt2Config) -> bytes:
    """Return a workdir's ``decoder_config.json``: every field by its name."""
    return settings_bytes(config)


def write_decoder_config(file: epath.Path, config: Gpt2Config) -> None:
    """Write a workdir's ``decoder_config.json``."""
    file.write_bytes(decoder_config_bytes(config))


def read_decoder_config(file: epath.Path) -> Gpt2Config:
    """Read a workdir's ``decoder_config.json``; a field that it lacks has its default.

    Raises:
        WeightsError: it does not exist, or is not a decoder's configuration.
    """
    values = read_json_object(file, error=WeightsError, drop_nulls=True)
    return make_settings(Gpt2Config, values, str(file))


def settings_bytes(settings: Any) -> bytes:
    """Return the JSON of a dataclass of settings."""
    return (json.dumps(dataclasses.asdict(settings), indent=2) + "\n").encode()


def make_settings(kind: type[Settings], values: Mapping[str, Any], file: str) -> Settings:
    """Make a dataclass of settings out of the content of a file.

    Args:
        kind: the dataclass.
        values: values by the names of its fields.
        file: name of the file, for messages.

    Raises:
        WeightsError: a field is unknown, or a value is not allowed.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise WeightsError(f"{file}: {name} is unknown{did_you_mean(name, known)}")
    try:
        return kind(**values)
    except FieldError as error:
        raise WeightsError(f"{file}: {error}") from error
