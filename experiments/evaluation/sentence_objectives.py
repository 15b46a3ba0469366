"""What the figures of the sentence head are called, by what the head was asked."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from data_pipeline.config import SentenceObjective

T = TypeVar("T")

# The head and its loss are one; what their labels mean is the data's choice.
_STEMS: Mapping[SentenceObjective, str | None] = {
    SentenceObjective.SOP: "sentence_order",
    SentenceObjective.NSP: "next_sentence",
    SentenceObjective.NONE: None,
}


def stem(objective: SentenceObjective) -> str | None:
    """How the figures' names begin; None where nothing is asked."""
    return _STEMS[objective]


def rename(figures: Mapping[str, T], objective: SentenceObjective) -> dict[str, T]:
    """Figures under the names of their objective; those of a head that was asked nothing go.

    Example: for NSP ``{"loss": 2, "sentence_order_loss": 1}`` becomes ``{"loss": 2,
    "next_sentence_loss": 1}``, for `none` ``{"loss": 2}``.
    """
    old, new = _STEMS[SentenceObjective.SOP], _STEMS[objective]
    assert old is not None
    return {
        name.replace(old, new or "", 1): value
        for name, value in figures.items()
        if new is not None or not name.startswith(old)
    }


def renamed(
    function: Callable[..., dict[str, T]], objective: SentenceObjective
) -> Callable[..., dict[str, T]]:
    """The function with its figures renamed."""
    return lambda *arguments: rename(function(*arguments), objective)
