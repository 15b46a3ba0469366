"""A source and the target that is to be written for it, and the rule for those that are empty."""

from typing import NamedTuple

from data_pipeline.errors import InputError


class TextPair(NamedTuple):
    """An example of generation.

    Attributes:
        id: unique in its file or data set.
        source: the text that the encoder reads.
        target: the text that the decoder shall write; None where it is not known.
    """

    id: str
    source: str
    target: str | None


def make_pair(id: str, source: str, target: str | None, place: str) -> TextPair | None:
    """Return a pair, or None where both texts are empty, which is no example.

    An empty source is read as `[CLS] [SEP]` alone. A text of nothing but white space is empty. With
    no target (None) every source counts, so that there is one prediction for each of them.

    Args:
        id: of the pair.
        source: the source.
        target: the target, or None.
        place: file and line of the target, for messages.

    Raises:
        InputError: the target alone is empty, as it is in files that are not aligned.
    """
    if target is not None and not target.strip():
        if source.strip():
            raise InputError(
                f"{place}: the target is empty, its source is {source[:60]!r}; fill it in or leave "
                "out both"
            )
        return None
    return TextPair(id, source, target)
