"""Configurations as ConfigDicts, which flags override, and as JSON."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from ml_collections import ConfigDict

from albert_jax.input_files import parse_json
from data_pipeline.errors import InputError
from experiments.cli.dataclass_forms import build, flatten, to_dict, with_placeholders
from experiments.cli.given_settings import GivenSettings


class Config(Protocol):
    """Common part of the configurations of pre-training and fine-tuning."""

    # Fields that name paths, which are not part of an experiment; the files there are compared by
    # their fingerprint.
    LOCATIONS: ClassVar[frozenset[str]]

    @property
    def run(self) -> Any:
        """The settings that may change when a run is resumed."""

    @staticmethod
    def follow_settings(settings: GivenSettings) -> None:
        """Set the settings that are derived from those that the command line names."""


ConfigT = TypeVar("ConfigT", bound=Config)


def to_config_dict(config: Config) -> ConfigDict:
    """Return an experiment in the form that a config file returns, for flags to override.

    Optional fields without a value become placeholders, so that flags can set them.
    """
    return with_placeholders(config)


def from_config_dict(overridden: ConfigDict, kind: type[ConfigT]) -> ConfigT:
    """Return the experiment that a config file and its overrides describe, checked.

    Raises:
        InputError: an unknown name, or a value that is not allowed; one line.
    """
    return from_values(overridden.to_dict(), kind)


def from_values(values: Mapping[str, Any], kind: type[ConfigT]) -> ConfigT:
    """Return the experiment of a nested dict, checked.

    Raises:
        InputError: an unknown name, or a value that is not allowed; one line.
    """
    return build(kind, values, "--config")


def to_json(config: Config) -> str:
    """Return the text of a workdir's ``config.json``."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str, kind: type[ConfigT], *, source: str) -> ConfigT:
    """Return the experiment of a ``config.json``, the inverse of `to_json`.

    Raises:
        InputError: the text is not a valid one; the message names the `source`.
    """
    values = parse_json(text, source, error=InputError)
    try:
        return build(kind, values, "--config")
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Return the old and the new value of every field that differs.

    Example: ``{"run.log_every": (100, 10), "model.hidden_size": (768, 1024)}``
    """
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    }
