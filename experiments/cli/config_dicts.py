"""Configurations as ConfigDicts, which flags override, and as JSON."""

import json
from typing import Any, ClassVar, Protocol, TypeVar

from ml_collections import ConfigDict

from data_pipeline.errors import InputError
from experiments.cli.dataclass_forms import build, flatten, to_dict, with_placeholders


class Config(Protocol):
    """What the configurations of pre-training and fine-tuning have in common."""

    # Fields that name places: where files lie is no part of an experiment; what lies there is
    # compared by its fingerprint.
    LOCATIONS: ClassVar[frozenset[str]]

    @property
    def run(self) -> Any:
        """What may change when a run is taken up again."""


ConfigT = TypeVar("ConfigT", bound=Config)


def to_config_dict(config: Config) -> ConfigDict:
    """What a config file hands out for flags to override.

    Optional fields without a value become placeholders, so that flags can set them.
    """
    return with_placeholders(config)


def from_config_dict(overridden: ConfigDict, kind: type[ConfigT]) -> ConfigT:
    """The experiment that a config file and its overrides describe, checked.

    Raises:
        InputError: an unknown name, or a value that its field does not take; one line.
    """
    return build(kind, overridden.to_dict(), "--config")


def to_json(config: Config) -> str:
    """The text of a workdir's ``config.json``."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_json(text: str, kind: type[ConfigT], *, source: str) -> ConfigT:
    """The inverse of `to_json`.

    Raises:
        InputError: it is no such file; the message names the `source`.
    """
    try:
        return build(kind, json.loads(text), "--config")
    except (json.JSONDecodeError, InputError) as error:
        raise InputError(f"{source}: {error}") from error


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The old and the new value of every field that differs.

    Example: ``{"run.log_every": (100, 10), "model.hidden_size": (768, 1024)}``
    """
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return {
        name: (before.get(name), after.get(name))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    }
