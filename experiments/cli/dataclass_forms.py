"""Frozen dataclasses in other forms: plain dicts, and ConfigDicts that flags can override.

Everything follows from the dataclasses' fields and type hints: ``int``, ``float``, ``bool``,
``str``, StrEnums, mappings, other dataclasses, and each of them or None.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, TypeVar

from ml_collections import ConfigDict, config_dict

from data_pipeline.errors import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A nested dict of plain values: choices as strings, numbers of the type of their field.

    Example: ``OptimizerConfig(weight_decay=0)`` gives ``{"name": "lamb", "weight_decay": 0.0, …}``
    """
    return {name: _plain(hint, getattr(config, name)) for name, hint in _fields(type(config))}


def build(cls: type[T], values: Any, flag: str) -> T:
    """The inverse of `to_dict`: a dataclass from plain values. What is left out has its default.

    Args:
        cls: the dataclass.
        values: a nested mapping; the word ``none`` is None where None may be.
        flag: what an error calls it, such as ``--config``.

    Raises:
        InputError: an unknown name, or a value that its field does not take; one line.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{flag} must be a group of values, got {values!r}")
    hints = dict(_fields(cls))
    for name in values:
        if name not in hints:
            raise InputError(f"there is no {flag}.{name}" + nearest(name, list(hints)))
    arguments = {n: _build_field(hints[n], value, f"{flag}.{n}") for n, value in values.items()}
    try:
        return cls(**arguments)
    except InputError:
        raise
    except ValueError as error:
        message = str(error)
        raise InputError(message if message.startswith("--") else f"--config.{message}") from error


def with_placeholders(config: Any) -> ConfigDict:
    """The same as a ConfigDict, where a placeholder of the right type stands for None."""
    result: dict[str, Any] = {}
    for name, hint in _fields(type(config)):
        inner, optional = _optional(hint)
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            result[name] = with_placeholders(value)
        elif optional and value is None:
            result[name] = config_dict.placeholder(str if issubclass(inner, StrEnum) else inner)
        else:
            result[name] = _plain(hint, value)
    return ConfigDict(result)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names. Example: ``{"run": {"fsdp": 1}}`` gives ``{"run.fsdp": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def field_names(cls: type) -> Iterator[str]:
    """The dotted names of all knobs, such as ``run.log_every``."""
    for name, hint in _fields(cls):
        if dataclasses.is_dataclass(hint):
            yield from (f"{name}.{inner}" for inner in field_names(typing.cast(type, hint)))
        else:
            yield name


def nearest(name: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """A question that names what was probably meant, or nothing.

    Args:
        name: what was written.
        known: what may be written; a mapping gives each the form that the question shows.
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    if not close:
        return ""
    return f"; did you mean {known[close[0]] if isinstance(known, Mapping) else close[0]}?"


def _fields(cls: type) -> list[tuple[str, Any]]:
    hints = typing.get_type_hints(cls)
    return [(field.name, hints[field.name]) for field in dataclasses.fields(cls)]


def _optional(hint: Any) -> tuple[Any, bool]:
    """``int | None`` to ``(int, True)``, ``int`` to ``(int, False)``."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    (inner,) = (arg for arg in typing.get_args(hint) if arg is not types.NoneType)
    return inner, True


def _plain(hint: Any, value: Any) -> Any:
    hint, _ = _optional(hint)
    if dataclasses.is_dataclass(hint):
        return to_dict(value)
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return float(value) if hint is float and value is not None else value


def _build_field(hint: Any, value: Any, flag: str) -> Any:
    """The value that a field of type `hint` takes, checked."""
    hint, optional = _optional(hint)
    if value is None or (optional and value == "none"):
        if optional:
            return None
        raise InputError(f"{flag} cannot be none")
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, flag)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError:
            choices = list(map(str, hint))
            raise InputError(
                f"{flag} must be one of {', '.join(choices)}; got {value!r}"
                + nearest(str(value), choices)
            ) from None
    accepted, described = _ACCEPTED.get(hint, (Mapping, "a mapping"))
    if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{flag} must be {described}, got {value!r}")
    return float(value) if hint is float else value


_ACCEPTED: Mapping[Any, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str, "text"),
}
