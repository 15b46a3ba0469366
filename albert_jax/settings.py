"""Settings: fields of frozen dataclasses with help and bounds, and the error of a bad value.

A setting's name, type, default, bounds and one line of help stand once, in its dataclass. Flags,
listings and checks are made from that. Knows neither flags nor JAX, so that all packages use it.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=StrEnum)

_HELP, _BOUNDS = "help", "bounds"


class FieldError(ValueError):
    """A setting has a value that it may not have.

    Attributes:
        field: dotted name of the setting, relative to the dataclass that was checked.
        allowed: what it may be, in words.
        got: what it is.
    """

    def __init__(self, field: str, allowed: str, got: Any) -> None:
        super().__init__(f"{field} must be {allowed}, got {got!r}")
        self.field, self.allowed, self.got = field, allowed, got

    def within(self, group: str) -> "FieldError":
        """The same error as seen from the dataclass that holds this one in a field.

        Example: ``FieldError("vocab_size", "at least 1", 0).within("model").field`` is
        ``model.vocab_size``.
        """
        return FieldError(f"{group}.{self.field}", self.allowed, self.got)


@dataclasses.dataclass(frozen=True)
class Bounds:
    """An interval of numbers; None is no bound."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def contain(self, value: float) -> bool:
        """Whether a number lies inside; what is not finite lies outside."""
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Example: ``of at least 1 and at most 256``; empty without any bound."""
        words = {
            "of at least": self.at_least,
            "above": self.above,
            "of at most": self.at_most,
            "below": self.below,
        }
        return " and ".join(
            f"{word} {bound:g}" for word, bound in words.items() if bound is not None
        )


def setting(
    default: Any,
    help: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with a line of help and bounds of its number.

    Example: ``ngram: int = setting(3, "most words of an n-gram", at_least=1, at_most=16)``
    """
    bounds = Bounds(at_least, at_most, above, below)
    return dataclasses.field(default=default, metadata={_HELP: help, _BOUNDS: bounds})


def help_of(field: "dataclasses.Field[Any]") -> str:
    """A field's line of help; empty if it was not defined by `setting`."""
    return str(field.metadata.get(_HELP, ""))


def bounds_of(field: "dataclasses.Field[Any]") -> Bounds:
    """The bounds of a field's number."""
    bounds: Bounds = field.metadata.get(_BOUNDS, Bounds())
    return bounds


def check_settings(settings: Any) -> None:
    """Checks every field of a frozen dataclass by its type and bounds; to be called by
    ``__post_init__``.

    Choices may be given as strings, and floats as whole numbers: both are converted in place.

    Raises:
        FieldError: a value is of another type, no choice, or out of bounds.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        checked = check_value(field.name, hints[field.name], value, bounds_of(field))
        if checked is not value:
            object.__setattr__(settings, field.name, checked)


def check_value(name: str, hint: Any, value: Any, bounds: Bounds | None = None) -> Any:
    """A value as a field of a type takes it.

    Args:
        name: of the field, for the error.
        hint: its type: ``bool``, ``int``, ``float``, ``str``, a StrEnum, each of them or None;
            values of other types are taken as they are.
        value: what it is given.
        bounds: of a number.

    Raises:
        FieldError: the field does not take the value.
    """
    kind, optional = split_optional(hint)
    if value is None and optional:
        return None
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return as_choice(kind, name, value)
    if kind not in _DESCRIPTIONS:
        return value
    bounds = bounds or Bounds()
    described = " ".join(filter(None, (_DESCRIPTIONS[kind], str(bounds))))
    allowed = f"{described} or none" if optional else described
    accepted = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise FieldError(name, allowed, value)
    if kind in (int, float) and not bounds.contain(value):
        raise FieldError(name, allowed, value)
    return float(value) if kind is float else value


def as_choice(choices: type[Choice], name: str, value: Any) -> Choice:
    """The member of an enum that a value names.

    Raises:
        FieldError: there is none.
    """
    try:
        return choices(value)
    except ValueError:
        raise FieldError(name, f"one of {', '.join(choices)}", value) from None


def split_optional(hint: Any) -> tuple[Any, bool]:
    """Example: ``int | None`` gives ``(int, True)``, ``int`` gives ``(int, False)``."""
    if typing.get_origin(hint) not in (types.UnionType, typing.Union):
        return hint, False
    (kind,) = (argument for argument in typing.get_args(hint) if argument is not types.NoneType)
    return kind, True


_DESCRIPTIONS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
