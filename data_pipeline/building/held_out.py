"""The held-out split: documents chosen by hash, without long sentences that training has too."""

from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt64

from data_pipeline.building.deduplication import read_hashes
from data_pipeline.building.selection.hashes import contains
from data_pipeline.building.writer import SplitWriter, read_split


def is_held_out(
    hashes: UInt64[np.ndarray, " documents"], fraction: float
) -> Bool[np.ndarray, " documents"]:
    """Return a mask of the held-out documents: those with the lowest `fraction` of hashes.

    Only a document's own text decides, whatever else the corpus holds.
    """
    # In units of 2^-32, which every machine compares alike.
    return (hashes >> np.uint64(32)) < np.uint64(round(fraction * 2**32))


def write_validation(
    staged: Path, staged_hashes: Path, train_hashes: Path, output: Path, vocab_size: int
) -> dict[str, int]:
    """Write the validation split.

    The hashes of held-out text are held in memory; those of training text are read in blocks.

    Args:
        staged: the held-out documents as a split.
        staged_hashes: log of the hash of each of their sentences, NOT_HASHED for short ones.
        train_hashes: log of the hashes of the long sentences of all training text.
        output: the split to write.
        vocab_size: tokens in the vocabulary.

    Returns:
        The numbers of removed sentences, and of documents left without any.
    """
    hashes = np.concatenate([np.zeros(0, np.uint64), *read_hashes(staged_hashes)])
    known = np.unique(hashes)
    in_training = np.zeros(len(known), bool)
    for training in read_hashes(train_hashes):
        in_training[np.searchsorted(known, training[contains(known, training)])] = True
    is_removed = contains(known[in_training], hashes)
    writer = SplitWriter(output, vocab_size)
    first = removed_documents = 0
    for documents in read_split(staged, vocab_size):
        last = first + len(documents.sentence_lengths)
        kept = documents.select_sentences(~is_removed[first:last])
        removed_documents += len(documents.sources) - len(kept.sources)
        writer.append(kept)
        first = last
    writer.position()
    writer.close()
    return {
        "held_out_sentences_removed": int(is_removed.sum()),
        "held_out_documents_removed": removed_documents,
    }
