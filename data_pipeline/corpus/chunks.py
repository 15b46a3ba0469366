"""Documents cut into chunks: runs of whole sentences."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64


class Chunks(NamedTuple):
    """Runs of whole sentences of one document each."""

    documents: Int64[np.ndarray, " chunks"]  # index of the document among those that were cut
    firsts: Int64[np.ndarray, " chunks"]  # number of the first sentence
    ends: Int64[np.ndarray, " chunks"]  # number of the sentence after the last


def cut_documents(
    offsets: Int64[np.ndarray, " boundaries"],
    firsts: Int64[np.ndarray, " documents"],
    ends: Int64[np.ndarray, " documents"],
    targets: Int64[np.ndarray, " documents"],
    advance: Callable[..., np.ndarray] | None = None,
) -> Chunks:
    """Cut each document into chunks of whole sentences.

    Sentences are added until a chunk holds at least the document's target number of tokens, or the
    document ends. Each step cuts one chunk of every document.

    Args:
        offsets: token offset of each sentence, and of the end.
        firsts: number of the first sentence of each document.
        ends: number of the sentence after each document's last.
        targets: tokens that a chunk should hold.
        advance: `(documents, firsts, ends) -> sentences` where the next chunks begin, by default
            the ends of those before (the NSP generator puts unused sentences back).

    Returns:
        The chunks, in the order of the text.

    Example: sentences of 5, 3, 4, 2 tokens and a target of 7 give the chunks `[0, 2)` and `[2, 4)`.
    """
    documents = np.flatnonzero(firsts < ends)
    at = firsts[documents]
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(documents):
        end = np.searchsorted(offsets, offsets[at] + targets[documents], side="left")
        end = np.minimum(end, ends[documents])
        found.append((documents, at, end))
        at = end if advance is None else advance(documents, at, end)
        is_unfinished = at < ends[documents]
        documents, at = documents[is_unfinished], at[is_unfinished]
    if not found:
        return Chunks(*(np.zeros(0, np.int64) for _ in range(3)))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Chunks(*(column[order] for column in columns))
