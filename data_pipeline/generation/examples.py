"""A source and the target to be written for it, and the rule for empty ones."""

from typing import NamedTuple

from data_pipeline.errors import InputError


class TextPair(NamedTuple):
    """An example of generation.

    Attributes:
        id: unique in its file or data set.
        source: the text that the encoder reads.
        target: the text that the decoder should write; None if unknown.
    """

    id: str
    source: str
    target: str | None


def make_pair(id: str, source: str, target: str | None, place: str) -> TextPair | None:
    """Return a pair, or None if both texts are empty, which is not an example.

    An empty source is read as `[CLS] [SEP]`. A text that consists only of white space is empty. If
    there is no target (None), every source counts, so that each gets a prediction.

    Args:
        id: the id of the pair.
        source: the source.
        target: the target, or None.
        place: file and line of the target, for messages.

    Raises:
        InputError: only the target is empty, as in files that are not aligned.
    """
    if target is not None and not target.strip():
        if source.strip():
            raise InputError(
                f"{place}: the target is empty, its source is {source[:60]!r}; fill it in or leave "
                "out both"
            )
        return None
    return TextPair(id, source, target)
