"""Labels of tasks, as written in files."""

import math
from collections.abc import Iterable, Sequence

from data_pipeline.errors import InputError


def parse_label(cell: str, labels: Sequence[str], place: str) -> int | float:
    """Return the index of a named class, or a score if there are no classes.

    Args:
        cell: the text in the file; surrounding white space is ignored.
        labels: names of the classes in the order of their indices; empty for a regression.
        place: file and line, for messages.

    Raises:
        InputError: there is no such class, or the score is not a finite number.

    Example: `parse_label("pos", ("neg", "pos"), "a.tsv:2")` is 1; `parse_label("3.5", (), ...)` is
    3.5.
    """
    cell = cell.strip()
    if labels:
        if cell not in labels:
            raise InputError(f"{place}: label {cell!r} is none of {', '.join(labels)}")
        return labels.index(cell)
    try:
        score = float(cell)
    except ValueError:
        raise InputError(f"{place}: expected a number as label, found {cell!r}") from None
    if not math.isfinite(score):
        raise InputError(f"{place}: expected a finite number as label, found {cell}")
    return score


def sort_labels(names: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct names in index order: integers by value, else alphabetically.

    Example: `sort_labels(["10", "9", "10"])` is `("9", "10")`.
    """
    distinct = set(names)
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name), name)))
    return tuple(sorted(distinct))
