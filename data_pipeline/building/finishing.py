"""From blocks to splits: comparing held-out sentences with training, and writing shards."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import UInt64

from data_pipeline.building.encoding import load_once
from data_pipeline.building.splits.blocks import EncodedDocuments
from data_pipeline.building.splits.held_out import BlockReference, HashFile, save_hashes, union
from data_pipeline.building.splits.measurement import (
    ShardReport,
    SplitReport,
    report_shard,
    sum_reports,
)
from data_pipeline.building.splits.shards import MAX_SHARD_BYTES, Piece, cut_shards, write_shard
from data_pipeline.building.workers import Workers
from data_pipeline.corpus.splits import TRAIN, VALIDATION, ShardSize, shard_name
from data_pipeline.tokenizers.tokenizer import TOKENIZER_DIRECTORY, Tokenizer


class Survey(NamedTuple):
    """The amount of training text in a block, and the hashes of its long held-out sentences."""

    training: ShardSize
    held_out: UInt64[np.ndarray, " hashes"]


class ShardTask(NamedTuple):
    """A shard to write: its pieces, with the blocks that contain them."""

    split: str
    number: int
    pieces: list[tuple[BlockReference, Piece]]

    def documents(self) -> Iterable[EncodedDocuments]:
        """Read the documents of the shard, piece by piece."""
        for reference, piece in self.pieces:
            documents = reference.read(with_tokens=True).select(self.split)
            yield documents.slice(piece.first, piece.last)

    def write(self, corpus: Path, num_sources: int, tokenizer: Tokenizer) -> ShardReport:
        """Write the shard into a corpus, and count its text."""
        directory = corpus / self.split / shard_name(self.number)
        files = write_shard(directory, self.documents(), tokenizer.vocab_size)
        return report_shard(directory, files, num_sources, tokenizer)


def survey(reference: BlockReference) -> Survey:
    """Return what must be known of each block before any split can be written."""
    splits = reference.read()
    return Survey(splits.total(TRAIN), splits.hashes(VALIDATION))


def find_in_training(
    reference: BlockReference, held_out: HashFile
) -> UInt64[np.ndarray, " hashes"]:
    """Return the hashes of held-out sentences that also occur in a block's training text."""
    return reference.read().training_has(held_out.load())


def survey_held_out(reference: BlockReference) -> tuple[ShardSize, Counter[str]]:
    """Return the amount of held-out text in a block, and counts of what was removed from it."""
    splits = reference.read()
    return splits.total(VALIDATION), Counter(splits.removed())


def plan_shards(
    split: str,
    totals: Iterable[ShardSize],
    blocks: Sequence[BlockReference],
    vocab_size: int,
) -> Iterable[ShardTask]:
    """Yield the shards of a split, given the amount of its text in each block."""
    shards = cut_shards(
        totals,
        lambda number: blocks[number].read().sizes(split),
        vocab_size,
        max_shard_bytes=MAX_SHARD_BYTES,
    )
    for number, pieces in enumerate(shards):
        yield ShardTask(split, number, [(blocks[piece.block], piece) for piece in pieces])


def write_splits(
    blocks: Sequence[BlockReference],
    corpus: Path,
    work: Path,
    tokenizer: Tokenizer,
    num_sources: int,
    workers: Workers,
) -> tuple[dict[str, SplitReport], Counter[str]]:
    """Write both splits of a corpus from its blocks.

    Args:
        blocks: the blocks, in order.
        corpus: the directory of the corpus, with the tokenizer and without splits.
        work: the directory for other files.
        tokenizer: the tokenizer of the corpus.
        num_sources: the number of sources of the corpus.
        workers: the processes that read and write.

    Returns:
        The report of each split, and the counts of what was removed from held-out text.
    """
    surveys = list(workers.map(survey, blocks))
    held_out = save_hashes(epath.Path(work / "held_out.hashes"), union(s.held_out for s in surveys))
    find = functools.partial(find_in_training, held_out=held_out)
    found = union(workers.map(find, blocks if len(held_out.load()) else []))
    in_training = save_hashes(epath.Path(work / "in_training.hashes"), found)
    blocks = [block._replace(in_training=in_training) for block in blocks]
    staged = list(workers.map(survey_held_out, blocks))
    totals = {
        TRAIN: [survey.training for survey in surveys],
        VALIDATION: [total for total, _ in staged],
    }
    write = _Writer(corpus, num_sources, tokenizer.fingerprint)
    reports = {}
    for split in (TRAIN, VALIDATION):
        (corpus / split).mkdir()
        tasks = plan_shards(split, totals[split], blocks, tokenizer.vocab_size)
        reports[split] = sum_reports(
            split, workers.map(write, tasks), num_sources, tokenizer.vocab_size
        )
    return reports, sum((removed for _, removed in staged), Counter())


@dataclasses.dataclass(frozen=True)
class _Writer:
    """Writes shards in worker processes."""

    corpus: Path
    num_sources: int
    fingerprint: str  # of the tokenizer

    def __call__(self, task: ShardTask) -> ShardReport:
        tokenizer = load_once(self.corpus / TOKENIZER_DIRECTORY, self.fingerprint)
        return task.write(self.corpus, self.num_sources, tokenizer)
