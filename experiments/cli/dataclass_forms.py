"""Frozen dataclasses of settings as plain dicts, and as ConfigDicts that flags can override."""

import dataclasses
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar, cast

from ml_collections import ConfigDict, config_dict

from albert_jax.settings import FieldError, Setting, did_you_mean, own_settings
from data_pipeline.errors import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a nested dict of plain values, with choices as strings.

    Example: ``OptimizerConfig(weight_decay=0)`` gives ``{"name": "lamb", "weight_decay": 0.0, …}``
    """
    return {one.name: _plain(getattr(config, one.name)) for one in own_settings(type(config))}


def build(cls: type[T], values: Any, path: str) -> T:
    """Make a dataclass from plain values, the inverse of `to_dict`; missing ones get defaults.

    Args:
        cls: the dataclass.
        values: a nested mapping; the word ``none`` means None where None is allowed.
        path: its name in errors, such as ``--config``.

    Raises:
        InputError: an unknown name, or a value that is not allowed; one line with the path.
    """
    if not isinstance(values, Mapping):
        raise InputError(str(FieldError(path, "a group of values", values)))
    known = {one.name: one for one in own_settings(cls)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise InputError(f"there is no {path}.{name}" + did_you_mean(name, list(known)))
        arguments[name] = _build_field(known[name], value, f"{path}.{name}")
    try:
        return cls(**arguments)
    except FieldError as error:
        raise InputError(str(error.within(path))) from error


def with_placeholders(config: Any) -> ConfigDict:
    """Return a ConfigDict of the values, with a placeholder of the right type for None."""
    result: dict[str, Any] = {}
    for one in own_settings(type(config)):
        value = getattr(config, one.name)
        if dataclasses.is_dataclass(value):
            result[one.name] = with_placeholders(value)
        elif value is None:
            result[one.name] = config_dict.placeholder(str if one.choices else one.kind)
        else:
            result[one.name] = _plain(value)
    return ConfigDict(result)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a flat dict by dotted names.

    Example: ``{"run": {"fsdp": 1}}`` gives ``{"run.fsdp": 1}``.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, StrEnum):
        return str(value)
    return dict(value) if isinstance(value, Mapping) else value


def _build_field(one: Setting, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(one.kind):
        return build(cast(type, one.kind), value, path)
    return None if value == "none" and one.optional else value
