"""The held-out split: documents chosen by hash, without long sentences that occur in training."""

import functools
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, UInt64

from data_pipeline.building.selection.hashes import NOT_HASHED, contains
from data_pipeline.building.splits.blocks import (
    DocumentSizes,
    EncodedBlock,
    EncodedDocuments,
    read_block,
)
from data_pipeline.corpus.splits import TRAIN, VALIDATION, ShardSize
from data_pipeline.remote import new_binary_file

_NONE = np.zeros(0, np.uint64)

# Names of the counts of held-out text removed because it also occurs in training.
REMOVED = ("held_out_sentences_removed", "held_out_documents_removed")


def is_held_out(
    hashes: UInt64[np.ndarray, " documents"], fraction: float
) -> Bool[np.ndarray, " documents"]:
    """Return a mask of held-out documents: those with hashes in the lowest `fraction` of values.

    The choice depends only on the document's own text, not on the rest of the corpus.
    """
    # Compared as integers in units of 2^-32, so that every machine agrees.
    return (hashes >> np.uint64(32)) < np.uint64(round(fraction * 2**32))


class BlockSplits(NamedTuple):
    """The two splits of a block: which of its sentences belong to which.

    Attributes:
        block: documents of both splits.
        held_out: the fraction of held-out documents.
        is_new: mask of the documents that are not duplicates; None means all.
        in_training: sorted hashes of held-out sentences that also occur in training.
    """

    block: EncodedBlock
    held_out: float
    is_new: Bool[np.ndarray, " documents"] | None = None
    in_training: UInt64[np.ndarray, " hashes"] = _NONE

    def _documents(self, split: str) -> Bool[np.ndarray, " sentences"]:
        chosen = is_held_out(self.block.document_hashes, self.held_out) == (split == VALIDATION)
        if self.is_new is not None:
            chosen &= self.is_new
        return np.repeat(chosen, self.block.documents.sentence_counts)

    def _mask(self, split: str) -> Bool[np.ndarray, " sentences"]:
        mask = self._documents(split)
        if split == VALIDATION:
            mask &= ~contains(self.in_training, self.block.sentence_hashes)
        return mask

    def hashes(self, split: str) -> UInt64[np.ndarray, " hashes"]:
        """Return the sorted, unique hashes of the long sentences of a split."""
        hashes = np.unique(self.block.sentence_hashes[self._documents(split)])
        return hashes[hashes != NOT_HASHED]

    def training_has(self, held_out: UInt64[np.ndarray, " hashes"]) -> UInt64[np.ndarray, " found"]:
        """Return the hashes of held-out sentences that occur in this block's training text."""
        hashes = self.hashes(TRAIN)
        return hashes[contains(held_out, hashes)]

    def sizes(self, split: str) -> DocumentSizes:
        """Return the sizes of the documents of a split."""
        return self.block.sizes(self._mask(split))

    def total(self, split: str) -> ShardSize:
        """Return the amount of text in a split."""
        sizes = self.sizes(split)
        return ShardSize(int(sizes.tokens.sum()), int(sizes.sentences.sum()), len(sizes.tokens))

    def removed(self) -> dict[str, int]:
        """Count the removed held-out sentences, and the documents left without any."""
        held_out, kept = self._documents(VALIDATION), self._mask(VALIDATION)
        staged, left = (len(self.block.sizes(mask).tokens) for mask in (held_out, kept))
        counts = (int(held_out.sum() - kept.sum()), staged - left)
        return dict(zip(REMOVED, counts, strict=True))

    def select(self, split: str) -> EncodedDocuments:
        """Return the documents of a split."""
        return self.block.documents.select_sentences(self._mask(split))


class HashFile(NamedTuple):
    """A file of sorted hashes."""

    path: epath.Path
    digest: str

    def load(self) -> UInt64[np.ndarray, " hashes"]:
        """Return the hashes; each process reads the file once."""
        return _load_hashes(self)


class BlockReference(NamedTuple):
    """A block stored in a file.

    Attributes:
        path: the file.
        held_out: the fraction of held-out documents.
        is_new: mask of the documents that are not duplicates; None means all.
        in_training: the hashes of held-out sentences that occur in training; None until known.
    """

    path: epath.Path
    held_out: float
    is_new: Bool[np.ndarray, " documents"] | None = None
    in_training: HashFile | None = None

    def read(self, *, with_tokens: bool = False) -> BlockSplits:
        """Read the block."""
        return self.splits(read_block(self.path, with_tokens=with_tokens))

    def splits(self, block: EncodedBlock) -> BlockSplits:
        """Return the splits of the block, given its content."""
        hashes = self.in_training.load() if self.in_training else _NONE
        return BlockSplits(block, self.held_out, self.is_new, hashes)


def save_hashes(path: epath.Path, hashes: UInt64[np.ndarray, " hashes"]) -> HashFile:
    """Write sorted hashes to a file."""
    with new_binary_file(path) as file:
        file.write(hashes.astype("<u8").tobytes())
    return HashFile(path, hashlib.sha256(hashes.tobytes()).hexdigest())


@functools.lru_cache(maxsize=2)
def _load_hashes(file: HashFile) -> UInt64[np.ndarray, " hashes"]:
    return np.frombuffer(file.path.read_bytes(), "<u8").astype(np.uint64)


def union(hashes: Iterable[UInt64[np.ndarray, " _"]]) -> UInt64[np.ndarray, " hashes"]:
    """Return the sorted union of sets of hashes; memory holds up to twice the result."""
    found, pending, size = _NONE, [], 0
    for some in hashes:
        pending.append(some)
        size += len(some)
        if size > len(found):
            found, pending, size = np.unique(np.concatenate([found, *pending])), [], 0
    return np.unique(np.concatenate([found, *pending]))
