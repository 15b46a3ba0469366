"""Labels of tasks as files spell them."""

import math
from collections.abc import Iterable, Sequence

from data_pipeline.errors import InputError


def parse_label(cell: str, labels: Sequence[str], place: str) -> int | float:
    """A class's number by its name, or a score where there are no classes.

    Args:
        cell: what the file has; white space around it does not count.
        labels: names of the classes in the order of their numbers; empty for a regression.
        place: file and line.

    Raises:
        InputError: there is no such class, or it is no finite number.

    Example: `parse_label("pos", ("neg", "pos"), "a.tsv:2")` is 1, `parse_label("3.5", (), ...)`
    is 3.5.
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
    """The different names in the order of their numbers: whole numbers by size, else by letter.

    Example: `sort_labels(["10", "9", "10"])` is `("9", "10")`.
    """
    different = set(names)
    if all(name.isascii() and name.removeprefix("-").isdigit() for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))
