"""Held-out documents made clean: without the long sentences that training has too."""

from pathlib import Path

import numpy as np

from data_pipeline.corpus.deduplication import contains
from data_pipeline.corpus.journal import read_hashes
from data_pipeline.corpus.writer import SplitWriter, keep_sentences, read_back


def write_validation(
    staged: Path, staged_hashes: Path, train_hashes: Path, output: Path, vocab_size: int
) -> dict[str, int]:
    """Writes the validation split.

    Held-out text is little and held in memory as hashes; training text goes by in blocks.

    Args:
        staged: the held-out documents as a split.
        staged_hashes: log with the hash of each of their sentences, NOT_HASHED for short ones.
        train_hashes: log with the hashes of the long sentences of all training text.
        output: the split to write.
        vocab_size: pieces of the tokenizer.

    Returns:
        What was removed: sentences, and documents of which nothing was left.
    """
    hashes = np.concatenate([np.zeros(0, np.uint64), *read_hashes(staged_hashes)])
    known = np.unique(hashes)
    shared = np.zeros(len(known), bool)
    for training in read_hashes(train_hashes):
        shared[np.searchsorted(known, training[contains(known, training)])] = True
    is_removed = contains(known[shared], hashes)
    writer = SplitWriter(output, vocab_size)
    first = removed_documents = 0
    for documents in read_back(staged, vocab_size):
        last = first + len(documents.sentence_lengths)
        kept = keep_sentences(documents, ~is_removed[first:last])
        removed_documents += len(documents.sources) - len(kept.sources)
        writer.append(kept)
        first = last
    writer.position()
    writer.close()
    return {
        "held_out_sentences_removed": int(is_removed.sum()),
        "held_out_documents_removed": removed_documents,
    }
