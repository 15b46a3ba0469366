"""Settings: fields of frozen dataclasses with help and bounds, and the error of a bad value.

A setting's name, type, default, bounds and one line of help are written once, in its dataclass.
Flags, listings and checks are made from that. This module imports neither flags nor JAX, so all
packages can use it.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, TypeVar

Choice = TypeVar("Choice", bound=StrEnum)
Number = int | float

_HELP, _BOUNDS = "help", "bounds"
_LARGEST = 2**63 - 1  # of whole numbers that have no bound
_LONGEST_SHOWN = 200  # characters of a value in a message


class FieldError(ValueError):
    """A setting has a value that is not allowed.

    Attributes:
        field: dotted name of the setting, relative to the dataclass that was checked.
        allowed: the allowed values, in words.
        got: the value.
        hint: what was probably meant, appended to the message.
    """

    def __init__(self, field: str, allowed: str, got: Any, hint: str = "") -> None:
        shown = repr(str(got) if isinstance(got, StrEnum) else got)
        if len(shown) > _LONGEST_SHOWN:
            shown = f"{shown[:_LONGEST_SHOWN]}…"
        super().__init__(f"{field} must be {allowed}, got {shown}{hint}")
        self.field, self.allowed, self.got, self.hint = field, allowed, got, hint

    def named(self, field: str) -> "FieldError":
        """Return the same error under another name, such as that of a flag."""
        return FieldError(field, self.allowed, self.got, self.hint)

    def within(self, group: str) -> "FieldError":
        """Return the same error as seen from the dataclass that holds this one in a field.

        Example: ``FieldError("vocab_size", "a whole number >= 1", 0).within("model").field`` is
        ``model.vocab_size``.
        """
        return self.named(f"{group}.{self.field}")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """An interval of finite numbers. None is no bound; without any, all numbers are inside."""

    at_least: Number | None = None
    at_most: Number | None = None
    above: Number | None = None
    below: Number | None = None

    def contain(self, value: Number) -> bool:
        """Return True if a number lies inside."""
        if self == Bounds():
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Examples: ``>= 1``, ``< 5``, ``in [1, 256]``, ``in (0, 1)``; empty without a bound."""
        lower = (">=", "[", self.at_least) if self.at_least is not None else (">", "(", self.above)
        upper = ("<=", "]", self.at_most) if self.at_most is not None else ("<", ")", self.below)
        if lower[2] is not None and upper[2] is not None:
            return f"in {lower[1]}{lower[2]:.12g}, {upper[2]:.12g}{upper[1]}"
        sides = (f"{sign} {value:.12g}" for sign, _, value in (lower, upper) if value is not None)
        return "".join(sides)


@dataclasses.dataclass(frozen=True)
class Setting:
    """The declaration of a setting.

    Attributes:
        name: name of the field, dotted if it belongs to a nested dataclass.
        kind: its type: ``bool``, ``int``, ``float``, ``str``, a StrEnum, a tuple, a mapping, or
            another, whose values are not checked.
        optional: True if it may be None.
        default: ``dataclasses.MISSING`` if it has none.
        help: one line of text.
        bounds: bounds of a number.
    """

    name: str
    kind: Any
    optional: bool
    default: Any
    help: str
    bounds: Bounds

    @property
    def choices(self) -> list[str]:
        """The values of a StrEnum; empty for other types."""
        is_choice = isinstance(self.kind, type) and issubclass(self.kind, StrEnum)
        return list(map(str, self.kind)) if is_choice else []

    @property
    def allowed(self) -> str:
        """The allowed values in words. Examples: ``a number > 0 or none``, ``one of a, b``."""
        if self.choices:
            words = f"one of {', '.join(self.choices)}"
        else:
            words = f"{_DESCRIPTIONS.get(self.kind, 'a value')} {self.bounds}".rstrip()
        return f"{words} or none" if self.optional else words

    def check(self, value: Any) -> Any:
        """Return a value as the field stores it: a choice as a member, a whole number as a float.

        Raises:
            FieldError: the field does not take the value.
        """
        if value is None and self.optional:
            return None
        if self.choices:
            return as_choice(self.kind, self.name, value)
        if self.kind not in _DESCRIPTIONS:
            return value
        accepted = {float: (int, float), tuple: (list, tuple)}.get(self.kind, self.kind)
        if not isinstance(value, accepted) or (isinstance(value, bool) and self.kind is not bool):
            raise FieldError(self.name, self.allowed, value)
        if isinstance(value, int) and abs(value) > _LARGEST:
            raise FieldError(self.name, self.allowed, value)
        if self.kind in (int, float) and not self.bounds.contain(value):
            raise FieldError(self.name, self.allowed, value)
        return self.kind(value) if self.kind in (float, tuple) else value


def setting(
    default: Any,
    help: str,
    *,
    at_least: Number | None = None,
    at_most: Number | None = None,
    above: Number | None = None,
    below: Number | None = None,
) -> Any:
    """Declare a dataclass field with a line of help and, for a number, bounds.

    Example: ``ngram: int = setting(3, "longest n-gram, in words", at_least=1, at_most=16)``
    """
    bounds = Bounds(at_least, at_most, above, below)
    return dataclasses.field(default=default, metadata={_HELP: help, _BOUNDS: bounds})


def own_settings(cls: type) -> tuple[Setting, ...]:
    """Return the settings of a dataclass; a nested dataclass counts as one of them."""
    hints = typing.get_type_hints(cls)
    return tuple(
        Setting(
            field.name,
            *split_optional(hints[field.name]),
            field.default,
            field.metadata.get(_HELP, ""),
            field.metadata.get(_BOUNDS, Bounds()),
        )
        for field in dataclasses.fields(cls)
    )


def all_settings(cls: type) -> Iterator[Setting]:
    """Yield the settings of a dataclass and, under dotted names, of those nested in it."""
    for one in own_settings(cls):
        if dataclasses.is_dataclass(one.kind):
            for inner in all_settings(typing.cast(type, one.kind)):
                yield dataclasses.replace(inner, name=f"{one.name}.{inner.name}")
        else:
            yield one


def check_settings(config: Any) -> None:
    """Check every field of a frozen dataclass by type and bounds; called by ``__post_init__``.

    Choices may be given as strings, floats as whole numbers, tuples as lists: they are converted.

    Raises:
        FieldError: a value has the wrong type, is not among the choices, or is out of bounds.
    """
    for one in own_settings(type(config)):
        value = getattr(config, one.name)
        checked = one.check(value)
        if checked is not value:
            object.__setattr__(config, one.name, checked)


def as_choice(choices: type[Choice], name: str, value: Any) -> Choice:
    """Return the member of an enum that a value names.

    Raises:
        FieldError: there is none.
    """
    try:
        return choices(value)
    except ValueError:
        known = list(map(str, choices))
        allowed, hint = f"one of {', '.join(known)}", did_you_mean(str(value), known)
        raise FieldError(name, allowed, value, hint) from None


def did_you_mean(name: str, known: Iterable[str] | Mapping[str, str]) -> str:
    """Return a question that names what was probably meant, or an empty text.

    Args:
        name: what was written.
        known: what may be written; a mapping gives the form in which the question shows each.
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    if not close:
        return ""
    return f"; did you mean {known[close[0]] if isinstance(known, Mapping) else close[0]}?"


def split_optional(hint: Any) -> tuple[Any, bool]:
    """Return a type hint without None and without parameters, and True if None was in it.

    Examples: ``int | None`` gives ``(int, True)``, ``Mapping[str, int]`` ``(Mapping, False)``.
    """
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        (hint,) = (kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return typing.get_origin(hint) or hint, optional


_DESCRIPTIONS: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
    Mapping: "a mapping",
}
