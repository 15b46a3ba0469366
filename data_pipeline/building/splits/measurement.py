"""Counts of the text of shards, which add up to the counts in the metadata and the report."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from data_pipeline.corpus.chunks import LongSentenceCutter, cut_documents
from data_pipeline.corpus.metadata import COUNTED
from data_pipeline.corpus.splits import Shard, shard_name
from data_pipeline.memory_maps import MappedDirectory
from data_pipeline.tokenizers.tokenizer import Tokenizer

# Row lengths used in the report, since a build does not know those of training.
ROW_LENGTHS = 512, 128
SPECIAL_TOKENS = 3

_TOKENS_PER_READ = 1 << 22
_DOCUMENTS_PER_READ = 1 << 14


class ShardReport(NamedTuple):
    """The part of a corpus's report that is summed over shards."""

    files: dict[str, dict[str, Any]]  # bytes and sha256 by name
    text: "TextCounts"


class TextCounts(NamedTuple):
    """Counts of text, which can be added up over shards.

    Attributes:
        by_source: number of documents, sentences and tokens of each source.
        tokens: how often each token of the vocabulary occurs.
        rows: for rows of 512 and of 128 with one full-length pair each, the number of filled
            positions and the number of rows.
    """

    by_source: Int64[np.ndarray, "sources 3"]
    tokens: Int64[np.ndarray, " vocabulary"]
    rows: Int64[np.ndarray, "lengths 2"]

    def __add__(self, other: "TextCounts") -> "TextCounts":  # type: ignore[override]
        return TextCounts(*(one + more for one, more in zip(self, other, strict=True)))

    @classmethod
    def zeros(cls, num_sources: int, vocab_size: int) -> "TextCounts":
        """Return the counts of an empty text."""
        shapes = ((num_sources, len(COUNTED)), vocab_size, (len(ROW_LENGTHS), 2))
        return cls(*(np.zeros(shape, np.int64) for shape in shapes))


class SplitReport(NamedTuple):
    """The files of a split, by path within the corpus, and the counts of its text."""

    files: dict[str, dict[str, Any]]
    num_shards: int
    text: TextCounts


def report_shard(
    directory: Path, files: dict[str, dict[str, Any]], num_sources: int, tokenizer: Tokenizer
) -> ShardReport:
    """Count the text of a shard."""
    shard = Shard(MappedDirectory(directory.parent), directory.name, tokenizer.vocab_size)
    tokens = np.zeros(tokenizer.vocab_size, np.int64)
    for start in range(0, len(shard.tokens), _TOKENS_PER_READ):
        part = shard.tokens[start : start + _TOKENS_PER_READ]
        tokens += np.bincount(part, minlength=tokenizer.vocab_size)
    rows = [_measure_rows(shard, tokenizer, length) for length in ROW_LENGTHS]
    text = TextCounts(_count_by_source(shard, num_sources), tokens, np.array(rows, np.int64))
    return ShardReport(files, text)


def sum_reports(
    split: str, reports: Iterable[ShardReport], num_sources: int, vocab_size: int
) -> SplitReport:
    """Sum the reports of the shards of a split, given in order."""
    files: dict[str, dict[str, Any]] = {}
    number, text = 0, TextCounts.zeros(num_sources, vocab_size)
    for report in reports:
        place = f"{split}/{shard_name(number)}"
        files |= {f"{place}/{name}": record for name, record in report.files.items()}
        text += report.text
        number += 1
    return SplitReport(files, number, text)


def _count_by_source(shard: Shard, num_sources: int) -> Int64[np.ndarray, "sources 3"]:
    """Count the documents, sentences and tokens of each source."""
    counts = np.zeros((num_sources, len(COUNTED)), np.int64)
    sentences = np.diff(shard.document_offsets)
    tokens = np.diff(shard.sentence_offsets[shard.document_offsets])
    for column, weights in enumerate((None, sentences, tokens)):
        counts[:, column] = np.bincount(shard.document_sources, weights, minlength=num_sources)
    return counts


def _measure_rows(shard: Shard, tokenizer: Tokenizer, length: int) -> tuple[int, int]:
    """Count the filled positions of rows that hold one full-length pair each, and the rows."""
    capacity = length - SPECIAL_TOKENS
    cutter = LongSentenceCutter(lambda: tokenizer, capacity)
    filled = rows = 0
    for first in range(0, len(shard.document_sources), _DOCUMENTS_PER_READ):
        boundaries = shard.document_offsets[first : first + _DOCUMENTS_PER_READ + 1]
        offsets = shard.sentence_offsets[boundaries[0] : boundaries[-1] + 1].astype(np.int64)
        units = cutter.cut(shard.tokens, offsets)
        documents = units.firsts[boundaries.astype(np.int64) - boundaries[0]]
        targets = np.full(len(documents) - 1, capacity)
        chunks = cut_documents(units, documents[:-1], documents[1:], targets, capacity)
        lengths = units.offsets[chunks.ends] - units.offsets[chunks.firsts]
        filled += int(np.minimum(lengths, capacity).sum())
        rows += len(lengths)
    return filled, rows
