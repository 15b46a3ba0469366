"""Settings of dataclasses: their bounds, checks and errors."""

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import pytest

from albert_jax.settings import (
    Bounds,
    FieldError,
    all_settings,
    check_settings,
    did_you_mean,
    own_settings,
    setting,
)


class Shape(StrEnum):
    ROUND = "round"
    SQUARE = "square"


@dataclasses.dataclass(frozen=True)
class Tile:
    count: int = setting(1, "number of tiles", at_least=1, at_most=9)
    rate: float | None = setting(0.5, "rate", above=0)
    shape: Shape = setting(Shape.ROUND, "shape")
    glazed: bool = setting(False, "glazed or not")
    name: str = setting("", "its name")
    labels: tuple[str, ...] = setting((), "labels")
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        check_settings(self)


@dataclasses.dataclass(frozen=True)
class Floor:
    tile: Tile = dataclasses.field(default_factory=Tile)
    level: int = setting(0, "story")


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "outside"),
    [
        (Bounds(at_least=1), ">= 1", [1, 9], [0, math.inf, math.nan]),
        (Bounds(above=0), "> 0", [1e-9], [0, -1]),
        (Bounds(at_most=5), "<= 5", [5, -1], [5.5, -math.inf]),
        (Bounds(below=5), "< 5", [4.9], [5]),
        (Bounds(at_least=0, below=1), "in [0, 1)", [0, 0.9], [1, -0.1]),
        (Bounds(above=0, at_most=4294967295), "in (0, 4294967295]", [4294967295], [4294967296, 0]),
        (Bounds(), "", [0, math.inf], []),
    ],
    ids=str,
)
def test_bounds_in_words_and_in_numbers(
    bounds: Bounds, words: str, inside: list[float], outside: list[float]
) -> None:
    assert str(bounds) == words
    assert all(map(bounds.contain, inside))
    assert not any(map(bounds.contain, outside))


def test_values_are_converted_to_the_type_of_their_field() -> None:
    tile = Tile(rate=2, shape="square", labels=["a"])  # type: ignore[arg-type]
    assert (tile.rate, tile.shape, tile.labels) == (2.0, Shape.SQUARE, ("a",))
    assert type(tile.rate) is float and type(tile.shape) is Shape
    assert Tile(rate=None).rate is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be a whole number in [1, 9], got 0"),
        ({"count": True}, "count must be a whole number in [1, 9], got True"),
        ({"count": 1.0}, "count must be a whole number in [1, 9], got 1.0"),
        ({"count": None}, "count must be a whole number in [1, 9], got None"),
        ({"rate": 0}, "rate must be a number > 0 or none, got 0"),
        ({"rate": "1"}, "rate must be a number > 0 or none, got '1'"),
        ({"shape": "rond"}, "shape must be one of round, square, got 'rond'; did you mean round?"),
        ({"glazed": 1}, "glazed must be true or false, got 1"),
        ({"name": 3}, "name must be text, got 3"),
        ({"labels": "abc"}, "labels must be a list, got 'abc'"),
        ({"extra": 3}, "extra must be a mapping, got 3"),
    ],
    ids=str,
)
def test_a_bad_value_is_reported_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError) as raised:
        Tile(**values)
    assert str(raised.value) == message


def test_an_error_can_be_seen_from_the_dataclass_around_it() -> None:
    assert str(FieldError("shape", "square", Shape.ROUND)).endswith("got 'round'")
    error = FieldError("shape", "one of a, b", "c", "; did you mean b?").within("tile")
    assert error.field == "tile.shape"
    outer = error.within("--config")
    assert str(outer) == "--config.tile.shape must be one of a, b, got 'c'; did you mean b?"
    assert str(error.named("--shape")).startswith("--shape must be one of a, b")


def test_settings_are_described_by_their_fields() -> None:
    names = ["tile.count", "tile.rate", "tile.shape", "tile.glazed", "tile.name", "tile.labels"]
    assert [one.name for one in all_settings(Floor)] == [*names, "tile.extra", "level"]
    count, rate, shape, *_ = own_settings(Tile)
    assert (count.default, count.help, count.allowed) == (
        1,
        "number of tiles",
        "a whole number in [1, 9]",
    )
    assert (rate.kind, rate.optional, rate.allowed) == (float, True, "a number > 0 or none")
    assert shape.choices == ["round", "square"]


def test_the_nearest_name_is_suggested() -> None:
    assert did_you_mean("optimzer", ["model", "optimizer"]) == "; did you mean optimizer?"
    assert did_you_mean("optimzer", {"optimizer": "--optimizer"}) == "; did you mean --optimizer?"
    assert did_you_mean("xyz", ["model"]) == ""
